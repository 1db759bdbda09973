"""The script of a job, and the work in its allocation."""
