"""The files that hold a checkpoint's weights: found, looked at before anything is loaded, and read range by range."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from finetune.errors import ModelLoadError
from finetune.libraries import loading
from finetune.settings import ModelSettings

Tensors = dict[str, tuple[Callable[[int, int], Tensor], tuple[int, ...]]]
"""By name of a tensor what reads a range of its rows, and its shape."""

_WHOLE = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""What transformers looks for, in this order."""


class WeightFiles:
    """The tensors of a checkpoint, of which nothing is read before it is asked for.

    Args:
        tensors: by name what reads a range of rows, and the shape.

    Attributes:
        shapes: by name the shape of a tensor.
    """

    def __init__(self, tensors: Tensors) -> None:
        self.shapes = {name: shape for name, (_, shape) in tensors.items()}
        self._readers = {name: reader for name, (reader, _) in tensors.items()}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Return numbers `start` to `stop` (all by default) of a tensor, read in C order, in the checkpoint's dtype.

        Only the rows that hold them are read.
        """
        shape = self.shapes[name]
        stop = prod(shape) if stop is None else stop
        width = prod(shape[1:])
        if stop <= start:
            return self._readers[name](0, 0).reshape(-1)
        first, last = start // width, -(-stop // width)
        return self._readers[name](first, last).reshape(-1)[start - first * width : stop - first * width]


@contextmanager
def weight_files(settings: ModelSettings) -> Iterator[WeightFiles]:
    """Open the files of a checkpoint, which are closed at the end; those on the hub are fetched first.

    Raises:
        ModelLoadError: there are none, one that the index names is missing, one is cut short or has a damaged header,
            or lacks a tensor that the index promises; names the file.
    """
    files, promised = _find(settings)
    with ExitStack() as opened:
        found: Tensors = {}
        for file in files:
            read = _safetensors if file.suffix == ".safetensors" else _pickled
            tensors = read(file, opened)
            lacking = sorted(name for name, holder in promised.items() if holder == file.name and name not in tensors)
            if lacking:
                raise ModelLoadError(
                    f"{file} holds no {lacking[0]}, which the index of the checkpoint says is in it; the file is "
                    "damaged or belongs to another checkpoint: get it again"
                )
            found |= tensors
        yield WeightFiles(found)


def are_here(settings: ModelSettings) -> bool:
    """Return whether there are weights in the folder, or in the hub's cache on this machine."""
    return any(_cached(settings, name, local_files_only=True) for name in _WHOLE)


def are_pickled(settings: ModelSettings) -> bool:
    """Return whether the weights that would be loaded are in PyTorch's own format, which is a pickle.

    Raises:
        ModelLoadError: as `weight_files`.
    """
    return settings.weights == "pretrained" and any(file.suffix != ".safetensors" for file in _find(settings)[0])


def check_weight_files(settings: ModelSettings) -> None:
    """Look at the headers of all files of a checkpoint, without reading a weight.

    Raises:
        ModelLoadError: as `weight_files`.
    """
    with weight_files(settings):
        pass


def _find(settings: ModelSettings) -> tuple[list[Path], dict[str, str]]:
    """Return the files, and by tensor the name of the file that an index promises it in."""
    for name in _WHOLE:
        found = _cached(settings, name)
        if found is None:
            continue
        if not name.endswith(".index.json"):
            return [Path(found)], {}
        try:
            promised: dict[str, str] = json.loads(Path(found).read_text(encoding="utf-8"))["weight_map"]
            files: Sequence[str] = get_checkpoint_shard_files(settings.path, found, revision=settings.revision)[0]
        except (KeyError, ValueError, OSError) as error:
            raise ModelLoadError(f"{found} is no index of a checkpoint's files ({error}); get it again") from error
        return [Path(file) for file in files], promised
    raise ModelLoadError(
        f"the model {settings.path} cannot be loaded: it has no weights, which would be in one of {', '.join(_WHOLE)}"
    )


def _cached(settings: ModelSettings, name: str, *, local_files_only: bool = False) -> str | None:
    with loading(settings.path):
        found: str | None = cached_file(
            settings.path,
            name,
            revision=settings.revision,
            local_files_only=local_files_only,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=not local_files_only,
        )
    return found


def _safetensors(file: Path, opened: ExitStack) -> Tensors:
    from safetensors import SafetensorError, safe_open

    try:
        tensors = opened.enter_context(safe_open(file, framework="pt"))
        slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise ModelLoadError(f"the weights {file} {reason}; get this file of the checkpoint again") from error
    return {name: (_rows(part), tuple(part.get_shape())) for name, part in slices.items()}


def _rows(part: Any) -> Callable[[int, int], Tensor]:
    def read(first: int, last: int) -> Tensor:
        # a single number has no rows
        rows: Tensor = part[first:last] if part.get_shape() else part[...]
        return rows

    return read


def _pickled(file: Path, _opened: ExitStack) -> Tensors:
    """Open a file of PyTorch's own format, which is mapped where it is not older than 2020."""
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_zip(file))
    except Exception as error:
        # unpickling damaged bytes raises whatever they spell
        raise ModelLoadError(
            f"the weights {file} cannot be read ({error}); get this file of the checkpoint again"
        ) from error
    return {name: (_rows_of(tensor), tuple(tensor.shape)) for name, tensor in tensors.items()}


def _rows_of(tensor: Tensor) -> Callable[[int, int], Tensor]:
    return lambda first, last: tensor[first:last] if tensor.ndim else tensor


def _is_zip(file: Path) -> bool:
    import zipfile

    return zipfile.is_zipfile(file)
