"""Every architecture of transformers: right beside one example at a time, or refused by a message that says why."""

from collections import Counter
from pathlib import Path

import pytest
import transformers

from docs import write_models
from tests.architectures.outcomes import expected, release
from tests.architectures.trying import Use, architectures, try_architecture

ALL = architectures()
EXPECTED = expected()
RELEASE = release()


@pytest.mark.parametrize(("model_type", "use"), ALL, ids=[f"{each[0]}-{each[1].split()[0]}" for each in ALL])
def test_it_is_right_or_refused_by_name(tmp_path: Path, model_type: str, use: Use):
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        found = try_architecture(model_type, use, tmp_path)
    finally:
        transformers.logging.set_verbosity(verbosity)
    assert found.result != "wrong", found.reason
    # one that is not written down, of another release of transformers, is tried like the others
    before = EXPECTED.get((model_type, use), found)
    assert found.result == before.result, f"{found.reason or 'it is right'}; docs/models.md calls it {before.result}"
    if transformers.__version__ == RELEASE:
        assert (found.without, found.targets) == (before.without, before.targets)


def test_most_of_what_can_be_built_is_right():
    by_type: dict[str, set[str]] = {}
    for (model_type, _), outcome in EXPECTED.items():
        by_type.setdefault(model_type, set()).add(outcome.result)
    results = Counter("right" if "right" in found else "other" for found in by_type.values() if found != {"not built"})
    assert results["right"] >= 0.85 * results.total()


def test_the_page_tells_what_was_found():
    assert write_models.PAGE.read_text(encoding="utf-8") == write_models.page(), "run `python docs/write_models.py`"
