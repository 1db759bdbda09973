"""The Parquet tables that a sweep leaves: their schemas, how they are written, how they are read."""
