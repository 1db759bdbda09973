"""Damaged files in a model's folder, looked for after a library could not read one of them."""

import json
from pathlib import Path

from finetune.libraries.json_faults import json_fault

_POINTER = b"version https://git-lfs"

_READ_BY_TRANSFORMERS = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)


def damage(file: Path) -> str | None:
    """Return the fault of a file and its fix, as text that follows the file's name; None if no fault is found.

    Finds pointers of Git LFS in the place of a file, and JSON that holds no object. Of other files only the first
    bytes are read.
    """
    try:
        with file.open("rb") as stream:
            if stream.read(len(_POINTER)) == _POINTER:
                return "is a pointer of Git LFS instead of the file itself; run `git lfs pull` where it was cloned"
        if file.suffix == ".json" and not isinstance(json.loads(file.read_text(encoding="utf-8")), dict):
            return "holds no JSON object; get it again"
    except UnicodeDecodeError:
        return "is not UTF-8, as JSON has to be; get it again"
    except json.JSONDecodeError as error:
        return (
            f"is not JSON (line {error.lineno}, column {error.colno}: {json_fault(error)}); correct it, or get it again"
        )
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def damaged_file(folder: str) -> str | None:
    """Return the first file of a model's folder that is damaged, and how; None where none is, or it is no folder."""
    files = [path for path in sorted(Path(folder).glob("*")) if path.is_file()]
    for file in files:
        # other JSON is not the model's
        found = damage(file) if file.suffix != ".json" or file.name in _READ_BY_TRANSFORMERS else None
        if found is not None:
            return f"{file} {found}"
    return None
