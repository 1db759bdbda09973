"""Into which class a failure falls, by what libraries say of it: their own words, as people reported them."""

from pathlib import Path

import pytest
import torch

from ntk_dist.solvers.device_eigen import DeviceEigh
from ntk_dist.solvers.symmetric import SymmetricDecomposer
from orchestrator.cluster.unfit_nodes import unfit_nodes
from orchestrator.engine.executors.inline import InlineExecutor
from orchestrator.engine.executors.ray_actor import Worker
from orchestrator.errors import GpuFailedError, SpecError
from orchestrator.installation import installation
from orchestrator.stages.capture import CAPTURE
from orchestrator.stages.context.failures import FailureClass, failed
from orchestrator.stages.gram import GRAM
from orchestrator.store.files import host_name
from orchestrator.store.journal import read_journals
from orchestrator.store.stage import Stage, StageKind
from orchestrator.sweep.folder import ResultsFolder
from tests.ntk_dist.solvers.kernel_cases import Case
from tests.orchestrator.sweeps import plan_of, sweep_of

ASYNCHRONOUS = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to enable "
    "device-side assertions.\n"
)

OUT_OF_MEMORY = [
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.72 GiB of which 1.1 GiB is",
    "CUDA error: out of memory" + ASYNCHRONOUS,
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasSgemm( handle, opa, opb, m, n, k, &alpha, a, ...)`",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnXsyevd_bufferSize(handle, params, ...)`",
    "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnCreate(handle)`",
    "cusolver error: CUSOLVER_STATUS_NOT_INITIALIZED, when calling `cusolverDnCreate(handle)`",
    "cusolver error: 7, when calling `cusolverDnCreate(handle)`",
    "CUDA error: insufficient resources when calling `cusparseCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cuFFT error: CUFFT_ALLOC_FAILED",
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 "
    "bytes. Error code 12 (Cannot allocate memory)",
    "unable to mmap 4096 bytes from file </dev/shm/torch>: Cannot allocate memory (12)",
    "std::bad_alloc",
    "NCCL error in: ProcessGroupNCCL.cpp:3384, unhandled cuda error\nncclUnhandledCudaError: Call to CUDA function "
    "failed.\nLast error:\nFailed to CUDA calloc async 608 bytes: Cuda failure 2 'out of memory'",
]

BROKEN_GPU = [
    "CUDA error: uncorrectable ECC error encountered" + ASYNCHRONOUS,
    "CUDA error: unspecified launch failure" + ASYNCHRONOUS,
    "CUDA error: unknown error" + ASYNCHRONOUS,
    "CUDA error: hardware stack error" + ASYNCHRONOUS,
    "CUDA error: the launch timed out and was terminated" + ASYNCHRONOUS,
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable" + ASYNCHRONOUS,
    "CUDA error: no CUDA-capable device is detected" + ASYNCHRONOUS,
    "CUDA error: uncorrectable NVLink error detected during the execution" + ASYNCHRONOUS,
    "CUDA error: Invalid access of peer GPU memory over nvlink or a hardware error" + ASYNCHRONOUS,
    "CUDA error: initialization error" + ASYNCHRONOUS,
    "CUDA driver initialization failed, you might not have a CUDA gpu.",
    "Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized",
    "NVML: Unable to determine the device handle for GPU 0000:41:00.0: GPU is lost.  Reboot the system to recover it",
    "NCCL error in: ProcessGroupNCCL.cpp:1970, unhandled cuda error\nncclUnhandledCudaError: Call to CUDA function "
    "failed.\nLast error:\nCuda failure 214 'uncorrectable ECC error encountered'",
]

CODE = [
    "CUDA error: device-side assert triggered" + ASYNCHRONOUS,
    "CUDA error: an illegal memory access was encountered" + ASYNCHRONOUS,
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb, m, n, k, ...)`",
    "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnSsyevd(handle, jobz, uplo, n, A, lda, W)`",
    "an unknown error in the tokenizer",
    "expected 3 words",
]


