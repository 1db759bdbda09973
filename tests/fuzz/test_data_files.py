"""Damaged data files of every format: examples, or one message that names the file; never anything else, or for long.

`NTKSWEEP_FUZZ=full` tries 2,000 files instead of 100.
"""

import json
import os
import resource
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.data.task import read_examples
from finetune.errors import FinetuneError
from finetune.settings import TaskSettings

pytestmark = pytest.mark.faults

FILES = 2000 if os.environ.get("NTKSWEEP_FUZZ") == "full" else 100
MOST_SECONDS = 10
MOST_GROWTH_KB = 500 * 1024

ROWS = {"text": ["a film", 'a "long", plot', "null", "café\nnow", "1900", "it"], "label": [0, 1, 1, 0, 1, 0]}
PIECES = [b'"', b",", b"\t", b"\n", b"\r", b";", b"\0", b"\xff", b"\xe9", b"{", b"[", b"}", b"NaN", b"9" * 5000, b"-1",
          b"1e999", b"\\ud800", b"\xff\xfe", b"\xef\xbb\xbf", b"label", b"[" * 5000, b"null",
          b"\xe2\x80\xa8"]  # fmt: skip


def content(folder: Path, suffix: str) -> bytes:
    path = folder / f"whole{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table(ROWS), path)
    elif suffix in (".jsonl", ".json"):
        rows = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("\n".join(lines) if suffix == ".jsonl" else f"[{','.join(lines)}]", encoding="utf-8")
    else:
        between = "," if suffix == ".csv" else "\t"
        fields = [[text.replace('"', '""'), label] for text, label in zip(*ROWS.values(), strict=True)]
        lines = [f'"{text}"{between}{label}' for text, label in fields]
        path.write_text("\n".join([f"text{between}label", *lines]), encoding="utf-8")
    return path.read_bytes()


def mutated(whole: bytes, changes: list[tuple[str, int, int, bytes]]) -> bytes:
    for kind, where, length, piece in changes:
        start = where % (len(whole) + 1)
        stop = start + length
        if kind == "insert":
            whole = whole[:start] + piece + whole[start:]
        elif kind == "replace":
            whole = whole[:start] + piece[:length] + whole[start + len(piece[:length]) :]
        elif kind == "remove":
            whole = whole[:start] + whole[stop:]
        elif kind == "repeat":
            whole = whole[:stop] + whole[start:stop] + whole[stop:]
        else:
            whole = whole[:start]
    return whole


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "remove", "repeat", "cut"]),
        st.integers(0, 1 << 20),
        st.integers(1, 40),
        st.sampled_from(PIECES) | st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=4,
)
TASKS = st.sampled_from(
    [{"kind": "classification"}, {"kind": "regression"}, {"kind": "classification", "sign_cut": 0.5}]
)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_a_damaged_file_is_read_or_named(tmp_path: Path, suffix: str):
    whole, path = content(tmp_path, suffix), tmp_path / f"data{suffix}"
    assert read_examples(TaskSettings(str(tmp_path / f"whole{suffix}"), "classification")).train.texts == ROWS["text"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = []

    @settings(max_examples=FILES // 5, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(changes=CHANGES, task=TASKS)
    def look(changes, task):
        path.write_bytes(mutated(whole, changes))
        began = time.monotonic()
        try:
            read_examples(TaskSettings(str(path), **task))
        except FinetuneError as error:
            assert str(path) in str(error)
            refused.append(str(error))
        assert time.monotonic() - began < MOST_SECONDS

    look()
    assert refused, "no file was damaged"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_GROWTH_KB
