"""Puts the examples into the package when it is built; pyproject.toml has everything else."""

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


setup(cmdclass={"build_py": BuildWithExamples})
