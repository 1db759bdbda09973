"""Files of a model's folder that are not what their names say, found when a library could not read one of them."""

import json
from pathlib import Path

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
    """Return what is wrong with a file and what to do, to follow its name; None where nothing is seen.

    Sees pointers of Git LFS that stand in for a file, and JSON that holds no object. Of other files the first bytes
    alone are read.
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
        return f"is not JSON (line {error.lineno}, column {error.colno}: {error.msg}); mend it, or get it again"
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
