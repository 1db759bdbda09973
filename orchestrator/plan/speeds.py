"""Speeds of the machine that a worker computes on: measured in a moment, published for a GPU, or probed."""

from dataclasses import dataclass

from ntk_dist.timing import fastest, processor_clock
from orchestrator.spec import Spec
from orchestrator.store.stage import StageCost
from orchestrator.sweep.double_precision import product_speed
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.gpu_kind import likely_gpu

STAGE_SECONDS = 0.01
"""Time that a stage takes beside its work: to be claimed, to open its inputs, and to be published."""

SIZE = 512
"""Rows of the matrices whose product is timed: enough to reach a processor's speed, and 0.01 s on one."""

MODEL_SHARE, PRODUCTS_SHARE, MEMORY_SHARE = 0.5, 0.6, 0.3
"""Shares of the speed of one large product that the work of stages reaches on processors."""

LAYER_PASS = 1e-3
"""Seconds of a pass through a layer of a batch so small that its operations take no time."""

GPU_SHARE = 0.35
"""Share of a GPU's published speed that passes through a model reach."""

DISK, TRANSFER = 1e9, 1e10
"""Bytes a second of a disk, checksums included, and between a host and its GPU."""


@dataclass(frozen=True)
class Speeds:
    """Speeds of one worker.

    Attributes:
        model: floating-point operations a second of passes through the model.
        layer_pass: seconds of a pass of the smallest batch through a layer.
        products: floating-point operations a second of products of large matrices.
        memory: floating-point operations a second of those that wait for memory.
        disk: bytes a second to the disk and from it.
        transfer: bytes a second to the GPU and from it.
        source: where the numbers come from, for people.
    """

    model: float
    layer_pass: float
    products: float
    memory: float
    disk: float
    transfer: float
    source: str

    def seconds(self, cost: StageCost) -> float:
        """Return the time that a stage of some cost takes a worker."""
        return (
            STAGE_SECONDS
            + cost.model_flops / self.model
            + cost.layer_passes * self.layer_pass
            + cost.product_flops / self.products
            + cost.memory_flops / self.memory
            + (cost.read_bytes + cost.written_bytes) / self.disk
            + cost.moved_bytes / self.transfer
        )


def speeds_of(spec: Spec, folder: ResultsFolder) -> Speeds | None:
    """Return the speeds of a worker; None where the GPU is neither here nor known.

    Args:
        spec: the spec, whose precisions and threads count.
        folder: its results folder, which may know the GPU.
    """
    here = processor_speeds(spec)
    if spec.compute.device == "cpu":
        return here
    gpu = likely_gpu(folder)
    found = None if gpu is None else product_speed(gpu)
    if found is None or gpu is None:
        return None
    of_model = {"float64": found.double, "float32": found.single}.get(spec.model.dtype, found.half)
    return Speeds(
        model=GPU_SHARE * of_model,
        layer_pass=LAYER_PASS,
        products=PRODUCTS_SHARE * (found.double if spec.compute.gram_dtype == "float64" else found.single),
        memory=here.memory,
        disk=DISK,
        transfer=TRANSFER,
        source=f"published speeds of {gpu.name}",
    )


def processor_speeds(spec: Spec) -> Speeds:
    """Return the speeds of a worker that computes on processors, by products of two precisions."""
    dtype = spec.model.dtype if spec.model.dtype == "float64" else "float32"
    threads = spec.compute.threads
    of = {each: matmul_speed(each, threads) for each in {dtype, spec.compute.gram_dtype, "float64"}}
    return Speeds(
        model=MODEL_SHARE * of[dtype],
        layer_pass=LAYER_PASS,
        products=PRODUCTS_SHARE * of[spec.compute.gram_dtype],
        memory=MEMORY_SHARE * of["float64"],
        disk=DISK,
        transfer=TRANSFER,
        source="the speed of this machine's matrix product",
    )


def matmul_speed(dtype: str, threads: int) -> float:
    """Return the floating-point operations a second of a matrix product on this machine, from the fastest of five."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    matrix = np.ones((SIZE, SIZE), dtype)
    with threadpool_limits(limits=threads):
        return 2.0 * SIZE**3 / fastest(lambda: matrix @ matrix, processor_clock(threads))
