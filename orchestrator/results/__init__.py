"""Results of a sweep: tables, status, rankings and reports."""
