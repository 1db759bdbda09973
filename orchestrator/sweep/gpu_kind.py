"""The kind of GPU that computed a results folder's numbers; another kind adds in another order."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from orchestrator.errors import OtherGpuError
from orchestrator.store import files
from orchestrator.store.sealed import sealed, unsealed
from orchestrator.sweep.folder import ResultsFolder

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Gpu:
    """A GPU, or the part of one that MIG makes of it.

    Attributes:
        name: as the driver calls it.
        capability: compute capability, such as 9.0.
        multiprocessors: how many it has; libraries divide sums among them.
        memory: bytes, by which `compute.batch_tokens: auto` chose batches. Drivers leave more or less of them, so that
            two of a kind may differ.
    """

    name: str
    capability: str
    multiprocessors: int
    memory: int

    @property
    def kind(self) -> str:
        """The properties on which its numbers depend, as text."""
        return f"{self.name} (compute capability {self.capability}, {self.multiprocessors} multiprocessors)"


def gpu_of(device: "torch.device") -> Gpu:
    """Return the GPU of torch's device."""
    import torch

    found = torch.cuda.get_device_properties(device)
    capability = f"{found.major}.{found.minor}"
    return Gpu(found.name, capability, found.multi_processor_count, found.total_memory)


def likely_gpu(folder: ResultsFolder) -> Gpu | None:
    """Return the GPU of this machine, or where it has none that of a results folder; None if neither is known."""
    import torch

    return gpu_of(torch.device("cuda")) if torch.cuda.is_available() else noted_gpu(folder)


def refuse_other_gpu(folder: ResultsFolder, gpu: Gpu) -> None:
    """Raise an error if the numbers of a results folder come from another kind of GPU; the folder records the first.

    Raises:
        OtherGpuError: names both.
        StorageError: the folder cannot be written.
    """
    files.make_folder(folder.root)
    before = gpu if files.publish_new(folder.gpu_path, sealed(asdict(gpu))) else noted_gpu(folder)
    if before is not None and before.kind != gpu.kind:
        raise OtherGpuError(
            f"the GPU of {files.host_name()} is {gpu.kind}, and the numbers in {folder.root} come from {before.kind}, "
            "which adds in another order: use GPUs of one kind (in a profile `gpu_type` or `constraint`), name another "
            "results.folder, or set compute.deterministic: false for numbers that agree to rounding"
        )


def noted_gpu(folder: ResultsFolder) -> Gpu | None:
    """Return the GPU from which the numbers of a results folder come; None if it has none, or none that can be read."""
    try:
        return Gpu(**unsealed(files.read_plain(folder.gpu_path)))
    except (OSError, ValueError, TypeError):
        return None
