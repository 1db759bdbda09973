"""The script of a job, and what runs in its allocation."""
