"""Puts the examples and a README whose links lead somewhere into what is built; pyproject.toml has everything else."""

import re
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithExamples(build_py):
    """Builds the packages, and copies specs and profiles from `examples/` into one of them."""

    def run(self) -> None:
        """Build as usual; an editable installation has the examples where they are."""
        super().run()
        if self.editable_mode:
            return
        for path in (*Path("examples").glob("*.yaml"), *Path("examples/profiles").glob("*.yaml")):
            target = Path(self.build_lib, "orchestrator", path)
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(path), str(target))


def packaged_readme(text: str, repository: str | None) -> str:
    """Return the README for a package index, where relative links lead nowhere.

    They become links into the `repository`, a URL as of a Git host. Without one a picture is left out, and of a link
    its words are kept.
    """

    def absolute(found: re.Match[str]) -> str:
        mark, words, target = found.groups()
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        if repository is None:
            return "" if mark else words
        place = "raw" if mark else "blob"
        return f"{mark}[{words}]({repository.rstrip('/')}/{place}/HEAD/{target})"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", absolute, text)


if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    setup(
        cmdclass={"build_py": BuildWithExamples},
        long_description=packaged_readme(
            Path("README.md").read_text(encoding="utf-8"), project.get("urls", {}).get("Repository")
        ),
        long_description_content_type="text/markdown",
    )
