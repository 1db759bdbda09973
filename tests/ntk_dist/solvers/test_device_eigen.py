"""Eigenvectors by torch, on the device that every machine has, and the way back to LAPACK from one that fails.

There is no GPU here. What stands for one that raises, returns nan or is full, is a function in its place: these
failures cannot be had from a processor.
"""

import numpy as np
import pytest
import torch
from hypothesis import given

from ntk_dist.errors import NonFiniteError
from ntk_dist.solvers import device_eigen, eigen, symmetric
from ntk_dist.solvers.device_eigen import DeviceEigh
from ntk_dist.solvers.eigen import SYEVD_LIMIT, EigenDecomposition, driver_of
from ntk_dist.solvers.faster_place import FasterPlace, faster_place
from ntk_dist.solvers.primal import PrimalDecomposition
from ntk_dist.solvers.symmetric import DeviceFailure, SymmetricDecomposer
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition
from tests.ntk_dist.solvers.kernel_cases import LAMBDAS, Case, cases, check_path_is_dense, refitted_leave_one_out

CPU = torch.device("cpu")
CASE = Case(seed=4, M=9, p=12, rank=9, k=2, decay=0.5)


def fails(error):
    """Stand for a GPU's eigh that raises."""

    def eigh(matrix):
        raise error

    return eigh


def returns(value):
    """Stand for a GPU's eigh that returns `value` in one place of eigenvalues or eigenvectors."""

    def eigh(matrix):
        values, vectors = torch.linalg.eigh(matrix)
        vectors[-1, 0] = value
        return values, vectors

    return eigh


@given(cases)
def test_path_is_the_dense_solution(case):
    decomposition = EigenDecomposition(case.kernel, DeviceEigh(CPU))
    path = decomposition.ridge_path(case.r, LAMBDAS, leave_one_out=True)
    check_path_is_dense(path, case.kernel, case.r)
    expected = refitted_leave_one_out(case.kernel, case.r)
    np.testing.assert_allclose(path.leave_one_out, expected, atol=1e-6 * np.linalg.norm(case.r))
    np.testing.assert_allclose(decomposition.eigenvalues, EigenDecomposition(case.kernel).eigenvalues, atol=1e-13)
    U, s = decomposition.eigenvectors, decomposition.eigenvalues
    np.testing.assert_allclose((U * s) @ U.T, case.kernel, atol=1e-13)


def test_works_in_the_memory_of_the_kernel():
    K = CASE.kernel
    assert np.shares_memory(EigenDecomposition(K, DeviceEigh(CPU)).eigenvectors, K)


def test_only_the_lower_triangle_is_read():
    lower = np.asfortranarray(np.tril(CASE.kernel) + np.triu(np.full((9, 9), np.nan), 1))
    path = EigenDecomposition(lower, DeviceEigh(CPU)).ridge_path(CASE.r, LAMBDAS)
    check_path_is_dense(path, CASE.kernel, CASE.r)


def test_a_kernel_that_is_not_finite_is_an_error_and_no_reason_to_try_elsewhere():
    K = CASE.kernel
    K[4, 2] = np.nan
    decomposer = SymmetricDecomposer(False, DeviceEigh(CPU))
    with pytest.raises(NonFiniteError, match="rows 4 and 2"):
        decomposer(K)
    assert decomposer.fallbacks == []


# --- the way back

FAILURES = {
    "unconverged": (DeviceEigh(CPU, fails(torch.linalg.LinAlgError("failed to converge"))), "failed to converge"),
    "full": (DeviceEigh(CPU, fails(torch.OutOfMemoryError("CUDA out of memory.\nTried"))), "CUDA out of memory.$"),
    "refused": (DeviceEigh(CPU, fails(RuntimeError("cusolver error: 7"))), "cusolver error: 7"),
    "nan": (DeviceEigh(CPU, returns(torch.nan)), "returned nan or inf"),
    "inf": (DeviceEigh(CPU, returns(-torch.inf)), "returned nan or inf"),
    "no room": (DeviceEigh(CPU, free=lambda device: 4 * 8 * 9 * 9 - 1), "takes .* GB, and cpu has .* GB free"),
}


