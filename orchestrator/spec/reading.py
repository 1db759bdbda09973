"""Reading a spec from YAML, with errors that name the line, the key and the nearest valid one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.data.data_folder import is_data
from orchestrator.documents import Document, Overrides, overrides_of
from orchestrator.documents.lines import Lines
from orchestrator.errors import SpecError
from orchestrator.spec.library_names import LIBRARY_NAMES
from orchestrator.spec.model import Spec


def read_spec(path: str | Path, *, overrides: Overrides = ()) -> Spec:
    """Read and check the spec in the file `path`.

    Args:
        path: the file.
        overrides: values that take the place of the file's: `KEY=VALUE` texts whose values are YAML, as
            `grid.seeds=[0, 1]`, or a mapping of dotted keys to values.

    Raises:
        SpecError: the file is missing, is not YAML, or is not a valid spec; the message names each fault.
    """
    if is_data(Path(path)) and Path(path).suffix.lower() != ".json":  # JSON is YAML too
        raise SpecError(
            f"{path} is a file of data by its ending, and a spec is YAML; `ntksweep init sweep.yaml --data {path}` "
            "writes a spec for data"
        )
    aim = f"sweep.yaml --data {path}" if is_data(Path(path)) else path
    document = _document(f"`ntksweep init {aim}` writes one to start from")
    return _recorded(*document.read(Path(path), overrides), overrides)


def parse_spec(text: str, *, name: str = "spec", overrides: Overrides = ()) -> Spec:
    """Check the YAML `text` of a spec; messages name its origin as `name`.

    Args:
        text: the YAML.
        name: what messages call it.
        overrides: as for `read_spec`.

    Raises:
        SpecError: as `read_spec`.
    """
    document = _document("`ntksweep init` writes a spec to start from")
    return _recorded(*document.parse(text, name=name, overrides=overrides), overrides)


def make_spec(tree: Mapping[str, Any], *, name: str = "spec", overrides: Overrides = ()) -> Spec:
    """Check a spec that is given as a dictionary; messages name the keys, for there are no lines.

    Paths may be `Path` objects, lists may be tuples, ranges or arrays, numbers those of numpy.

    Args:
        tree: the keys of a spec, as in its file.
        name: what messages call it.
        overrides: as for `read_spec`.

    Raises:
        SpecError: it is not a valid spec; the message names each fault.
    """
    document = _document("`ntksweep init` writes a spec to start from")
    return _recorded(*document.check(tree, name=name, overrides=overrides), overrides)


def change_spec(spec: Spec, overrides: Overrides) -> Spec:
    """Return a spec with other values for some keys, recorded beside those that it was given before.

    Raises:
        SpecError: as `read_spec`.
    """
    if not overrides:
        return spec
    changed = make_spec(spec.model_dump(mode="json"), name="the spec", overrides=overrides)
    return changed.with_overrides([*spec.overrides, *changed.overrides])


def _recorded(spec: Spec, lines: Lines, overrides: Overrides) -> Spec:
    return spec.with_overrides(each.text for each in overrides_of(overrides)).with_lines(lines)


def _document(beginning: str) -> Document[Spec]:
    return Document(Spec, "spec", beginning, SpecError, LIBRARY_NAMES)
