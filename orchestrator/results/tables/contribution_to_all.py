"""The share of the change of the outputs that a layer set carries where the largest one is adapted."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import pandas as pd

CONTRIBUTION = "contribution_to_all"
"""Quantity of a cell: `contribution`, summed over its blocks, in the largest layer set of its task, seed and lambda."""

_PLACE = ["task", "adapter_rank", "learning_rate", "n_train", "seed", "lambda_given"]
COLUMNS = ("cell_id", *_PLACE, "layer_set", "groups", "contribution")
"""Columns of the table `contributions` that it is made of."""


def contribution_to_all(contributions: pa.Table) -> "pd.Series[float]":
    """Return `CONTRIBUTION` of every cell, by its `cell_id`.

    The largest layer set is the one with the most groups, the first of several. The number is nan for a layer set
    with a block that the largest one lacks, and where the largest one changes nothing.

    Args:
        contributions: the columns `COLUMNS` of the table `contributions`.
    """
    frame = contributions.drop_columns(["groups"]).to_pandas()
    frame["block"] = pc.binary_join(contributions["groups"], "\n").to_pandas()
    frame["n_groups"] = pc.list_value_length(contributions["groups"]).to_pandas()
    sizes = frame.groupby([*_PLACE, "layer_set"], dropna=False, sort=False)["n_groups"].sum().reset_index()
    largest = sizes.loc[sizes.groupby(_PLACE, dropna=False, sort=False)["n_groups"].idxmax(), [*_PLACE, "layer_set"]]
    shares = frame.merge(largest, on=[*_PLACE, "layer_set"])[[*_PLACE, "block", "contribution"]]
    found = frame.drop(columns="contribution").merge(shares, how="left", on=[*_PLACE, "block"])
    of_cell = found.groupby("cell_id", sort=False)["contribution"]
    carried: pd.Series[float] = of_cell.sum().where(of_cell.count() == of_cell.size(), np.nan)
    return carried
