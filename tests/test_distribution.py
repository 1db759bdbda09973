"""What is built for users who have no checkout has the examples; what is installed for those who have one."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.root import ROOT


def test_the_package_that_is_built_has_the_examples(tmp_path: Path):
    build = ["setup.py", "-q", "build", "--build-base", str(tmp_path), "--build-lib", str(tmp_path / "lib")]
    egg_info = ["egg_info", "--egg-base", str(tmp_path)]
    subprocess.run([sys.executable, build[0], *egg_info, *build[1:]], cwd=ROOT, check=True, capture_output=True)
    built = tmp_path / "lib" / "orchestrator" / "examples"
    found = {path.relative_to(built).as_posix(): path.read_text() for path in built.rglob("*.*")}
    wanted = [*(ROOT / "examples").glob("*.yaml"), *(ROOT / "examples" / "profiles").glob("*.yaml")]
    assert found == {path.relative_to(ROOT / "examples").as_posix(): path.read_text() for path in wanted}
    script = "from orchestrator.spec.examples import example_text; print(example_text('paper'), end='')"
    written = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "lib", check=True, capture_output=True, text=True
    ).stdout
    assert written == (ROOT / "examples" / "paper.yaml").read_text()


@pytest.mark.parametrize(
    ("target", "extras"),
    [("demo", "demo"), *((target, "demo,docs,test,lint") for target in ("test", "test-fast", "lint", "site", "setup"))],
)
def test_make_installs_what_a_target_needs_and_says_so(tmp_path: Path, target: str, extras: str):
    command = ["make", "--dry-run", target, f"VENV={tmp_path}/environment"]
    told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert f"--editable '.[{extras}]'" in told
    assert f'echo "installing ntksweep[{extras}] with its libraries' in told
