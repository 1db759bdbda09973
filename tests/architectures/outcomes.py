"""Outcomes of the trials of all architectures; as a program this tries them and writes them into docs/models.md."""

import json
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import transformers

from tests.architectures.trying import Outcome, Use, architectures, try_architecture

FILE = Path(__file__).with_name("outcomes.json")


def expected() -> dict[tuple[str, Use], Outcome]:
    """The outcomes that are written down, by architecture and use."""
    written: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        (model_type, use): Outcome(found["result"], found["reason"], tuple(found["without"]), tuple(found["targets"]))
        for model_type, uses in written["architectures"].items()
        for use, found in uses.items()
    }


def release() -> str:
    """The release of transformers whose architectures are written down."""
    return str(json.loads(FILE.read_text(encoding="utf-8"))["transformers"])


def write() -> None:
    """Try every architecture and write down what it came to."""
    found: dict[str, dict[str, Any]] = {}
    for model_type, use in architectures():
        with tempfile.TemporaryDirectory() as folder:
            found.setdefault(model_type, {})[use] = asdict(try_architecture(model_type, use, Path(folder)))
    written = {"transformers": transformers.__version__, "architectures": found}
    FILE.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    write()
