"""Runs inside the checkout that is recorded: its commands, each in a process of its own, and its plans.

    python -P target.py CHECKOUT        reads jobs from standard input, one JSON a line, and answers each with a line
    python -P target.py CHECKOUT ARGUMENTS...   runs one command and says which libraries it has loaded

Nothing of the tests is imported, so that any checkout can be recorded by one recorder. `PLACES` is all that is known of
the inside of a checkout: where a change moves one of these, its new place is added in front.
"""

import atexit
import importlib
import json
import os
import sys
import tomllib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLACES = {
    "read_spec": ["orchestrator.spec:read_spec"],
    "ResultsFolder": ["orchestrator.sweep.folder:ResultsFolder", "orchestrator.folder:ResultsFolder"],
    "resolve": ["orchestrator.engine.run:resolve", "orchestrator.run:resolve"],
    "surveys": ["orchestrator.sweep.survey:surveys", "orchestrator.survey:surveys"],
    "make_plan": ["orchestrator.plan.plan:make_plan", "orchestrator.plan:make_plan"],
}
LIBRARIES = ("torch", "transformers", "ray", "pyarrow", "pandas", "numpy", "scipy", "sklearn", "peft", "datasets")
PRELOADED = ("torch", "transformers", "peft", "scipy.linalg", "pyarrow.parquet")


def found(name: str) -> Any:
    """Return one of `PLACES` from where this checkout has it."""
    for place in PLACES[name]:
        module, _, attribute = place.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError):
            continue
    raise SystemExit(f"{name} is at none of {PLACES[name]}: say in {__file__} where this checkout has it")


def command(checkout: Path) -> Callable[[], None]:
    """Return the function that the command `ntksweep` of a checkout is."""
    scripts = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, attribute = scripts["ntksweep"].partition(":")
    entry = importlib.import_module(module)
    if checkout not in Path(str(entry.__file__)).resolve().parents:
        raise SystemExit(f"{module} comes from {entry.__file__}, not from {checkout}")
    return getattr(entry, attribute)  # type: ignore[no-any-return]


def planned(path: str) -> None:
    """Print the plan of a spec as JSON: its cells, and its stages with what they depend on, under their identities."""
    folder = Path(path).parent
    spec = found("read_spec")(Path(path))
    results = found("ResultsFolder")(spec.folder)
    sweep = found("resolve")(spec, folder, results)
    plan = found("make_plan")(sweep, found("surveys")(sweep, results.artifacts()))
    # With those that leave no artifact, which older checkouts do not have.
    every = {each.stage_id: each for stage in plan.stages for each in (*getattr(stage, "within", ()), stage)}
    stages = [
        {
            "label": stage.stage_id,
            "kind": stage.kind,
            "parameters": stage.to_json()["parameters"],
            "inputs": {role: [label for _, label in inputs] for role, inputs in stage.inputs.items()},
        }
        for stage in every.values()
    ]
    print(json.dumps({"cells": plan.n_cells, "stages": stages}))


def in_a_child(job: dict[str, Any], run: Callable[[], None]) -> int:
    """Do a job in a child process, its output in the files that the job names; return its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        for stream, name in ((1, "output"), (2, "errors")):
            os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        os.chdir(job["folder"])
        if "plan" in job:
            planned(job["plan"])
        else:
            sys.argv = ["ntksweep", *job["arguments"]]
            run()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def serve(checkout: Path) -> None:
    """Answer jobs until there are no more; libraries are loaded once, for all children."""
    for name in PRELOADED:
        importlib.import_module(name)
    run = command(checkout)
    for line in sys.stdin:
        print(in_a_child(json.loads(line), run), flush=True)


def once(checkout: Path, arguments: list[str]) -> None:
    """Run one command; say on standard error which libraries it has loaded."""
    loaded = lambda: [name for name in LIBRARIES if name in sys.modules]  # noqa: E731
    atexit.register(lambda: print(f"loaded: {' '.join(loaded())}", file=sys.stderr))
    sys.argv = ["ntksweep", *arguments]
    command(checkout)()


if __name__ == "__main__":
    if sys.argv[2:]:
        once(Path(sys.argv[1]).resolve(), sys.argv[2:])
    else:
        serve(Path(sys.argv[1]).resolve())
