"""Reading a spec from YAML, with errors that name the line, the key and the nearest valid one."""

from pathlib import Path

from orchestrator.documents import Document
from orchestrator.errors import SpecError
from orchestrator.spec.library_names import LIBRARY_NAMES
from orchestrator.spec.model import Spec


def read_spec(path: str | Path) -> Spec:
    """Read and check the spec in the file `path`.

    Raises:
        SpecError: the file is missing, is not YAML, or is not a valid spec; the message names each fault.
    """
    return _document(f"`ntksweep init {path}` writes one to start from").read(Path(path))


def parse_spec(text: str, *, name: str = "spec") -> Spec:
    """Check the YAML `text` of a spec; messages name its origin as `name`.

    Raises:
        SpecError: as `read_spec`.
    """
    return _document("`ntksweep init` writes a spec to start from").parse(text, name=name)


def _document(beginning: str) -> Document[Spec]:
    return Document(Spec, "spec", beginning, SpecError, LIBRARY_NAMES)
