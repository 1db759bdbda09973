"""Speeds that a probe of some seconds measures: passes through the model, products, decompositions, the disk."""

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from ntk_dist.timing import fastest, processor_clock
from orchestrator.errors import SourceError
from orchestrator.loading import load_model_libraries
from orchestrator.plan.plan import Plan
from orchestrator.plan.speeds import Speeds, processor_speeds
from orchestrator.store.checksums import checksum_of
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.resources import limited_threads
from orchestrator.sweep.settings import adapter_settings, model_settings

LARGEST = 1000
"""Rows of the largest matrix that a probe decomposes."""

FILE_BYTES = 64 << 20
"""Bytes that a probe writes."""


def probed_speeds(plan: Plan, folder: ResultsFolder) -> Speeds:
    """Return speeds of this machine as one worker measures them, in some seconds.

    Args:
        plan: the plan, whose first variant's model and sizes are tried.
        folder: its results folder, beside which a file is written for a moment.

    Raises:
        SourceError: the model cannot be run on this machine, or its GPU is not here.
    """
    load_model_libraries()
    spec = plan.sweep.spec
    with limited_threads(spec.compute.threads):
        known = replace(
            processor_speeds(spec), memory=_decomposition_speed(plan), disk=_disk_speed(folder.root), source="a probe"
        )
        known = _of_model(plan, known)
        return known if spec.compute.device == "cpu" else _of_gpu(plan, known)


def _of_model(plan: Plan, known: Speeds) -> Speeds:
    from finetune.errors import FinetuneError
    from finetune.model.pass_times import pass_times
    from ntk_dist.errors import NtkError

    variant = plan.variants[0]
    tokens, sizes = round(variant.survey.mean_tokens), variant.sizes
    at_once = variant.sweep.spec.compute.tokens_at_once
    examples = min(sizes.batch_size, sizes.batch_size if at_once == "auto" else int(at_once) // max(1, tokens))
    try:
        found = pass_times(
            model_settings(variant.sweep),
            adapter_settings(variant.sweep.spec.adapter),
            n_outputs=variant.survey.n_outputs,
            examples=examples,
            tokens=tokens,
            threads=variant.sweep.spec.compute.threads,
        )
    except (FinetuneError, NtkError) as error:
        raise SourceError(f"the probe could not run the model: {error}") from error
    return replace(known, model=found.flops, layer_pass=found.layer_seconds)


def _of_gpu(plan: Plan, known: Speeds) -> Speeds:
    """Return speeds whose products and copies are those of the GPU."""
    import torch

    size = 4096
    dtype = torch.float64 if plan.sweep.spec.compute.gram_dtype == "float64" else torch.float32
    on_host = torch.ones(size, size, dtype=dtype).pin_memory()
    on_gpu = on_host.to("cuda")
    product = fastest(lambda: float((on_gpu @ on_gpu)[0, 0]))
    copy = fastest(lambda: float(on_host.to("cuda")[0, 0]))
    return replace(known, products=2.0 * size**3 / product, transfer=on_host.nbytes / copy)


def _decomposition_speed(plan: Plan) -> float:
    """Return the operations a second of a tridiagonal decomposition, as costs count them: 4/3 M^3."""
    import numpy as np

    from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition

    spec = plan.sweep.spec
    M = min(LARGEST, plan.variants[0].sizes.kernel_rows(max(spec.grid.n_train)))
    matrix = np.random.default_rng(0).standard_normal((M, M))
    kernel = matrix @ matrix.T
    return (
        4 / 3 * M**3 / fastest(lambda: TridiagonalDecomposition(kernel.copy()), processor_clock(spec.compute.threads))
    )


def _disk_speed(folder: Path) -> float:
    """Return the bytes a second that the disk of a folder takes, with their checksum."""
    there = next(each for each in (folder, *folder.parents) if each.is_dir() and os.access(each, os.W_OK))
    content = os.urandom(FILE_BYTES)
    with tempfile.TemporaryFile(dir=there) as file:
        started = time.perf_counter()
        checksum_of([content])
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return FILE_BYTES / (time.perf_counter() - started)
