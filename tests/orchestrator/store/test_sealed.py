"""Records that find every changed byte in themselves."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.store import checksums
from orchestrator.store.sealed import sealed, unsealed

RECORD = {"name": "café", "numbers": [1, 1e-05, None, True], "nested": {"a": {"b": " "}}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), JSON, min_size=1))
def test_a_record_comes_back_as_it_was(record: dict) -> None:
    assert unsealed(sealed(record)) == record


def test_any_json_reader_can_read_it() -> None:
    read = json.loads(sealed(RECORD))
    assert read.pop("algorithm") == "xxh128"
    assert len(read.pop("checksum")) == 32
    assert read == RECORD


@given(st.integers(0, len(sealed(RECORD)) - 1), st.integers(1, 255))
def test_every_flipped_byte_is_found(position: int, flip: int) -> None:
    content = bytearray(sealed(RECORD))
    content[position] ^= flip
    with pytest.raises(ValueError, match=r"does not match|cut off or changed"):
        unsealed(bytes(content))


@given(st.integers(0, len(sealed(RECORD)) - 1))
def test_a_record_cut_short_is_found(length: int) -> None:
    with pytest.raises(ValueError, match=r"does not match|cut off or changed"):
        unsealed(sealed(RECORD)[:length])


def test_bytes_added_at_the_end_are_found() -> None:
    with pytest.raises(ValueError, match="does not match"):
        unsealed(sealed(RECORD) + b"\n")


def test_what_json_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        sealed({"x": float("nan")})


def test_a_record_is_verified_by_the_algorithm_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    content = sealed(RECORD)
    monkeypatch.setattr(checksums, "_KNOWN", {**checksums._KNOWN, "sha3": hashlib.sha3_256})
    other = checksums.checksum_of([content[content.index(b'\n "name"') :]], "sha3")
    assert unsealed(content.replace(b"xxh128", b"sha3").replace(content.split(b'"')[7], other.encode())) == RECORD
    with pytest.raises(
        ValueError, match=r"algorithm 'md5' of its checksum does not match any known one \(xxh128, sha3\)"
    ):
        unsealed(content.replace(b"xxh128", b"md5"))
