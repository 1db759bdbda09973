"""Records what a checkout does: plans, numbers, schemas, messages, statuses, help pages."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.golden import numbers, plans
from tests.golden.inputs import HERE, Case, Inputs
from tests.golden.renames import Renames

COMMITTED = HERE / "committed"
QUIET = {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "DATASETS_VERBOSITY": "critical", "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false", "NTKSWEEP_CACHE": "", "COLUMNS": "100", "LINES": "40", "TERM": "dumb",
    "NO_COLOR": "1", "PYTHONHASHSEED": "0",
}  # fmt: skip
TIMES = re.compile(r"\b(seconds|seconds_left|worker_seconds|time|since|began|process|host|job|peak_bytes)\b")


def environment(checkout: Path) -> dict[str, str]:
    """Return the environment in which a checkout is recorded."""
    dropped = ("CI", "RAY_ADDRESS", "FORCE_COLOR", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if name not in dropped and "SLURM" not in name}
    return kept | QUIET | {"PYTHONPATH": str(checkout)}


@dataclass
class Answer:
    """Answer of a command, with paths and identities replaced, and its exit status."""

    status: int
    output: str
    errors: str


class Target:
    """A checkout that is recorded; its commands run in a process of its own each, which share loaded libraries."""

    def __init__(self, checkout: Path, python: str, work: Path) -> None:
        self.checkout = checkout
        self.work = work
        self.start = [python, "-P", str(HERE / "target.py"), str(checkout)]
        self._files = {name: work / f"{name}.txt" for name in ("output", "errors")}
        self._process = subprocess.Popen(
            self.start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(checkout)
        )

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _do(self, folder: Path, **job: Any) -> int:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        files = {name: str(path) for name, path in self._files.items()}
        stdin.write(json.dumps({"folder": str(folder), **files, **job}) + "\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise SystemExit(f"the process that runs {self.checkout} has ended; what it said stands above")
        return int(answer)

    def command(self, folder: Path, *arguments: str) -> Answer:
        """Run `ntksweep` with arguments in a folder."""
        status = self._do(folder, arguments=arguments)
        return Answer(status, *(self._plain(path.read_text()) for path in self._files.values()))

    def plan(self, spec: Path) -> dict[str, Any]:
        """Return the plan of a spec."""
        if self._do(spec.parent, plan=str(spec)):
            raise SystemExit(f"{spec} cannot be planned:\n{self._files['errors'].read_text()}")
        found: dict[str, Any] = json.loads(self._files["output"].read_text())
        return found

    def loaded(self, folder: Path, *arguments: str) -> str:
        """Return the libraries that a command loads."""
        said = subprocess.run(
            [*self.start, *arguments],
            cwd=folder,
            env=environment(self.checkout),
            capture_output=True,
            text=True,
            check=True,
        )
        return said.stderr.strip().splitlines()[-1]

    def _plain(self, text: str) -> str:
        for path, name in ((self.work, "<work>"), (self.checkout, "<checkout>")):
            text = text.replace(str(path), name)
        return plans.HASH.sub("<id>", "\n".join(line.rstrip() for line in text.splitlines()))


class Recorder:
    """Records a checkout: into `committed` what the repository keeps, into `here` what is for this machine alone."""

    def __init__(self, folder: Path, target: Target, renames: Renames, only: Sequence[str]) -> None:
        self.only = only
        self.committed, self.here = folder / "committed", folder / "here"
        self.target = target
        self.inputs = Inputs(target.work / "sweeps", renames)

    def record(self) -> None:
        """Record everything, or what was asked for."""
        cases = [*self.inputs.examples(), *self.inputs.sweeps()]
        for case in (case for case in cases if self._wants("plans", case.name)):
            self.plan(case)
        self.numbers(case for case in cases if case.runs and self._wants("numbers", case.name))
        for area, bad in yaml.safe_load((HERE / "bad_specs.yaml").read_text()).items():
            if self._wants("messages", area):
                self.messages(area, bad)
        if self._wants("help", ""):
            self._write("help.txt", "\n".join(self.help_pages()))
        if self._wants("status", ""):
            self.statuses()

    def _wants(self, area: str, name: str) -> bool:
        wanted = not self.only or area in self.only or f"{area}/{name}" in self.only
        if wanted:
            print("record", f"{area}/{name}".rstrip("/"), flush=True)
        return wanted

    def plan(self, case: Case) -> None:
        """Record a plan: whole where it is small."""
        answer = self.target.plan(case.spec)
        kinds = plans.canonical(plans.from_target(answer))
        whole = plans.written(answer["cells"], kinds, whole=True)
        if len(answer["stages"]) <= plans.WHOLE_UP_TO:
            self._write(f"plans/{case.name}.txt", whole)
            return
        self._write(f"plans/{case.name}.txt", plans.written(answer["cells"], kinds, whole=False))
        self._write(f"plans/{case.name}.txt", whole, where=self.here)

    def numbers(self, cases: Iterable[Case]) -> None:
        """Run sweeps; record their tables bit for bit, what columns there are, and some numbers for the digest."""
        schemas, digest = {}, []
        for case in cases:
            answer = self.target.command(case.spec.parent, "run", case.spec.name)
            if answer.status:
                raise SystemExit(f"{case.name} ended with {answer.status}:\n{answer.output}\n{answer.errors}")
            for name, table in numbers.tables(case.spec.parent / "results").items():
                numbers.keep(table, self.here / "numbers" / case.name / f"{name}.parquet")
                schemas[name] = numbers.schema_text(name, table.schema)
                if name == "cells" and case.float64:
                    digest.append(numbers.digest_text(case.name, table, self.inputs.content["digest"]))
        for name, text in schemas.items():
            self._write(f"tables/{name}.txt", text)
        self._write("digest.txt", "\n".join(digest))

    def messages(self, area: str, bad: dict[str, Any]) -> None:
        """Record what the command says of bad specs."""
        lines = []
        for name, about in bad.items():
            spec = self.inputs.write(re.sub(r"\W+", "-", f"bad {area} {name}"), about)
            runs = bool(about.get("run"))
            answer = self.target.command(spec.parent, "run" if runs else "plan", spec.name)
            # what a plan says before it is refused depends on the machine
            said = _indented(answer.output if runs else "", answer.errors)
            lines += [f"{name}: exit status {answer.status}", *(line for line in said if "━" not in line), ""]
        self._write(f"messages/{area}.txt", "\n".join(lines))

    def statuses(self) -> None:
        """Record how a finished, an unfinished and a failed sweep stand, and what looks at the first load.

        The unfinished one lacks the stages that fill its cells, and the tables.
        """
        finished, unfinished, failed = (
            self.inputs.folder / f"status-{n}" for n in ("finished", "unfinished", "failed")
        )
        self.inputs.write(finished.name, {})
        self.inputs.write(failed.name, {"spoilt": True})
        for folder in (finished, failed):
            self.target.command(folder, "run", "sweep.yaml")
        shutil.copytree(finished, unfinished)
        shutil.rmtree(unfinished / "results/artifacts" / self.inputs.renames.kind("solve"))
        shutil.rmtree(unfinished / "results/tables")
        for folder in (finished, unfinished, failed):
            answer = self.target.command(folder, "status", "results", "--json")
            tree = _without_times(json.loads(answer.output))
            self._write(
                f"{folder.name.replace('-', '/')}.json",
                json.dumps({"exit status": answer.status, **tree}, indent=1) + "\n",
            )
        commands = (["--help"], ["status", "results"], ["show", "results"], ["plan", "sweep.yaml"])
        lines = [f"ntksweep {' '.join(each)}: {self.target.loaded(finished, *each)}" for each in commands]
        self._write("loads.txt", "\n".join(lines) + "\n")

    def help_pages(self, *command: str) -> Iterator[str]:
        """Yield the help page of a command and those of its subcommands."""
        answer = self.target.command(self.inputs.folder, *command, "--help")
        yield "\n".join([f"ntksweep {' '.join(command)}".strip(), *_indented(answer.output, answer.errors), ""])
        for panel in re.findall(r"╭─ (?!Options|Arguments).*?╰", answer.output, flags=re.DOTALL):
            for name in re.findall(r"^│ ([a-z][\w-]*) ", panel, flags=re.MULTILINE):
                yield from self.help_pages(*command, name)

    def _write(self, name: str, text: str, *, where: Path | None = None) -> None:
        path = (where or self.committed) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _indented(*texts: str) -> list[str]:
    return [f"  {line}".rstrip() for text in texts for line in text.splitlines()]


def _without_times(value: Any, key: str = "") -> Any:
    """Return JSON with the values of what differs between two runs replaced by their type."""
    if isinstance(value, dict):
        return {name: _without_times(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_times(each, key) for each in value]
    return f"<{type(value).__name__}>" if TIMES.fullmatch(key) and value is not None else value


def record(folder: Path, checkout: Path, python: str | None, only: Sequence[str]) -> None:
    """Record a checkout into a folder, which is emptied before unless parts of it alone are recorded.

    Args:
        folder: where to.
        checkout: the checkout; its own renames.yaml says what it calls otherwise than specs.yaml does.
        python: the interpreter with its dependencies; None takes that of its `.venv`, else this one.
        only: areas, or files of them, that are recorded; all if there are none.
    """
    if not only:
        for part in ("committed", "here"):
            shutil.rmtree(folder / part, ignore_errors=True)
    own = checkout / ".venv/bin/python"
    with tempfile.TemporaryDirectory() as work:
        target = Target(checkout, python or (str(own) if own.exists() else sys.executable), Path(work).resolve())
        Recorder(folder, target, Renames.read(checkout / "tests/golden/renames.yaml"), only).record()
        target.close()
