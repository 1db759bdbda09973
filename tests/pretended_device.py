"""A device that no machine has: tensors on it hold real values on the processor, and refuse what a GPU refuses.

It stands for a GPU where there is none. A tensor on `pretend` takes part in operations with its own kind alone, is no
numpy array, and is indexed by its own kind; its cosines and their like differ in the last bit, as those of any two
libraries. All that crosses to the host and back is counted, and every time that the host would wait. What it cannot
show: kernels that do not exist on a GPU, and memory.

torch lets a process have one such device for good, so that `install` belongs into a process of its own: see the
fixture `pretended`.
"""

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten

COUNTED: Counter[str] = Counter()
"""Waits of the host, copies and bytes to the device and to the host, since it was last cleared."""

WAITED_AT: list[str] = []
"""Places at which the host waited: the lines outside torch that led there."""

DEVICE = "pretend:0"
HOST = torch.device("cpu")
MEMORY = 2**33

_ROUNDED_ITS_OWN_WAY = {
    getattr(aten, name).default for name in ("cos", "sin", "exp", "exp2", "log", "log2", "tanh", "sigmoid")
} | {aten.pow.Tensor_Scalar, aten.pow.Scalar, aten.pow.Tensor_Tensor}
"""Functions of which a device may give the next number: no two libraries round them alike."""

_NEXT = (torch.float32, torch.float64)

_WAITING = {
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten._local_scalar_dense.default,
}
"""Operations whose result, or its shape, the host has to know."""


class Pretended(Tensor):
    """A tensor on the pretended device; `held` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Pretended":
        made: Pretended = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device(DEVICE),
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(func, *args, **(kwargs or {}))

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"Pretended({self.held!r})"

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: "Pretended") -> None:
        # torch swaps what it knows of a tensor, and knows nothing of what this one holds.
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.held = value.held

    def numpy(self, **_: object) -> Any:
        raise TypeError(f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, *_: object, **__: object) -> Any:
        raise TypeError(f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() first")

    def tolist(self) -> Any:
        return self.cpu().tolist()


class _Event:
    def record(self, stream: object = None) -> None:
        pass

    def synchronize(self) -> None:
        _wait()


class _Stream:
    def __init__(self, device: object = None) -> None:
        pass

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait_stream(self, other: object) -> None:
        pass

    def synchronize(self) -> None:
        _wait()


class _Module:
    """Stand-in for the result of `torch.get_device_module`: `torch.cuda` of an empty device with 8 GiB."""

    Event = _Event
    Stream = _Stream
    memory = MEMORY
    fraction = 1.0

    def stream(self, stream: _Stream) -> _Stream:
        return stream

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def get_device_name(self, device: object = None) -> str:
        return "a pretended device"

    def is_bf16_supported(self, including_emulation: bool = True) -> bool:
        return True

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_rng_state(self, device: object = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        torch.set_rng_state(state)

    def current_stream(self, device: object = None) -> _Stream:
        return _Stream()

    def synchronize(self, device: object = None) -> None:
        _wait()

    def empty_cache(self) -> None:
        pass

    def mem_get_info(self, device: object = None) -> tuple[int, int]:
        return self.memory, self.memory

    def get_per_process_memory_fraction(self, device: object = None) -> float:
        return self.fraction

    def set_per_process_memory_fraction(self, fraction: float, device: object = None) -> None:
        self.fraction = fraction

    def memory_reserved(self, device: object = None) -> int:
        return 0

    def memory_allocated(self, device: object = None) -> int:
        return 0

    def max_memory_allocated(self, device: object = None) -> int:
        return 2**20

    def reset_peak_memory_stats(self, device: object = None) -> None:
        pass


def install() -> None:
    """Give this process the device `pretend`, and have `compute.device: cuda` mean it."""
    import finetune.model.device
    import ntk_dist.device.transfers

    _setup_privateuseone_for_python_backend("pretend", backend_module=_Module())
    _LIBRARY.fallback(_run, "PrivateUse1")
    for module in (finetune.model.device, ntk_dist.device.transfers):
        module.present_device = _present_device


_LIBRARY = torch.library.Library("_", "IMPL")


def _present_device(name: str) -> torch.device:
    return torch.device(DEVICE) if name == "cuda" else torch.device(name)


def _run(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operation on the values that tensors hold, as one on the device."""
    tensors = list(_tensors((*args, *kwargs.values())))
    there = any(isinstance(value, Pretended) for value in tensors)
    if func is aten.copy_.default:
        return _copied_into(*args)
    if func is aten._to_copy.default:
        return _copied(func, args[0], kwargs)
    _refuse_two_devices(func, tensors)
    if func in _WAITING:
        _wait()
    if func is aten._local_scalar_dense.default:
        return func(args[0].held)
    if kwargs.get("device") is not None:
        kwargs |= {"device": HOST}
    if kwargs.get("pin_memory"):
        kwargs |= {"pin_memory": False}
    held = func(*_mapped(_values, args), **{name: _mapped(_values, value) for name, value in kwargs.items()})
    if func in _ROUNDED_ITS_OWN_WAY:
        held = torch.nextafter(held, torch.full_like(held, torch.inf)) if held.dtype in _NEXT else held
    made = _mapped(Pretended, held)
    return return_and_correct_aliasing(func, args, kwargs, made) if there else made


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors of an operation's arguments, also those in lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _mapped(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Return arguments or results of an operation with each tensor changed; torch's own trees take twice the time."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)([_mapped(change, each) for each in value])
    return value


def _copied_into(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    _count(source, to_device=isinstance(target, Pretended), waits=not non_blocking)
    _values(target).copy_(_values(source))
    return target


def _copied(func: Callable[..., Tensor], source: Tensor, kwargs: Mapping[str, Any]) -> Tensor:
    """Return a copy of a tensor in another precision, or on the other side."""
    device = kwargs.get("device")
    to_device = isinstance(source, Pretended) if device is None else torch.device(device).type != "cpu"
    _count(source, to_device=to_device, waits=not kwargs.get("non_blocking"))
    copy = func(_values(source), **{**kwargs, "device": HOST})
    return Pretended(copy) if to_device else copy


def _values(tensor: Tensor) -> Tensor:
    return tensor.held if isinstance(tensor, Pretended) else tensor


def _count(source: Tensor, *, to_device: bool, waits: bool) -> None:
    if isinstance(source, Pretended) == to_device:
        return
    way = "to the device" if to_device else "to the host"
    COUNTED[f"copies {way}"] += 1
    COUNTED[f"bytes {way}"] += source.numel() * source.element_size()
    if waits:
        _wait()


def _wait() -> None:
    COUNTED["waits"] += 1
    lines = [
        f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_stack() if "/torch/" not in frame.filename
    ]
    WAITED_AT.append(" > ".join([line for line in lines if "pretended" not in line][-3:]))


def _refuse_two_devices(func: object, tensors: list[Tensor]) -> None:
    on_host = [tensor for tensor in tensors if not isinstance(tensor, Pretended) and tensor.dim() > 0]
    if on_host and len(on_host) < len(tensors):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {DEVICE} and cpu ({func})"
        )
