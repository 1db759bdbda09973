"""Parquet files: the wanted columns, checked before they become Python's values."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.data.reading.table import Table, check_names
from finetune.data.reading.text_file import check_is_data
from finetune.errors import DataLoadError, FinetuneError


def parquet_names(path: Path) -> list[str]:
    """Return the names of the columns of a Parquet file.

    Raises:
        DataLoadError: the file is damaged or not a Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_is_data(path)
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

    check_is_data(path)
    try:
        with pq.ParquetFile(path) as file:
            check_names(str(path), file.schema_arrow.names, wanted)
            names = _class_names(file.schema_arrow.metadata)
            table = file.read(columns=list(dict.fromkeys(wanted)))
        table.validate(full=True)  # texts that are no UTF-8, offsets that point outside
        columns = {name: table.column(name).to_pylist() for name in wanted}
    except FinetuneError:
        raise
    except (pa.ArrowException, OSError, MemoryError, ValueError, OverflowError) as error:
        raise DataLoadError(
            f"{path} cannot be read as Parquet: {' '.join(str(error).split())}; write the file again"
        ) from error
    return Table(columns, table.num_rows, lambda row: str(path), names)


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Return the names of classes that the library `datasets` writes beside columns of whole numbers."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: tuple(map(str, feature["names"]))
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return {}
