"""A kind of stage that the project does not have, added to a copy of the checkout as docs/architecture.md says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.orchestrator.sweeps import make_sweep
from tests.root import ROOT
from tests.seeded.copied import CopiedCheckout

KIND = '''
"""The kind `row_norms`: the length of each group's Jacobian rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.stages.base.cells import Filled
from orchestrator.stages.base.columns import SET_COLUMNS
from orchestrator.stages.base.constants import variant_constants
from orchestrator.stages.base.scope import SeedScope, refs
from orchestrator.stages.base.tables import NAME, REAL, Column, Rows, Table
from orchestrator.stages.capture import captures
from orchestrator.store.stage import Stage, StageCost, StageKind

if TYPE_CHECKING:
    from orchestrator.stages.context.finished import Finished
    from orchestrator.sweep.variant import Variant


@dataclass(frozen=True)
class RowNormsParameters:
    """Parameters of a stage `row_norms`: groups whose rows are measured."""

    groups: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RowNorms(Filled):
    """A stage `row_norms`, which fills a row for each group."""

    stage: Stage[RowNormsParameters]


def plan(scope: SeedScope) -> None:
    """Add the stage that measures the rows of all training examples, where the spec asks for it."""
    if not scope.variant.sweep.spec.kernel.row_norms:
        return
    parameters = RowNormsParameters(scope.variant.sizes.groups)
    shards = captures(scope, "train", scope.variant.rows_with(parameters.groups))
    stage = Stage(ROW_NORMS, parameters, {"train": refs(shards)})
    n_train = scope.variant.sizes.n_train
    scope.planning.fill(RowNorms(stage=stage, variant=scope.position, seed=scope.seed, n_train=n_train))


def cost(stage: Stage[RowNormsParameters], variant: "Variant") -> StageCost:
    """Return the bytes of one number a group."""
    return StageCost(written_bytes=8 * len(stage.parameters.groups))


def rows(finished: "Finished") -> Iterator[Rows]:
    """Yield the norm of each group."""
    for each in finished.filled(RowNorms):
        groups = each.stage.parameters.groups
        columns = variant_constants(finished.plan.variants[each.variant]) | {"seed": each.seed, "n_train": each.n_train}
        yield Rows(columns | {"group": groups, "norm": finished.artifact(each.stage).array("norms")}, len(groups))


TABLE = Table(
    name="row_norms",
    columns=(*SET_COLUMNS, Column("group", NAME, "group of parameters"), Column("norm", REAL, "|J_g|, Frobenius")),
    about="One row a group and seed.",
    rows_from="orchestrator.stages.row_norms:rows",
    wanted=lambda spec: spec.kernel.row_norms,
    hint="set kernel.row_norms: true and run",
)

ROW_NORMS = StageKind(
    name="row_norms",
    parameters=RowNormsParameters,
    version=1,
    meaning="measures the rows of each group",
    module="orchestrator.stages.row_norms.compute",
    plan=plan,
    cost=cost,
    reads_rows=lambda variant: "rows are measured" if variant.sweep.spec.kernel.row_norms else "",
    tables=(TABLE,),
)
'''

COMPUTE = '''
"""The stage `row_norms`."""

import numpy as np

from orchestrator.stages.context.work import Product, Work
from orchestrator.stages.row_norms import RowNormsParameters
from orchestrator.store.stage import Stage


def compute(stage: Stage[RowNormsParameters], work: Work) -> Product:
    """Return the artifact with `norms` (groups,)."""
    shards = work.inputs(stage, "train")
    norms = [np.sqrt(sum((shard.array(group) ** 2).sum() for shard in shards)) for group in stage.parameters.groups]
    return Product({}, work.write_arrays(stage, {"norms": np.array(norms)}))
'''


KEY = '    row_norms: Annotated[bool, Adds()] = Field(False, description="Length of rows.", examples=[True])'


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with the kind: a folder, its line in the registry, its key of the spec."""
    copy = CopiedCheckout(tmp_path_factory.mktemp("checkout")).folder
    folder = copy / "orchestrator/stages/row_norms"
    folder.mkdir()
    (folder / "__init__.py").write_text(KIND.lstrip())
    (folder / "compute.py").write_text(COMPUTE.lstrip())
    put_before(copy / "orchestrator/stages/registry.py", "from orchestrator.stages.solve import SOLVE",
               "from orchestrator.stages.row_norms import ROW_NORMS")  # fmt: skip
    put_before(copy / "orchestrator/stages/registry.py", "        ADDITIONS,", "        ROW_NORMS,")
    put_before(copy / "orchestrator/spec/sections.py", "    additions: Annotated[bool, Adds()] = Field(", KEY)
    return copy


def put_before(path: Path, line: str, new: str) -> None:
    text = path.read_text()
    assert text.count(line) == 1
    path.write_text(text.replace(line, f"{new}\n{line}"))


def python(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the packages of the copy."""
    known = {**os.environ, "PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, *arguments], check=False, cwd=checkout, env=known, capture_output=True, text=True
    )


def test_a_sweep_runs_with_a_kind_of_stage_that_was_added_as_the_docs_say(
    checkout: Path, tmp_path: Path, tiny_model: Path
):
    spec = make_sweep(tmp_path, {"grid.seeds": [0, 1]}, model=tiny_model)
    spec.write_text(spec.read_text().replace("kernel:", "kernel:\n  row_norms: true"))
    planned = python(checkout, "-m", "orchestrator", "plan", str(spec))
    assert planned.returncode == 0, planned.stderr
    assert "row_norms" in planned.stdout
    run = python(checkout, "-m", "orchestrator", "run", str(spec))
    assert run.returncode == 0, run.stderr
    read = (
        "import json, sys; from orchestrator import load; results = load(sys.argv[1]);"
        "print(json.dumps([results.row_norms.to_arrow(['seed', 'group', 'norm']).to_pylist(), results.names]))"
    )
    answer = python(checkout, "-c", read, str(tmp_path / "results"))
    assert answer.returncode == 0, answer.stderr
    rows, names = json.loads(answer.stdout)
    assert names == ["cells", "spectra", "row_norms"]
    assert {row["seed"] for row in rows} == {0, 1}
    assert all(np.isfinite(row["norm"]) and row["norm"] > 0 for row in rows)
    # the reference pages, the schema of the spec and the status know it from its folder as well
    assert "`row_norms`" in python(checkout, "-c", TABLES_PAGE).stdout
    status = json.loads(python(checkout, "-m", "orchestrator", "status", "--json", str(tmp_path / "results")).stdout)
    assert "row_norms" in json.dumps(status)


TABLES_PAGE = "from orchestrator.results.tables.describe import tables_page; print(tables_page())"


def test_the_docs_name_each_place_that_the_kind_touched():
    text = (ROOT / "docs/architecture.md").read_text()
    section = text.partition("## To add a kind of stage")[2].partition("\n## ")[0]
    for place in ("orchestrator/stages/<kind>/", "orchestrator/stages/registry.py", "orchestrator/spec/"):
        assert place in section
