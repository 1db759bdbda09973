"""Every architecture of transformers: right beside one example at a time, or refused by a message that says why."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.architectures.outcomes import expected
from tests.architectures.trying import Outcome, Use, architectures, try_architecture

ALL = architectures()
EXPECTED = expected()


def _case(model_type: str, use: Use) -> Any:
    known_wrong = EXPECTED.get((model_type, use), Outcome("right")).result == "wrong"
    marks = [pytest.mark.xfail(reason="what shares a batch changes its numbers")] if known_wrong else []
    return pytest.param(model_type, use, marks=marks, id=f"{model_type}-{use.replace(' ', '-')}")


@pytest.mark.parametrize(("model_type", "use"), [_case(*each) for each in ALL])
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
    assert found.result == before.result, found.reason or "docs/models.md calls it " + before.result
    assert found.without == before.without


def test_most_of_what_can_be_built_is_right():
    by_type: dict[str, set[str]] = {}
    for (model_type, _), outcome in EXPECTED.items():
        by_type.setdefault(model_type, set()).add(outcome.result)
    results = Counter(
        "right" if "right" in found else "refused" for found in by_type.values() if found != {"not built"}
    )
    assert results["right"] >= 0.85 * results.total()
