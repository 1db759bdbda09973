"""Write the second half of docs/models.md: what tests found of every architecture of transformers."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "models.md"
OUTCOMES = DOCS.parent / "tests" / "architectures" / "outcomes.json"
START = "## Every architecture of transformers"

_USES = ("classifier", "label words")
_RESULTS = ("right", "right alone", "refused", "not built")
_MOST_TARGETS = 16

# what a message says, in a few words; the first that fits
_REASONS = {
    r"is an encoder-decoder": "an encoder-decoder",
    r"padding reaches the text itself, first in (\S+) \((\w+)\)": r"padding changes a text's numbers, first in `\2`",
    r"padding reaches the text itself": "padding changes a text's numbers",
    r"computes across the texts of a batch": "computes across the texts of a batch",
    r"keeps something from one text to the next": "keeps something from one text to the next",
    r"none of whose axes is that of the examples": "lays the examples of a batch out in a way of its own",
    r"has turned gradients off": "goes backward by a rule of its own, past its linear modules",
    r"no linear layer with \d+ outputs": "its head does not end in a linear layer of its own",
    r"no output embedding": "has no output embedding",
    r"changes its logits after the output": "the logit of a word depends on more than its row of the output embedding",
    r"linear module of the model, which has none": "has no linear modules but others in their place",
    r"NaN or infinite": "its outputs are NaN in double precision",
    r"requires the (?:PIL|timm) library": "needs pillow and timm to be built",
    r"requires the detectron2 library": "needs detectron2 to be built",
    r"hidden_size_per_layer_input must|producing a cache": "drafts for another model, whose states it reads",
}

_INTRODUCTION = """
Transformers {release} knows {total} architectures that classify sequences or go on with texts. A test builds each of
them with a tiny configuration and random weights in float64, takes its Jacobian rows for a batch of texts of different
lengths with every linear module of the base model as a target, and compares them with plain autograd through
transformers alone, on one text at a time without padding. They must agree to 1e-10, or a message refuses the model and
says why.

| what came of it | architectures |
| --- | ---: |
{counts}

- **right**: outputs and rows agree, as a classifier or with label words, and pass the trial that a sweep makes before
  it captures anything.
- **right alone**: refused in batches, as what shares a batch changes the numbers of a text; right with
  `compute.batching: alone`, with which every text goes through the model by itself.
- **refused**: one message, for the reason in the second table.
- **not built**: no tiny configuration of it can be built here, so that nothing is known of it.

An architecture counts by the better of its two uses. "-" is a use that transformers has no class for. Label words are
those of its causal language model, or of its masked one. What is not in the table, as code that comes with a
checkpoint, meets the same checks in a sweep. `docs/write_models.py` writes this part from what the test found.

### Right

`adapter.target_modules` may name any linear module of the table, by the last part of its name; where that stands for
several modules of a layer, give more of the name. Modules in the last column cannot be adapted, and a message says
why: a model reads their weights directly, runs them where gradients are off, they return more than a product, or two
layers share them.

| `model_type` | classifier | label words | linear modules | not as targets |
| --- | --- | --- | --- | --- |
{right}

### Right alone, refused or not built

| `model_type` | use | result | reason |
| --- | --- | --- | --- |
{others}

What to do: instead of an encoder-decoder take an encoder (RoBERTa for BART, say) or a decoder. Where a classifier is
refused, label words may be right, and the other way round. `compute.batching: alone` costs time, and no exactness.
"""


def page() -> str:
    """The whole page: what people wrote, and then what the outcomes say."""
    written = json.loads(OUTCOMES.read_text(encoding="utf-8"))
    by_hand = PAGE.read_text(encoding="utf-8").split(START)[0].rstrip()
    found: Mapping[str, Mapping[str, Any]] = written["architectures"]
    best = {name: min((use["result"] for use in uses.values()), key=_RESULTS.index) for name, uses in found.items()}
    counts = "\n".join(f"| {result} | {list(best.values()).count(result)} |" for result in _RESULTS)
    text = _INTRODUCTION.format(
        release=written["transformers"],
        total=len(found),
        counts=counts,
        right="\n".join(_right_row(name, found[name]) for name in found if best[name] == "right"),
        others="\n".join(line for name in found for line in _other_rows(name, found[name])),
    )
    return f"{by_hand}\n\n{START}\n{text}"


def _right_row(name: str, uses: Mapping[str, Any]) -> str:
    cells = [uses[use]["result"] if use in uses else "-" for use in _USES]
    right = [found for found in uses.values() if found["result"] == "right"]
    targets = list(dict.fromkeys(target for found in right for target in found["targets"]))
    without = list(dict.fromkeys(target for found in right for target in found["without"]))
    return f"| `{name}` | {' | '.join(cells)} | {_names(targets)} | {_names(without)} |"


def _other_rows(name: str, uses: Mapping[str, Any]) -> Iterator[str]:
    for use, found in uses.items():
        if found["result"] != "right":
            yield f"| `{name}` | {use} | {found['result']} | {_reason(found['reason'])} |"


def _names(names: list[str]) -> str:
    listed = ", ".join(f"`{name}`" for name in names[:_MOST_TARGETS])
    return listed + (f" and {len(names) - _MOST_TARGETS} more" if len(names) > _MOST_TARGETS else "")


def _reason(message: str) -> str:
    for pattern, words in _REASONS.items():
        found = re.search(pattern, message)
        if found:
            return found.expand(words)
    raise ValueError(f"no short reason stands for: {message}")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
