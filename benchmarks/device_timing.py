"""Seconds and peak memory of work on a device: after a warm-up, with the device waited for, several times."""

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from platform import processor

import torch

GIGA = 1e9


@dataclass(frozen=True)
class Timing:
    """Seconds of each repetition, and the most bytes that the device held meanwhile; None on a processor."""

    seconds: tuple[float, ...]
    peak_bytes: int | None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def timed(run: Callable[[], object], device: torch.device, *, repeats: int) -> Timing:
    return together([run], device, repeats=repeats)[0]


def together(runs: Sequence[Callable[[], object]], device: torch.device, *, repeats: int) -> list[Timing]:
    """Take turns, so that clocks and whatever else the machine does fall on all of them."""
    seconds: list[list[float]] = [[] for _ in runs]
    peaks = [0] * len(runs)
    for number, run in enumerate(runs):
        forget_peak(device)
        run()
        peaks[number] = peak(device)
    for _ in range(repeats):
        for own, run in zip(seconds, runs, strict=True):
            own.append(once(run, device))
    return [
        Timing(tuple(own), most if device.type == "cuda" else None) for own, most in zip(seconds, peaks, strict=True)
    ]


def once(run: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    first.record()
    run()
    last.record()
    torch.cuda.synchronize(device)
    return first.elapsed_time(last) / 1e3


def forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def described(device: torch.device) -> dict[str, str]:
    """Facts about the machine that a reader needs."""
    found = {name: version(name) for name in ("torch", "transformers", "peft")}
    if device.type != "cuda":
        return {"device": f"{processor() or 'processor'}, {torch.get_num_threads()} threads"} | found
    card = torch.cuda.get_device_properties(device)
    return {
        "device": card.name,
        "memory": f"{card.total_memory / GIGA:.1f} GB",
        "compute capability": f"{card.major}.{card.minor}",
        "driver": driver(),
        "CUDA of torch": str(torch.version.cuda),
    } | found


def driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    return said.stdout.split("\n")[0].strip() or "unknown"
