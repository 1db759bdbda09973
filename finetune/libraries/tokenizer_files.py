"""Vocabularies that only a package which is not installed can read, looked for after a tokenizer could not be loaded.

What transformers says then is of what it tried last, which may be another package than the one that the file needs.
"""

from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from transformers.utils import cached_file

_SENTENCEPIECE = (
    "spiece.model", "sentencepiece.bpe.model", "spm.model", "tokenizer.model", "sentencepiece.model", "source.spm",
    "bpe.model", "vocab.spm",
)  # fmt: skip
_TIKTOKEN = ("tiktoken.model",)
_WITHOUT_PACKAGES = "tokenizer.json"

_PROTOBUF = b"\n"
"""First byte of a model of SentencePiece; `tokenizer.model` may also be lines of base64, for tiktoken."""


def unread_vocabulary(path: str, revision: str | None) -> str | None:
    """Return which file of a tokenizer needs a package that is missing, and what to do; None if there is none.

    Args:
        path: folder or id of the model.
        revision: of an id.
    """
    if any(_files(path, revision, (_WITHOUT_PACKAGES,))):
        return None
    for file in _files(path, revision, (*_SENTENCEPIECE, *_TIKTOKEN)):
        package = "sentencepiece" if file.name in _SENTENCEPIECE and _begins_with(file, _PROTOBUF) else "tiktoken"
        if find_spec(package) is None:
            return (
                f"its vocabulary {file.name} is read by {package}, which is not installed: pip install {package}, also "
                "where workers run, or load the tokenizer once where it is and save it, which writes tokenizer.json"
            )
    return None


def _files(path: str, revision: str | None, names: tuple[str, ...]) -> Iterator[Path]:
    """Yield those files that are there, of a folder or in the cache of the hub."""
    for name in names:
        # neither a folder nor an id, or nothing of it is in the cache
        with suppress(OSError):
            found = cached_file(
                path, name, revision=revision, local_files_only=True, _raise_exceptions_for_missing_entries=False
            )
            if found is not None:
                yield Path(found)


def _begins_with(file: Path, start: bytes) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(start)) == start
