"""Products of stored kernel blocks with the basis of solutions, against dense ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ntk_dist.solvers.eigen import EigenDecomposition
from orchestrator.stages.solve.contributions import dual_contributions

GROUPS = ("0.query", "1.value", "2.query")


@dataclass(frozen=True)
class Tile:
    facts: dict[str, Any]
    blocks: dict[str, np.ndarray]

    def names(self) -> list[str]:
        return list(self.blocks)

    def array(self, name: str) -> np.ndarray:
        return self.blocks[name]


@pytest.mark.parametrize(("M", "targets"), [(30, 1), (23, 2), (9, 1)])
def test_forms_are_those_of_whole_blocks(M: int, targets: int):
    """Of 30 stored examples some may be left out, in the second of two shards or in the first."""
    draw = np.random.default_rng(0)
    rows = {group: draw.standard_normal((30, 40)) for group in GROUPS}
    shards = [(0, 14), (14, 30)]
    tiles = [
        Tile(
            {"rows": (a, b), "columns": (c, d)},
            {group: J[a:b] @ J[c:d].T for group, J in rows.items()},
        )
        for a, b in shards
        for c, d in shards
        if c <= a and max(a, c) < M
    ]
    kernels = {group: (J @ J.T)[:M, :M] for group, J in rows.items()}
    groups = GROUPS[:2]
    K = np.asfortranarray(kernels[groups[0]] + kernels[groups[1]])
    kept = EigenDecomposition(K).keep(draw.standard_normal((M, targets)), [np.ones((1, M))])
    forms = dual_contributions(groups, kept, tiles, rows_per_example=1).forms
    assert forms.shape[:2] == (2, 1)
    for form, group in zip(forms[:, 0], groups, strict=True):
        np.testing.assert_allclose(form, kept.train.T @ kernels[group] @ kept.train, rtol=0, atol=1e-10)
