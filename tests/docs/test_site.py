"""The site: it is built without a warning, every page is in its menu, and what pages lead to exists."""

import re
import runpy
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the extra `docs`, which `make test` installs")

from docs import build_site
from orchestrator.cli.describe import commands_page
from tests.root import ROOT

DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
packaged_readme = runpy.run_path(str(ROOT / "setup.py"))["packaged_readme"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    assert build_site.build(folder) == 0
    return folder


def test_it_describes_every_public_name(site: Path):
    for package in build_site.PACKAGES:
        page = (site / f"docs/api/{package}.html").read_text(encoding="utf-8")
        names = __import__(package).__all__
        assert [name for name in names if name != "__version__" and f'id="{package}.{name}"' not in page] == []


def test_its_links_lead_to_pages_and_places_that_are_there(site: Path):
    missing = []
    for page in site.rglob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"]+)"', page.read_text(encoding="utf-8")):
            target, _, anchor = link.split("?")[0].partition("#")
            if re.match(r"[a-z]+:", link) or "/_modules/" in link:
                continue
            path = (page.parent / target) if target else page
            if not path.exists() or (anchor and path.suffix == ".html" and f'id="{anchor}"' not in path.read_text()):
                missing.append(f"{page.relative_to(site)}: {link}")
    assert missing == []


def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build_site, "_COPIED", ("docs/index.md", "docs/report.md", "docs/pictures/*", "docs/site/*"))
    monkeypatch.setattr(build_site, "PACKAGES", ())
    assert build_site.build(tmp_path) == 1


def test_every_page_is_in_the_menu():
    listed = {page for _, pages in build_site.menus((DOCS / "index.md").read_text()) for page in pages.values()}
    assert {page.name for page in DOCS.glob("*.md")} - listed == {"index.md"}


def test_the_page_of_commands_is_the_current_one():
    assert (DOCS / "commands.md").read_text(encoding="utf-8") == commands_page(), "run `make docs`"


def test_the_tests_that_stand_beside_formulas_exist():
    named = re.findall(r"`([\w/]+/test_\w+\.py)`", (DOCS / "theory.md").read_text(encoding="utf-8"))
    assert len(named) > 30
    assert [name for name in named if not (ROOT / "tests" / name).is_file()] == []


def test_the_readme_takes_two_screens_at_most_and_its_links_lead_to_files():
    assert len(README.splitlines()) <= 80
    targets = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(targets) > 20
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "docs/install.md"])
def test_what_works_today_comes_first(page: str):
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks[0].startswith("git clone URL ntksweep\ncd ntksweep\n")
    installed = [line for block in blocks for line in block.splitlines() if line.startswith("pip install")]
    assert installed == ["pip install '.[report]'"]  # by its name on a package index, nothing can be installed yet


def test_a_packaged_readme_has_no_link_that_only_a_checkout_can_follow():
    with_address = packaged_readme(README, "https://example.org/ntksweep/")
    assert "](docs/" not in with_address
    assert "(https://example.org/ntksweep/blob/HEAD/docs/tutorial.md)" in with_address
    assert "(https://example.org/ntksweep/raw/HEAD/docs/pictures/quickstart-lambda-path.png)" in with_address
    without = packaged_readme(README, None)
    assert "](docs/" not in without
    assert "![" not in without
    assert "your own data in ten minutes" in without
    assert "(https://arxiv.org/abs/2602.08239)" in without
