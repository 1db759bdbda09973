"""Write the pages that are made from the code: docs/spec.md, docs/profile.md, docs/tables.md and docs/commands.md."""

from pathlib import Path

from orchestrator.cli.describe import commands_page
from orchestrator.cluster.profiles import profile_page
from orchestrator.results.tables.describe import tables_page
from orchestrator.spec.describe import reference_page

DOCS = Path(__file__).resolve().parent

if __name__ == "__main__":
    (DOCS / "spec.md").write_text(reference_page(), encoding="utf-8")
    (DOCS / "profile.md").write_text(profile_page(), encoding="utf-8")
    (DOCS / "tables.md").write_text(tables_page(), encoding="utf-8")
    (DOCS / "commands.md").write_text(commands_page(), encoding="utf-8")
