"""Build the documentation as a site: `python docs/build_site.py FOLDER`; a broken link within it ends the build.

The pages lie in the folders that they have in the repository, so that their relative links hold on a Git host and on
the site alike. What only the site has is added to copies of them: its menu, made from the lists of docs/index.md, and
a page for each package with the docstrings of its `__all__`.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from sphinx.cmd.build import main as sphinx

ROOT = Path(__file__).resolve().parent.parent
INDEX = "docs/index.md"
PACKAGES = ("ntksweep", "ntk_dist", "finetune", "slurm")
"""Packages with a page each; `orchestrator` has the names of `ntksweep`."""

_COPIED = (
    "docs/*.md", "docs/pictures/*", "docs/site/*", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff",
    "LICENSE", "examples/**/*", "results/reference/**/*", "benchmarks/*.py",
)  # fmt: skip
_NOT_COPIED = re.compile(r"examples/data/|__pycache__|/\.ipynb_checkpoints")
_TO_THE_INDEX = (
    "<!doctype html><title>ntksweep</title>"
    '<meta http-equiv="refresh" content="0; url=docs/index.html"><a href="docs/index.html">ntksweep</a>\n'
)


def build(folder: Path) -> int:
    """Build the site in `folder`; return Sphinx's exit status, 1 if it had warnings."""
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "source"
        _copy(source)
        _add_menus(source)
        options = ["-W", "-n", "--keep-going", "-q", "-c", str(ROOT / "docs"), "-d", f"{temporary}/doctrees"]
        status = sphinx(["-b", "html", *options, str(source), str(folder)])
    (folder / "index.html").write_text(_TO_THE_INDEX, encoding="utf-8")
    return status


def menus(index: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the headings of the index, each with the pages that its list leads to, relative to the index, by words."""
    for part in re.split(r"(?m)^## ", index)[1:]:
        pages = dict(re.findall(r"(?m)^- \[([^\]]+)\]\(([^)#]+\.md)\)", part))
        if pages:
            yield part.split("\n", 1)[0], pages


def _copy(source: Path) -> None:
    for pattern in _COPIED:
        for path in ROOT.glob(pattern):
            relative = path.relative_to(ROOT)
            if path.is_file() and not _NOT_COPIED.search(relative.as_posix()):
                (source / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, source / relative)


def _add_menus(source: Path) -> None:
    index = source / INDEX
    text = index.read_text(encoding="utf-8")
    trees = [_tree(pages, heading) for heading, pages in menus(text)]
    index.write_text("\n".join([text, *trees]), encoding="utf-8")
    listed = {(index.parent / page).resolve() for _, pages in menus(text) for page in pages.values()}
    for package in PACKAGES:
        page = source / "docs" / "api" / f"{package}.md"
        page.parent.mkdir(exist_ok=True)
        page.write_text(_docstrings(package), encoding="utf-8")
        listed.add(page.resolve())
    with (source / "docs" / "api.md").open("a", encoding="utf-8") as api:
        api.write("\n" + _tree({package: f"api/{package}.md" for package in PACKAGES}, None))
    for page in source.rglob("*.md"):
        if page.resolve() not in listed and page != index:
            page.write_text("---\norphan: true\n---\n" + page.read_text(encoding="utf-8"), encoding="utf-8")


def _tree(pages: dict[str, str], caption: str | None) -> str:
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    entries = [f"{words} <{page}>" for words, page in pages.items()]
    return "\n".join(["```{toctree}", *options, "", *entries, "```", ""])


def _docstrings(package: str) -> str:
    module = import_module(package)
    parts = [f"# {package}", "", (module.__doc__ or "").strip().split("\n\n")[0], "", "```{eval-rst}"]
    parts += [f".. py:module:: {package}", ""]
    for name in module.__all__:
        found = getattr(module, name)
        if isinstance(found, type):
            parts += [f".. autoclass:: {package}.{name}", "   :members:", ""]
        elif not isinstance(found, str):
            parts += [f".. autofunction:: {package}.{name}", ""]
    return "\n".join([*parts, "```", ""])


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1])))
