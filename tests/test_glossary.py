"""The glossary: its links lead to pages and headings that exist, and the other pages use its terms."""

import re
from pathlib import Path

from tests.root import ROOT

DOCS = ROOT / "docs"
GLOSSARY = (DOCS / "glossary.md").read_text()
ENTRIES = re.findall(r"(?ms)^- (\*\*.*?)(?=^- |^## |\Z)", GLOSSARY)
TERMS = [term for entry in ENTRIES for term in re.findall(r"\*\*(.+?)\*\*", entry)]
BESIDE = (
    "\n".join(page.read_text() for page in sorted(DOCS.glob("*.md")) if page.name != "glossary.md")
    .lower()
    .replace("_", " ")
)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads_somewhere(link: str) -> bool:
    page, _, anchor = link.partition("#")
    return (DOCS / page).is_file() and (not anchor or anchor in anchors(DOCS / page))


def is_used(term: str) -> bool:
    """Tell whether the other pages have a term, in the singular, in the plural, or in the name of a column."""
    words = re.escape(term.lower()).replace(r"\ ", r"\s+")
    plural = words[:-1] + "(y|ies)" if words.endswith("y") else words + "(s|es)?"
    return re.search(rf"\b{plural}\b", BESIDE) is not None


def test_every_entry_has_a_link_to_a_heading():
    assert len(ENTRIES) > 50
    assert [entry for entry in ENTRIES if "](" not in entry] == []
    assert [link for link in re.findall(r"\]\(([^)]+)\)", GLOSSARY) if not leads_somewhere(link)] == []


def test_the_other_pages_use_every_term():
    assert [term for term in TERMS if not is_used(term)] == []
