"""Check that a checkpoint's head counts the classes of a task as the task does."""

from collections.abc import Mapping, Sequence

from finetune.data.label_names import NamedClass, written
from finetune.errors import HeadError
from finetune.model.loading import load_config
from finetune.settings import HeadSettings, ModelSettings


def check_class_order(
    model: ModelSettings, head: HeadSettings, classes: Sequence[NamedClass], *, n_outputs: int
) -> None:
    """Check that no class of a task has the name of another output of the head that a checkpoint brings.

    Names are the same if they differ in capital letters, white space and punctuation alone. Those that one side alone
    has, as `LABEL_0`, are not compared.

    Args:
        model: where the checkpoint is.
        head: the head; only a pretrained one has outputs of its own.
        classes: what the labels of the task mean.
        n_outputs: outputs of the head.

    Raises:
        HeadError: a class has the name of another output; says which labels would fit.
    """
    if head.kind != "pretrained" or model.weights != "pretrained" or not classes:
        return
    names: Mapping[int, str] = load_config(model, n_outputs).id2label or {}
    outputs = {_compared(name): int(number) for number, name in names.items()}
    if len(outputs) < len(names):
        return
    for each in classes:
        output = outputs.get(_compared(each.name), each.of)
        if output != each.of:
            fitting = written((other.label, outputs.get(_compared(other.name), other.of)) for other in classes)
            listed = ", ".join(f"{number} {name}" for number, name in names.items())
            raise HeadError(
                f"label {each.name!r} is class {each.of} of the task, but output {output} of the checkpoint's head, "
                f"whose config.json lists {listed} (id2label); set task.labels: {fitting}, or use another head"
            )


def _compared(name: object) -> str:
    text = str(name).casefold()
    return "".join(letter for letter in text if letter.isalnum()) or text
