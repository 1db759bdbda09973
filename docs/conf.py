"""Settings of the site that `docs/build_site.py` builds: pages are read by MyST, docstrings by autodoc."""

import re
import tomllib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from orchestrator.version import VERSION

_ROOT = Path(__file__).resolve().parent.parent
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = _PROJECT["name"]
version = release = VERSION
project_copyright = f"the authors of {project}"
root_doc = "docs/index"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# the anchors that Git hosts give to headings
myst_heading_anchors = 4

# Docstrings write code between single backticks, as Markdown does.
default_role = "code"
autodoc_member_order = "alphabetical"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
toc_object_entries_show_parents = "hide"
python_use_unqualified_type_names = True
# Types of other libraries have no pages here, and nothing is fetched for a build.
nitpick_ignore_regex = [(r"py:.*", r".*")]

html_theme = "furo"
html_title = f"{project} {VERSION}"
html_static_path = ["site"]
html_css_files = ["pages.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5f99", "color-brand-content": "#1f5f99"},
    "dark_css_variables": {"color-brand-primary": "#7db4e6", "color-brand-content": "#7db4e6"},
}
pygments_dark_style = "github-dark"


_FIELDS = re.compile(r"(?m)(?:^[a-z]\w*(?:, \w+)*: .*\n(?:    +\S.*\n?)*)+")
"""Paragraphs of lines that each describe one attribute, with their further lines set in."""


def _as_list(found: re.Match[str]) -> str:
    entries = re.split(r"(?m)^(?=[a-z]\w*(?:, \w+)*: )", found[0])
    return "\n".join("* " + " ".join(entry.split()) for entry in entries if entry) + "\n"


def _escape(app: Sphinx, what: str, name: str, found: object, options: Any, lines: list[str]) -> None:
    """Keep |d|, R * p and x_i as they are: outside of backticks docstrings mean no markup by these characters."""
    text = _FIELDS.sub(_as_list, "\n".join(lines))
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"(?m)(\||(?<!^)\*|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
    lines[:] = "".join(parts).split("\n")


def _without_types(
    app: Sphinx, what: str, name: str, found: object, options: Any, signature: str, returned: str
) -> Any:
    """Leave settings, which pydantic checks, without a signature that repeats all of their keys."""
    return ("", None) if what == "class" and hasattr(found, "model_fields") else None


def setup(app: Sphinx) -> None:
    """Have docstrings prepared before napoleon reads their sections."""
    app.connect("autodoc-process-docstring", _escape, priority=100)
    app.connect("autodoc-process-signature", _without_types)
