"""Parquet files: the wanted columns, checked before they become Python's values."""

from collections.abc import Sequence
from pathlib import Path

from finetune.data.reading.table import Table, check_names
from finetune.errors import DataLoadError, FinetuneError


def parquet_names(path: Path) -> list[str]:
    """Return the names of the columns of a Parquet file.

    Raises:
        DataLoadError: the file is damaged or not a Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataLoadError(
            f"{path} cannot be read as Parquet: {' '.join(str(error).split())}; write the file again"
        ) from error


def read_parquet(path: Path, wanted: Sequence[str]) -> Table:
    """Read columns of a Parquet file.

    Raises:
        DataLoadError: the file is damaged or not a Parquet file.
        MissingColumnError: a wanted column does not exist.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            check_names(str(path), file.schema_arrow.names, wanted)
            table = file.read(columns=list(dict.fromkeys(wanted)))
        table.validate(full=True)  # texts that are no UTF-8, offsets that point outside
        columns = {name: table.column(name).to_pylist() for name in wanted}
    except FinetuneError:
        raise
    except (pa.ArrowException, OSError, MemoryError, ValueError, OverflowError) as error:
        raise DataLoadError(
            f"{path} cannot be read as Parquet: {' '.join(str(error).split())}; write the file again"
        ) from error
    return Table(columns, table.num_rows, lambda row: str(path))
