"""The Parquet tables of a sweep: schemas, writing and reading."""
