"""Capture, Gram products and decompositions on one GPU, beside what the GPU can do at most.

    python -m benchmarks.gpu --output FOLDER [--parts capture gram eigh] [--models Llama-3.2-1B] [--small]

Writes gpu.md and gpu.json into the folder, after every part, so that a part that is cut off loses nothing before it.
Needs torch, transformers and peft, no network and no checkpoint; where DeepSpeed is installed, capture is measured also
with the weights on the host, from where it fetches them. `--small` runs tiny shapes, on a processor too, in seconds: it
shows that everything runs, and its numbers mean nothing.

Utilization counts 2 P T for the forward pass and 2 P T for each output's backward pass of activations, P the weights of
linear modules below the head, T the tokens of a batch, over the speed of a large bfloat16 product in the same run.
Attention scores, LoRA and the rows themselves are not counted.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_algebra, gpu_capture
from benchmarks.device_timing import described

PARTS = ("capture", "gram", "eigh")


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of gpu.md and gpu.json")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--models", nargs="+", help="names of the models of `capture`; all if left out")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--small", action="store_true", help="tiny shapes, on a GPU or without one")
    arguments = parser.parse_args(given)
    if not torch.cuda.is_available() and not arguments.small:
        raise SystemExit("torch finds no GPU; --small shows on a processor that everything runs")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    report = Report(arguments.output, device)
    if "capture" in arguments.parts:
        measure_capture(report, device, arguments.models, arguments.repeats, small=arguments.small)
    if "gram" in arguments.parts:
        rows, columns = (64, 256) if arguments.small else (8192, 65_536)
        found = list(gpu_algebra.products(device, rows=rows, columns=columns, repeats=arguments.repeats))
        report.add("gram", gpu_algebra.product_table(found), [asdict(each) for each in found])
    if "eigh" in arguments.parts:
        decompositions = []
        for size in (32, 64) if arguments.small else (10_000, 30_000):
            decompositions.append(gpu_algebra.decomposition(device, size=size, repeats=1 if size > 20_000 else 3))
            report.add("eigh", gpu_algebra.decomposition_table(decompositions), [asdict(d) for d in decompositions])


def measure_capture(
    report: "Report", device: torch.device, names: list[str] | None, repeats: int, *, small: bool
) -> None:
    peak_flops = gpu_algebra.matmul_flops(device, size=64 if small else 8192, repeats=repeats)
    report.add("peak", [f"A bfloat16 product: {peak_flops / 1e12:.4g} TFLOP/s."], {"bfloat16_flops": peak_flops})
    passes: list[gpu_capture.Pass] = []
    for model in gpu_capture.SMALL if small else gpu_capture.MODELS:
        if names is None or model.name in names:
            passes += gpu_capture.measured(model, device, repeats=repeats, peak_flops=peak_flops)
            report.add("capture", gpu_capture.table(passes), [asdict(each) for each in passes])
            if device.type == "cuda":
                torch.cuda.empty_cache()


class Report:
    """Results so far, printed and written after every part."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._folder = folder
        self._tables: dict[str, list[str]] = {"machine": [", ".join(f"{k}: {v}" for k, v in described(device).items())]}
        self._facts: dict[str, Any] = {"machine": described(device)}
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, part: str, table: list[str], facts: Any) -> None:
        self._tables[part], self._facts[part] = table, facts
        text = "\n\n".join(f"## {name}\n\n" + "\n".join(lines) for name, lines in self._tables.items())
        (self._folder / "gpu.md").write_text(text + "\n")
        (self._folder / "gpu.json").write_text(json.dumps(self._facts, indent=1) + "\n")
        print("\n".join(table), flush=True)


if __name__ == "__main__":
    main()