@pytest.mark.parametrize(("device_eigh", "why"), FAILURES.values(), ids=FAILURES)
def test_a_device_that_fails_leaves_the_kernel_and_says_why(device_eigh, why):
    K = CASE.kernel
    with pytest.raises(DeviceFailure, match=why):
        EigenDecomposition(K, device_eigh)
    np.testing.assert_array_equal(K, CASE.kernel)


@pytest.mark.parametrize(("device_eigh", "why"), FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("eigenvectors", [True, False])
def test_the_processor_decomposes_what_a_device_did_not(device_eigh, why, eigenvectors):
    decomposer = SymmetricDecomposer(eigenvectors, device_eigh)
    decomposition = decomposer(CASE.kernel)
    without = (EigenDecomposition if eigenvectors else TridiagonalDecomposition)(CASE.kernel)
    assert type(decomposition) is type(without)
    np.testing.assert_array_equal(decomposition.eigenvalues, without.eigenvalues)
    (reason,) = decomposer.fallbacks
    assert "\n" not in reason


def test_a_device_with_just_enough_room_is_used():
    decomposer = SymmetricDecomposer(False, DeviceEigh(CPU, free=lambda device: 4 * 8 * 9 * 9))
    assert isinstance(decomposer(CASE.kernel), EigenDecomposition)
    assert decomposer.fallbacks == []


def test_a_mistake_in_the_code_is_no_reason_to_try_elsewhere():
    with pytest.raises(TypeError):
        SymmetricDecomposer(False, DeviceEigh(CPU, fails(TypeError("wrong argument"))))(CASE.kernel)


def test_features_are_decomposed_on_the_device_too():
    few = Case(seed=5, M=9, p=4, rank=4, k=2, decay=0.5)
    decomposer = SymmetricDecomposer(True, DeviceEigh(CPU))
    primal = PrimalDecomposition(few.blocks(), few.M, few.p, decompose=decomposer)
    path = primal.ridge_path(few.r, LAMBDAS, leave_one_out=True)
    np.testing.assert_allclose(path.leave_one_out, refitted_leave_one_out(few.kernel, few.r), atol=1e-7)


# --- LAPACK's 32-bit workspaces


def test_the_driver_is_one_whose_workspace_can_be_counted():
    def workspace(size):
        return 1 + 6 * size + 2 * size**2  # of syevd, in numbers

    assert workspace(SYEVD_LIMIT) < 2**31 <= workspace(SYEVD_LIMIT + 1)
    assert driver_of(SYEVD_LIMIT) == "evd"
    assert driver_of(SYEVD_LIMIT + 1) == "evr"


def test_both_drivers_of_lapack_give_the_same(monkeypatch):
    expected = EigenDecomposition(CASE.kernel).eigenvalues
    monkeypatch.setattr(eigen, "SYEVD_LIMIT", 8)
    assert driver_of(9) == "evr"
    np.testing.assert_allclose(EigenDecomposition(CASE.kernel).eigenvalues, expected, atol=1e-14)


def test_torch_is_not_asked_for_more_rows_on_a_processor(monkeypatch):
    monkeypatch.setattr(device_eigen, "SYEVD_LIMIT", 8)
    decomposer = SymmetricDecomposer(True, DeviceEigh(CPU, fails(AssertionError("it was asked"))))
    decomposer(CASE.kernel)
    assert decomposer.fallbacks == ["torch's eigh on a processor overflows above 8 rows, and there are 9"]


# --- several kernels together, and the choice between the device and the processor


KERNELS = [Case(seed=seed, M=9, p=12, rank=9, k=1, decay=0.5).kernel for seed in range(3)]


@pytest.mark.parametrize("same_bits", [True, False])
def test_kernels_that_are_decomposed_together_have_the_numbers_of_each_alone(same_bits):
    eigh = DeviceEigh(CPU, same_bits=same_bits)
    given = [np.asfortranarray(np.tril(K) + np.triu(np.full(K.shape, 1e3), 1)) for K in KERNELS]  # the lower triangle
    before = [K.copy() for K in given]
    for K, kept, found in zip(given, before, eigh.together(given), strict=True):
        np.testing.assert_array_equal(K, kept)
        assert found is not None
        values, vectors = found
        alone = eigh(K.copy(order="F"))
        if same_bits:
            np.testing.assert_array_equal(values, alone[0])
            np.testing.assert_array_equal(vectors, alone[1])
        np.testing.assert_allclose(values, alone[0], atol=1e-13)
        symmetric = np.tril(kept) + np.tril(kept, -1).T
        np.testing.assert_allclose((vectors * values) @ vectors.T, symmetric, atol=1e-13)
        assert vectors.flags.f_contiguous


def test_a_kernel_for_which_the_device_gives_nan_leaves_the_others_as_they_are():
    def eigh(matrix):
        values, vectors = torch.linalg.eigh(matrix)
        if torch.equal(matrix, torch.from_numpy(KERNELS[1].T).mT):
            vectors[0, 0] = np.nan
        return values, vectors

    found = DeviceEigh(CPU, eigh).together(KERNELS)
    assert [each is not None for each in found] == [True, False, True]


def test_kernels_that_a_device_refuses_or_has_no_room_for_are_not_decomposed_together():
    with pytest.raises(DeviceFailure, match="out of memory"):
        DeviceEigh(CPU, fails(torch.OutOfMemoryError("out of memory"))).together(KERNELS)
    matrix = 8 * 9 * 9
    small = DeviceEigh(CPU, free=lambda _: 14 * matrix)
    assert small.most_together(9) == 3
    assert len(small.together(KERNELS)) == 3
    with pytest.raises(DeviceFailure, match=r"cpu has 8\.42e-06 GB free"):
        DeviceEigh(CPU, free=lambda _: 13 * matrix).together(KERNELS)


def decomposed_by(place, seconds, monkeypatch, *, n_kernels):
    """Return what decomposes kernels one after the other where device and processor take so many seconds, and why."""
    clock = iter(np.cumsum([step for each in seconds for step in (0.0, each)]))
    monkeypatch.setattr(symmetric.time, "perf_counter", lambda: float(next(clock)))
    decomposer = SymmetricDecomposer(eigenvectors=False, device_eigh=DeviceEigh(CPU), place=place)
    found = [type(decomposer(KERNELS[0].copy(order="F"))) for _ in range(n_kernels)]
    return found, decomposer.fallbacks


DEVICE, HOST = EigenDecomposition, TridiagonalDecomposition


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([9.0, 0.2, 0.1, 0.1, 0.1], [DEVICE, DEVICE, HOST, HOST, HOST]),
        ([0.1, 0.2, 0.3, 0.2, 0.2], [DEVICE, DEVICE, HOST, DEVICE, DEVICE]),
    ],
)
def test_whoever_was_faster_decomposes_the_kernels_of_a_size(seconds, expected, monkeypatch):
    found, why = decomposed_by(FasterPlace(), seconds, monkeypatch, n_kernels=5)
    assert found == expected
    assert why[0] == "decomposed on the processor once, to learn which is faster"
    assert why[1:] == ["9 rows took 0.1 s on the processor and 0.2 s on the GPU"] * (expected.count(HOST) - 1)


def test_what_was_measured_of_one_size_says_nothing_of_another_and_a_process_measures_once():
    place = FasterPlace()
    for on_device, seconds in ((True, 1.0), (True, 1.0), (False, 0.5)):
        place.took(9, seconds, on_device=on_device)
    assert not place.on_device(9)
    assert place.on_device(500)
    assert faster_place("a card", False) is faster_place("a card", False)
    assert faster_place("a card", False) is not faster_place("a card", True)
