"""What decomposes the symmetric kernels of a solve stage."""

from typing import TYPE_CHECKING

from orchestrator.stages.context.work import Work
from orchestrator.stages.solve import SolveParameters
from orchestrator.store.stage import Stage

if TYPE_CHECKING:
    from ntk_dist.solvers.device_eigen import DeviceEigh
    from ntk_dist.solvers.symmetric import SymmetricDecomposer


def decomposers_of(stage: Stage[SolveParameters], work: Work) -> "tuple[SymmetricDecomposer, DeviceEigh | None]":
    """Return what decomposes the kernels of a stage, and the GPU that it does so on, if the stage asks for one."""
    from ntk_dist.solvers.symmetric import SymmetricDecomposer

    problem = stage.parameters.problem
    device, eigenvectors = problem.kernel_device, problem.kernel.eigenvectors
    if device.device_bytes is None:
        return SymmetricDecomposer(eigenvectors), None
    from ntk_dist.solvers.device_eigen import DeviceEigh
    from ntk_dist.solvers.faster_place import faster_place

    same_bits = work.sweep.spec.compute.deterministic
    eigh = DeviceEigh(work.use_device(device.device), same_bits=same_bits)
    place = None if same_bits else faster_place(work.device, eigenvectors)
    return SymmetricDecomposer(eigenvectors, eigh, place), eigh
