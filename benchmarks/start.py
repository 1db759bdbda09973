"""Time before the first stage of a sweep: seconds and processor seconds of a command, by part.

    python benchmarks/start.py [--trees . ../before] [--repeats 3] [--commands help plan run]

Needs what `make demo` fetches. Each command runs in a process of its own, on the quickstart and on a model folder with
the shape of Llama 3.2 1B without weights. `run` ends where its first stage would begin, `ray` where a worker has begun
one; `again` stands for a second time, with what the first one left in the user's cache but no results folder,
`finished` for a sweep that is done. Where several trees are given their commands take turns, and the ratio of each to
the first one's is printed. Processor seconds are those of the process, of `ray` those of all processes of the run.
Libraries take as many threads as they do by themselves, unless OMP_NUM_THREADS says how many.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "examples" / "data"

Facts = dict[str, float]
"""Seconds by what they passed on; `wall` and `cpu` are those of the whole command."""

TIMED = r"""
import importlib._bootstrap as bootstrap, functools, importlib, json, os, sys, threading, time
tree, report, until, *arguments = sys.argv[1:]
sys.path.insert(0, tree)
spent, stack = {"interpreter": time.process_time()}, [["rest", time.process_time()]]

def charge():
    now = time.process_time()
    name, since = stack[-1]
    spent[name] = spent.get(name, 0.0) + now - since
    stack[-1][1] = now
    return now

def timed(name, function):
    @functools.wraps(function)
    def inner(*args, **named):
        if threading.current_thread() is not threading.main_thread():
            return function(*args, **named)
        stack.append([name, charge()])
        try:
            return function(*args, **named)
        finally:
            now = charge()
            stack.pop()
            stack[-1][1] = now
    return inner

def end(*_, **__):
    charge()
    with open(report, "w") as file:
        json.dump(spent, file)
    if until == "stage":
        sys.stdout.flush()
        os._exit(0)

bootstrap._find_and_load = timed("imports", bootstrap._find_and_load)
PARTS = [
    ("fingerprints", "orchestrator.sweep.sources", "find_sources"), ("survey", "orchestrator.sweep.survey", "_look"),
    ("plan", "orchestrator.plan.plan", "make_plan"), ("estimate", "orchestrator.plan.estimate", "costs"),
    ("dry run", "finetune.model.dry_run", "dry_run"), ("tables", "orchestrator.cli.summary", "summarize"),
]

def patched(module, function, wrap):
    spec = importlib.util.find_spec(module)
    def execute(target, before=spec.loader.exec_module):
        before(target)
        wrap(target, function)
    spec.loader.exec_module = execute
    return spec

class Patching:
    found = set()
    def find_spec(self, name, path=None, target=None):
        for part, module, function in PARTS:
            if name == module and name not in self.found:
                self.found.add(name)
                wrap = lambda made, f, part=part: setattr(made, f, timed(part, getattr(made, f)))
                return patched(module, function, wrap)
        if name == "orchestrator.engine.worker.execute" and until == "stage" and name not in self.found:
            self.found.add(name)
            return patched(name, "StageWorker", lambda made, f: setattr(getattr(made, f), "execute", end))

import importlib.util
sys.meta_path.insert(0, Patching())
from orchestrator.cli import main
sys.argv = ["ntksweep", *arguments]
try:
    main()
finally:
    end()
"""
"""Runs a command with its main thread's processor time divided among imports and functions."""


def write_specs(folder: Path) -> None:
    """Write the quickstart, and one of a large model without weights with the quickstart's tokenizer."""
    quickstart = yaml.safe_load((ROOT / "examples/quickstart.yaml").read_text())
    quickstart["model"]["path"], quickstart["task"]["data"] = str(DATA / "minilm"), str(DATA / "amazon.parquet")
    (folder / "quickstart.yaml").write_text(yaml.safe_dump(quickstart))
    model = folder / "large"
    model.mkdir()
    for path in (DATA / "minilm").iterdir():
        if path.name.startswith(("tokenizer", "special_tokens", "vocab")):
            shutil.copy(path, model)
    shape = {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8}
    (model / "config.json").write_text(
        json.dumps({
            **shape, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128256,
            "intermediate_size": 8192, "pad_token_id": 0, "torch_dtype": "bfloat16",
        })
    )  # fmt: skip
    large = quickstart | {"name": "large", "model": {"path": str(model), "weights": "random", "dtype": "bfloat16"}}
    large["adapter"] = quickstart["adapter"] | {"target_modules": ["q_proj", "v_proj"]}
    large["compute"] = {"memory_budget": "8GB"}
    (folder / "large.yaml").write_text(yaml.safe_dump(large))