@pytest.mark.parametrize(
    ("words", "failure"),
    [(words, FailureClass.MEMORY) for words in OUT_OF_MEMORY]
    + [(words, FailureClass.NODE) for words in BROKEN_GPU]
    + [(words, FailureClass.CODE) for words in CODE],
)
def test_the_class_of_a_failure_follows_from_what_cuda_and_its_libraries_say(words: str, failure: FailureClass) -> None:
    kind = torch.distributed.DistBackendError if words.startswith("NCCL") else RuntimeError
    outcome = failed(kind(words))
    assert outcome.failure is failure
    assert outcome.broken_gpu == outcome.spent == (failure is FailureClass.NODE)
    if failure is FailureClass.NODE:
        assert "\n" not in outcome.message


def test_what_a_user_wrote_is_no_word_of_cuda() -> None:
    assert failed(SpecError("task.text: no column `out of memory`")).failure is FailureClass.INPUT
    assert failed(ValueError("GPU is lost")).failure is FailureClass.CODE


class NoAnswer:
    """Stands for a CUDA that an illegal access has ended for this process, which no machine here has."""

    def is_initialized(self) -> bool:
        return True

    def synchronize(self) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def empty_cache(self) -> None:
        raise AssertionError("not asked of a GPU that does not answer")


def test_a_process_whose_gpu_takes_no_orders_computes_nothing_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def breaks(stage: Stage, work: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(StageKind, "compute", lambda kind, stage, work: breaks(stage, work))
    monkeypatch.setattr(torch, "cuda", NoAnswer())
    folder = ResultsFolder(tmp_path_factory.mktemp("sweep") / "results")
    stage = next(stage for stage in plan_of().stages if stage.of is CAPTURE)
    with InlineExecutor(sweep_of(), folder) as run:
        run.submit(stage, 1, 0)
        with pytest.raises(GpuFailedError, match=r"(?s)capture .* assert triggered.* can compute no more on its GPU"):
            run.next_outcome(None)
    assert [event["event"] for event in read_journals(folder.journals)] == ["started", "failed"]
    assert list(folder.claims().root.glob("[!.]*")) == []


def test_what_a_worker_was_given_beside_it_is_tried_by_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    begun = []

    def breaks(stage: Stage, work: object) -> None:
        begun.append(stage.parameters["number"])
        raise RuntimeError(BROKEN_GPU[0])

    monkeypatch.setattr(StageKind, "compute", lambda kind, stage, work: breaks(stage, work))
    monkeypatch.chdir(tmp_path_factory.mktemp("sweep"))
    folder, sweep = ResultsFolder(Path("results")), sweep_of()
    job = {
        "spec": sweep.spec.model_dump(mode="json"), "sources": sweep.sources.to_json(), "folder": str(folder.root)
    }  # fmt: skip
    worker = Worker(installation().to_json(), job)
    first, *others = worker.execute([(Stage(GRAM, {"number": number}), 1, 0) for number in range(3)])
    assert begun == [0]
    assert first.broken_gpu
    assert [(each.failure, each.spent) for each in others] == 2 * [(FailureClass.WORKER, False)]
    assert unfit_nodes(folder) == {host_name(): first.message}


@pytest.mark.parametrize("answers", [True, False])
def test_a_decomposition_is_not_taken_up_by_the_processor_where_the_gpu_is_broken(
    answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "CUDA error: " + ("uncorrectable ECC error encountered" if answers else "an illegal memory access")

    def breaks(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise RuntimeError(said)

    if not answers:
        monkeypatch.setattr(torch, "cuda", NoAnswer())
    decomposer = SymmetricDecomposer(True, DeviceEigh(torch.device("cpu"), breaks, lambda device: None))
    with pytest.raises(RuntimeError, match=said):
        decomposer(Case(seed=4, M=9, p=12, rank=9, k=2, decay=0.5).kernel)
    assert decomposer.fallbacks == []
