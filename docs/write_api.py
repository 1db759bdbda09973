"""Write docs/api.md: the names that programs may rely on, and an example of each package with what it printed."""

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "api.md"

EXAMPLES = {
    "ntksweep": "sweeps",
    "orchestrator": None,
    "ntk_dist": "mathematics",
    "finetune": "models",
    "slurm": "jobs",
}
"""The packages in the order of the page, each with its example in examples/library, if it has one of its own."""

_INTRODUCTION = """# From a program

What a program may rely on: the keys of the [spec](spec.md), the columns of the [tables](tables.md), the command with
its options, exit statuses and `--json`, and the names on this page, which `__all__` of each package declares.
Everything else is private, whatever its name begins with, and may change with any version.

`import ntksweep` is all that most programs need. It takes the names of a sweep's user from `orchestrator`; the
mathematics (`ntk_dist`), models (`finetune`) and jobs (`slurm`) can be used without a sweep. Importing a package
loads nothing else: each name loads its module when it is first used. All packages are typed.
[python.md](python.md) says how sweeps run in scripts and notebooks, [library.md](library.md) how to use the mathematics
with a model of your own.

The examples run in a checkout after `make data`; what is below each of them is what it printed.
"""


def page() -> str:
    """Return the page; the output of the examples is that of the page as it is, which `main` makes anew."""
    printed = dict(examples_of(PAGE.read_text(encoding="utf-8"))) if PAGE.is_file() else {}
    return _page(printed)


def examples_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield what each example on a page printed, by the name of its file."""
    for found in re.finditer(r"<!-- (\w+) -->\n```python\n.*?```\n\n```\n(.*?)```\n", text, re.DOTALL):
        yield found[1], found[2]


def printed_by(example: str) -> str:
    """Run an example, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    ran = subprocess.run(
        [sys.executable, f"examples/library/{example}.py"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return ran.stdout


def _page(printed: dict[str, str]) -> str:
    parts = [_INTRODUCTION]
    for package, example in EXAMPLES.items():
        parts.append(f"## {package}\n")
        if example is not None:
            code = (ROOT / "examples" / "library" / f"{example}.py").read_text(encoding="utf-8")
            parts.append(f"<!-- {example} -->\n```python\n{code}```\n\n```\n{printed.get(example, '')}```\n")
        parts.append("\n".join(["| name | |", "| --- | --- |", *_rows(package)]) + "\n")
    return "\n".join(parts)


def _rows(package: str) -> Iterator[str]:
    module = import_module(package)
    for name in module.__all__:
        found = getattr(module, name)
        said = "the version" if isinstance(found, str) else _first_paragraph(found)
        call = "()" if inspect.isfunction(found) else ""
        yield f"| `{name}{call}` | {said.replace('|', chr(92) + '|')} |"


def _first_paragraph(found: object) -> str:
    return " ".join((inspect.getdoc(found) or "").split("\n\n")[0].split())


def main() -> None:
    """Run the examples and write the page."""
    PAGE.write_text(_page({each: printed_by(each) for each in EXAMPLES.values() if each}), encoding="utf-8")


if __name__ == "__main__":
    main()
