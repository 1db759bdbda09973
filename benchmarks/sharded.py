"""Memory and speed of models that are sharded over a process group.

    python -m benchmarks.sharded [--parts memory throughput] [--group 4] [--layers 14] [--dtype float32] [--rounds 7]

memory: a Llama of random weights (1.07 GB with 14 layers in float32, saved in several files) is loaded by a group of
processes, and each takes the rows of a batch of its own. Of every process it prints what it has beyond its imports:

- own: anonymous and shared memory (RssAnon + RssShmem), looked at every 2 ms, which is all that is not a file's page.
- resident: the kernel's own peak (VmHWM), with the pages of checkpoint files that happen to be mapped, which it takes
  back when it needs them.

Both for loading and for capture. The limit is (weights / processes + largest module + activations) + 20 %, where
activations are what the capture of the same batch adds with the unsharded model in one process.

throughput: time of the rows of a batch by a group of one process over those of a scorer without a group, batch by
batch in turns: median and the span of the rounds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.capture import demo_model, seconds
from finetune.parallel.launching import run_group
from finetune.parallel.processes import joined_group
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelDType, ModelSettings, ShardingSettings
from ntk_dist.jacobian.batches import Batch, pad

TARGETS = ("q_proj", "v_proj")
OPTIONS = {"n_outputs": 2, "adapter_seed": 0, "head_seed": 0}
HEAD = HeadSettings("random", in_kernel=False)
MARGIN = 1.2


@dataclass(frozen=True)
class Peaks:
    """Most memory beyond the imports, in bytes, of loading a model and of capturing a batch, and what stayed between.

    Attributes:
        imports: own memory before loading, which the others do not count.
        loading: own memory while the model was loaded.
        loaded: own memory after that.
        capture: own memory while the rows were taken, twice.
        resident: all resident memory, over both.
        seconds: of loading, and of the second capture.
    """

    imports: int
    loading: int
    loaded: int
    capture: int
    resident: int
    seconds: tuple[float, float]


def status(*names: str) -> int:
    """Sum of lines of /proc/self/status, in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(lines[name].split()[0]) * 1024 for name in names)


@contextmanager
def watched() -> Iterator[list[int]]:
    """Keep the most own memory that this process had inside, in a list of one number."""
    most, done = [0], Event()

    def look() -> None:
        while not done.wait(0.002):
            most[0] = max(most[0], status("RssAnon", "RssShmem"))

    thread = Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()
        most[0] = max(most[0], status("RssAnon", "RssShmem"))


def peaks_of(load: Callable[[], Callable[[], Any]]) -> Peaks:
    """Measure in this process: `load` returns what captures a batch."""
    before = status("RssAnon", "RssShmem")
    resident = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    with watched() as loading:
        start = time.perf_counter()
        capture = load()
        seconds_loading = time.perf_counter() - start
    loaded = status("RssAnon", "RssShmem")
    with watched() as captured:
        capture()
        start = time.perf_counter()
        capture()
        seconds_capture = time.perf_counter() - start
    return Peaks(
        before, loading[0] - before, loaded - before, captured[0] - before, status("VmHWM") - resident,
        (seconds_loading, seconds_capture),
    )  # fmt: skip


def alone(model: ModelSettings, adapter: AdapterSettings, batch: Batch) -> Peaks:
    """Measure the unsharded model, in a process without a process group."""
    torch.set_num_threads(1)
    import_all()

    def load() -> Callable[[], Any]:
        scorer = build_scorer(model, adapter, HEAD, **OPTIONS)
        return lambda: scorer.rows(batch, lambda logits: logits)

    return peaks_of(load)


def in_group(model: ModelSettings, adapter: AdapterSettings, batch: Batch) -> Peaks:
    """Measure this process of a process group."""
    torch.set_num_threads(1)
    with joined_group() as group:
        import_all()

        def load() -> Callable[[], Any]:
            sharded = build_scorer(model, adapter, HEAD, **OPTIONS, sharding=ShardingSettings(group.size))
            return lambda: sharded.rows(batch, lambda logits: logits)

        return peaks_of(load)


def import_all() -> None:
    """Import what loading would import."""
    import peft  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401


