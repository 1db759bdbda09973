"""A spec to start from: the keys that most sweeps need, with comments on what was found in data and model."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from orchestrator.documents.writing import to_yaml
from orchestrator.literal import printable
from orchestrator.spec.schema import schema_comment

MOST_LINES = 25

TRAINING = "# finetune: {learning_rate: 0.001, epochs: 10} # without the first #, every cell is trained too"
"""The last line: a section that costs more than all others, for whom the ridge solutions do not suffice."""


@dataclass(frozen=True)
class Start:
    """What a spec to start from says; comments are for people and may be empty.

    Attributes:
        name: name of the sweep.
        model: folder of the model relative to the spec, or its id on the hub.
        about_model: comment on it.
        task: keys of the section `task`, in order.
        about_task: comments by key.
        targets: target modules.
        about_targets: comment on them.
        kernel: keys of the section `kernel`; none leaves it out.
        n_train: training-set size.
        doubts: what is said beside the file, for its user to decide.
    """

    name: str
    model: str
    about_model: str
    task: dict[str, object]
    targets: tuple[str, ...]
    about_targets: str
    n_train: int
    kernel: dict[str, object] = field(default_factory=dict)
    about_task: dict[str, str] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()


def short_spec(start: Start) -> str:
    """Return the text of a spec of 25 lines at most."""
    lines = list(_lines(start))
    if len(lines) > MOST_LINES:
        lines = [line for line in lines if line]
    return "\n".join(lines) + "\n"


def _lines(start: Start) -> Iterator[str]:
    yield schema_comment()
    yield "# The keys that most sweeps need; `ntksweep init --full` writes every key with its meaning."
    yield f"name: {_flow(start.name)}"
    yield f"model: {_flow({'path': start.model})}{_comment(start.about_model)}"
    yield ""
    yield "task:"
    for key, value in start.task.items():
        yield f"  {key}: {_flow(value)}{_comment(start.about_task.get(key, ''))}"
    yield ""
    yield f"adapter: {_flow({'kind': 'lora', 'rank': 8, 'target_modules': list(start.targets)})}" + _comment(
        start.about_targets
    )
    yield "head: {in_kernel: false} # to compare the layers alone: the head's part of the kernel is far larger"
    if start.kernel:
        yield f"kernel: {_flow(start.kernel)} # one row of the kernel for each example, not one for each class too"
    yield ""
    yield "grid: # every combination is a cell"
    yield "  lambdas: {logspace: {start: 1.0e-4, stop: 10.0, count: 6}, scale: trace} # strengths of the regularization"
    yield "  layer_sets: [each_layer, all_layers] # layers that are adapted: each one alone, and all together"
    yield "  seeds: [0, 1] # each one draws other examples and other random weights"
    yield f"  n_train: [{start.n_train}] # training examples"
    yield ""
    yield TRAINING


def _flow(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, str) and not value.isprintable():
        return _escaped(value)
    return to_yaml(value, on_one_line=True).strip().removesuffix("...").strip()


def _escaped(text: str) -> str:
    """Return a text in double quotes on one line, with what cannot be seen as YAML's escapes."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in plain) + '"'


def _comment(text: str) -> str:
    # Names of columns may hold line breaks, behind which YAML would go on.
    return f" # {printable(' '.join(text.split()))}" if text else ""