class Place:
    """A folder in which the commands of one tree run."""

    def __init__(self, tree: Path, folder: Path) -> None:
        self._tree, self._folder = tree, folder
        folder.mkdir()
        write_specs(folder)
        self._environment = {
            **os.environ, "PYTHONPATH": str(tree), "NTKSWEEP_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1",
        }  # fmt: skip

    def fresh(self) -> None:
        """Forget what earlier commands left."""
        for name in ("cache", "results"):
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def without_results(self) -> None:
        """Forget results folders alone."""
        shutil.rmtree(self._folder / "results", ignore_errors=True)

    def timed(self, *arguments: str, until: str = "end") -> Facts:
        """Run a command to its end, or until its first stage; return its seconds by part."""
        report = self._folder / "report.json"
        command = [sys.executable, "-c", TIMED, str(self._tree), str(report), until, *arguments]
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=self._folder, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        message = process.communicate()[1]
        wall = time.perf_counter() - started
        if process.returncode:
            raise SystemExit(f"{' '.join(arguments)} failed: {message.decode()[-2000:]}")
        parts: Facts = json.loads(report.read_text())
        return {"wall": wall, "cpu": sum(parts.values())} | parts

    def until_a_worker_begins(self, spec: str) -> Facts:
        """Run a sweep on Ray until a worker has begun a stage, and stop it; return seconds, of all processes."""
        started = time.perf_counter()
        command = [sys.executable, "-m", "orchestrator", "run", spec, "--executor", "ray", "--workers", "2"]
        process = subprocess.Popen(
            command, cwd=self._folder, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not self._begun():
            time.sleep(0.02)
        wall = time.perf_counter() - started
        parts: Facts = defaultdict(float)
        this = psutil.Process(process.pid)
        for each in [this, *this.children(recursive=True)]:
            times, name = each.cpu_times(), each.name()
            kind = "command" if each == this else "workers" if name.startswith("ray::W") else "Ray's own"
            parts[kind] += times.user + times.system
        process.send_signal(signal.SIGINT)
        process.wait()
        return {"wall": wall, "cpu": sum(parts.values())} | parts

    def _begun(self) -> bool:
        journals = (self._folder / "results").glob("*/journal/*.jsonl")
        return any('"started"' in path.read_text() for path in journals)


def _plan(place: Place, spec: str) -> Facts:
    place.fresh()
    return place.timed("plan", spec)


def _plan_again(place: Place, spec: str) -> Facts:
    place.without_results()
    return place.timed("plan", spec)


def _run(place: Place, spec: str) -> Facts:
    place.fresh()
    return place.timed("run", spec, "--executor", "inline", until="stage")


def _run_again(place: Place, spec: str) -> Facts:
    place.without_results()
    return place.timed("run", spec, "--executor", "inline", until="stage")


def _ray(place: Place) -> Facts:
    place.fresh()
    return place.until_a_worker_begins("quickstart.yaml")


def _ray_again(place: Place) -> Facts:
    place.without_results()
    return place.until_a_worker_begins("quickstart.yaml")


def _finished(*arguments: str) -> Callable[[Place], Facts]:
    def timed(place: Place) -> Facts:
        place.timed("run", "quickstart.yaml", "--executor", "inline")
        return place.timed(*arguments)

    return timed


COMMANDS: dict[str, Callable[[Place], Facts]] = {
    "help": lambda place: place.timed("--help"),
    "plan": lambda place: _plan(place, "quickstart.yaml"),
    "plan again": lambda place: _plan_again(place, "quickstart.yaml"),
    "run": lambda place: _run(place, "quickstart.yaml"),
    "run again": lambda place: _run_again(place, "quickstart.yaml"),
    "plan large": lambda place: _plan(place, "large.yaml"),
    "run large": lambda place: _run(place, "large.yaml"),
    "ray": _ray,
    "ray again": _ray_again,
    "finished run": _finished("run", "quickstart.yaml", "--executor", "inline"),
    "status": _finished("status", "results/quickstart"),
    "show": _finished("show", "results/quickstart"),
}


def spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def show(name: str, trees: list[Path], found: list[list[Facts]]) -> None:
    """Print what a command took in each tree, and its ratio to the first one."""
    for tree, runs in zip(trees, found, strict=True):
        parts = dict.fromkeys(part for run in runs for part in run)
        named: dict[str, Any] = {part: [run.get(part, 0.0) for run in runs] for part in parts}
        whole = {part: named.pop(part) for part in ("wall", "cpu")}
        print(f"{name} [{tree.name}]: {spread(whole['wall'])} s, {spread(whole['cpu'])} processor s")
        print("   " + ", ".join(f"{part} {median(values):.2f}" for part, values in named.items()))
        if runs is not found[0]:
            for what in ("wall", "cpu"):
                ratios = [run[what] / first[what] for run, first in zip(runs, found[0], strict=True)]
                print(f"   {what} over [{trees[0].name}]'s: {spread(ratios)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trees", type=Path, nargs="+", default=[ROOT])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    options = parser.parse_args()
    trees = [tree.resolve() for tree in options.trees]
    with tempfile.TemporaryDirectory() as temporary:
        places = [Place(tree, Path(temporary) / str(number)) for number, tree in enumerate(trees)]
        for name in options.commands:
            found: list[list[Facts]] = [[] for _ in trees]
            for _ in range(options.repeats):
                for place, runs in zip(places, found, strict=True):
                    runs.append(COMMANDS[name](place))
            show(name, trees, found)


if __name__ == "__main__":
    main()
