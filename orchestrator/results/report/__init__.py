"""The report of a sweep: one HTML file with its pictures."""
