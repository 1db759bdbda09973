"""The files that hold a checkpoint's weights: found, looked at before anything is loaded, and read range by range."""

import json
import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from finetune.errors import ModelLoadError
from finetune.libraries.damaged_files import damage
from finetune.libraries.faults import loading
from finetune.settings import ModelSettings


@dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    Attributes:
        rows: reads a range of its rows.
        shape: its shape.
        dtype: its precision, as safetensors calls it.
    """

    rows: Callable[[int, int], Tensor]
    shape: tuple[int, ...]
    dtype: str


Tensors = dict[str, Stored]
"""Tensors in files, by name."""

_PRECISIONS = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
"""Precisions of weights that can be used without conversion, with their names in safetensors."""

_WHOLE = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files that transformers looks for, in this order."""


class WeightFiles:
    """The tensors of a checkpoint, each read only when it is asked for.

    Args:
        tensors: the stored tensors by name.

    Attributes:
        shapes: shapes of the tensors by name.
    """

    def __init__(self, tensors: Tensors) -> None:
        self.shapes = {name: stored.shape for name, stored in tensors.items()}
        self._readers = {name: stored.rows for name, stored in tensors.items()}

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
            or lacks a tensor that the index promises, or holds quantized weights; names the file.
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
            _check_plain(file, tensors)
            found |= tensors
        yield WeightFiles(found)


def are_here(settings: ModelSettings) -> bool:
    """Return whether weights can be looked for: the model is a folder, or has some in the hub's cache here."""
    return Path(settings.path).is_dir() or any(_cached(settings, name, local_files_only=True) for name in _WHOLE)


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
    """Return the files, and for each tensor the name of its file according to the index."""
    for name in _WHOLE:
        found = _cached(settings, name)
        if found is None:
            continue
        if not name.endswith(".index.json"):
            return [Path(found)], {}
        promised = _index(Path(found))
        try:
            files: Sequence[str] = get_checkpoint_shard_files(settings.path, found, revision=settings.revision)[0]
        except (ValueError, OSError) as error:
            raise ModelLoadError(f"{found} names files that cannot be found ({error}); get them again") from error
        return [Path(file) for file in files], promised
    raise ModelLoadError(
        f"the model {settings.path} cannot be loaded: it has no weights, which would be in one of {', '.join(_WHOLE)}"
        f"{_other_formats(settings.path)}; get the whole checkpoint, or set model.weights: random to do without one"
    )


def _index(file: Path) -> dict[str, str]:
    """Return the name of the file of each tensor."""
    found = damage(file)
    if found is not None:
        raise ModelLoadError(f"the weights' index {file} {found}")
    index = json.loads(file.read_text(encoding="utf-8"))
    promised = index.get("weight_map")
    if not isinstance(promised, dict) or not all(isinstance(name, str) for name in promised.values()):
        raise ModelLoadError(f"{file} is no index of a checkpoint's files: it has no weight_map; get it again")
    # transformers asks for it
    if "metadata" not in index:
        raise ModelLoadError(f"{file} is no index of a checkpoint's files: it has no metadata; get it again")
    return promised


def _other_formats(folder: str) -> str:
    """Return the advice about weights of other formats; empty if there are none."""
    names = sorted(file.name for file in Path(folder).glob("*") if file.suffix in (".gguf", ".h5", ".msgpack", ".onnx"))
    return f"; {names[0]} is in a format that is not read here: get the checkpoint in safetensors" if names else ""


def _check_plain(file: Path, tensors: Tensors) -> None:
    """Refuse matrices in integers or 8 bits, which mean nothing without the scales of a quantization."""
    for name, stored in tensors.items():
        if name.endswith(".weight") and stored.dtype not in _PRECISIONS.values():
            raise ModelLoadError(
                f"{file} holds {name} in {stored.dtype}: the weights are quantized, which config.json does not say; "
                "use the checkpoint that they were made from"
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
        if not file.exists():
            raise ModelLoadError(f"the weights lack the file {file}; get it again") from error
        raise ModelLoadError(f"the weight file {file} {_unreadable(file, error)}") from error
    return {name: Stored(_rows(part), tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}


def _unreadable(file: Path, error: Exception) -> str:
    return damage(file) or f"cannot be read ({error}); get this file of the checkpoint again"


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
    except pickle.UnpicklingError as error:
        objects = re.search(r"GLOBAL ([\w.]+)", str(error))
        if objects is None:
            raise ModelLoadError(
                f"the weight file {file} {_unreadable(file, ValueError('no pickle of tensors'))}"
            ) from error
        raise ModelLoadError(
            f"the weight file {file} holds more than tensors ({objects[1]}), and Python objects of a file are never "
            "loaded, as they can run code; get the checkpoint in safetensors"
        ) from error
    except Exception as error:
        # damaged bytes may raise any error when they are unpickled
        raise ModelLoadError(f"the weight file {file} {_unreadable(file, error)}") from error
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ModelLoadError(
            f"{file} holds other things than tensors by name, as files of a training in progress do; save the model's "
            "own state_dict() alone, or save_pretrained()"
        )
    return {
        name: Stored(_rows_of(tensor), tuple(tensor.shape), _PRECISIONS.get(tensor.dtype, str(tensor.dtype)))
        for name, tensor in tensors.items()
    }


def _rows_of(tensor: Tensor) -> Callable[[int, int], Tensor]:
    return lambda first, last: tensor[first:last] if tensor.ndim else tensor


def _is_zip(file: Path) -> bool:
    import zipfile

    return zipfile.is_zipfile(file)