def save_llama(folder: Path, layers: int, dtype: ModelDType) -> tuple[int, int]:
    """Save a Llama of random weights, tied, in files of 200 MB; return bytes of all weights, of the largest module."""
    config = LlamaConfig(
        vocab_size=32_000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=layers, num_attention_heads=16,
        max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size="200MB")
    sizes = [sum(p.nbytes for p in module.parameters(recurse=False)) for module in model.modules()]
    return sum(parameter.nbytes for parameter in model.parameters()), max(sizes)


def random_batch(examples: int, length: int, vocabulary: int = 30_000) -> Batch:
    rng = np.random.default_rng(0)
    return pad([rng.integers(10, vocabulary, size=length) for _ in range(examples)], pad_id=0)


def memory(group: int, layers: int, dtype: ModelDType, _rounds: int) -> None:
    mb = 1e6
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        whole, largest = save_llama(folder, layers, dtype)
        work = (ModelSettings(str(folder), dtype=dtype), AdapterSettings("lora", 8, 16.0, TARGETS), random_batch(4, 64))
        reference = run_group(1, alone, *work)[0]
        found = run_group(group, in_group, *work)
    activations = reference.capture - reference.loaded
    limit = MARGIN * (whole / group + largest + activations)
    print(
        f"{dtype}, weights {whole / mb:.0f} MB, largest module {largest / mb:.0f} MB, activations "
        f"{activations / mb:.0f} MB (unsharded model in one process: rows in {reference.seconds[1]:.2f} s)\n"
        f"limit of a process of {group}: {limit / mb:.0f} MB beyond its imports"
    )
    for rank, peaks in enumerate(found):
        own = max(peaks.loading, peaks.capture)
        print(
            f"process {rank}: own {own / mb:.0f} MB (loading {peaks.loading / mb:.0f}, loaded {peaks.loaded / mb:.0f}, "
            f"capture {peaks.capture / mb:.0f}), resident {peaks.resident / mb:.0f} MB; imports "
            f"{peaks.imports / mb:.0f} MB; loaded in {peaks.seconds[0]:.1f} s, rows in {peaks.seconds[1]:.2f} s: "
            f"{'within' if own <= limit else 'BEYOND'} the limit"
        )


def throughput(_group: int, _layers: int, dtype: ModelDType, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        llama, minilm = Path(temporary), demo_model()
        save_llama(llama, 8, dtype)
        for name, folder, targets, batch in (
            ("MiniLM", minilm, ("query", "value"), random_batch(32, 32)),
            ("Llama, hidden 1,024, 8 layers", llama, TARGETS, random_batch(2, 128)),
        ):
            work = (ModelSettings(str(folder), dtype=dtype), AdapterSettings("lora", 8, 16.0, targets), batch, rounds)
            ratios = sorted(run_group(1, in_turns, *work)[0])
            print(
                f"{name}, {len(batch)} examples of {batch.input_ids.shape[1]} tokens: group of one / no group "
                f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
            )


def in_turns(model: ModelSettings, adapter: AdapterSettings, batch: Batch, rounds: int) -> list[float]:
    """Take rows with and without a group in turns; return the ratios of their times."""
    torch.set_num_threads(1)
    with joined_group() as group:
        sharded, scorer = (
            build_scorer(model, adapter, HEAD, **OPTIONS, sharding=ShardingSettings(group.size)),
            build_scorer(model, adapter, HEAD, **OPTIONS),
        )
        passes = (lambda: sharded.rows(batch, lambda logits: logits), lambda: scorer.rows(batch, lambda logits: logits))
        ratios = []
        for number in range(rounds + 1):
            # which one comes first changes, so that what else the machine does falls on both
            order = (0, 1) if number % 2 else (1, 0)
            times = {which: seconds(passes[which]) for which in order}
            ratios.append(times[0] / times[1])
    return ratios[1:]


PARTS = {"memory": memory, "throughput": throughput}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--group", type=int, default=4, help="processes of the group whose memory is measured")
    parser.add_argument("--layers", type=int, default=14)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    for part in arguments.parts:
        PARTS[part](arguments.group, arguments.layers, arguments.dtype, arguments.rounds)


if __name__ == "__main__":
    main()
