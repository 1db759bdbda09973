"""Answers the three questions of the study from its committed tables, as README.md in this folder fixes them.

    python examples/study/answers.py

Reads the findings of each sweep below `results/reference/study`, and writes the page `README.md` there.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from orchestrator.results.findings.linearity import VARIANT
from orchestrator.results.findings.regimes import sign_test
from orchestrator.results.tables.correlations import LINEAR_UP_TO

FOLDER = Path(__file__).resolve().parents[2] / "results" / "reference" / "study"
FIXED_HEAD = ("minilm", "decoder")
SWEEPS = (*FIXED_HEAD, "trained-head")

NUMBERS = {
    "condition_number_fixed_sigma": "condition_fixed",
    "condition_number_relative_sigma": "condition_relative",
    "trace": None,
    "sigma_max": None,
    "effective_rank": "effective_rank",
    "label_alignment": "alignment",
    "log_evidence": "evidence",
    "leave_one_out_loss": "leave_one_out",
    "contribution_to_all": "contribution",
    "eval_loss": "eval_loss",
}
"""The ten numbers, and the name under which `choices.csv` has the choice by each."""

NOWHERE_LINEAR = "Linearization holds at no λ of the grid."

BASELINES = ("all", "last", "random")
PLACE = [*VARIANT, "lambda_given"]


@dataclass(frozen=True)
class Found:
    """The committed findings of one sweep.

    Attributes:
        name: of the sweep.
        cells: its trained cells that did not diverge.
        correlations: partial Spearman correlations with the evaluation loss in the linear regime.
        choices: what each way of choosing costs, at every lambda.
    """

    name: str
    cells: pd.DataFrame
    correlations: pd.DataFrame
    choices: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> "Found":
        """Return what stands in a folder that `ntksweep findings` wrote."""
        cells = pd.read_parquet(folder / "cells.parquet")
        correlations = pd.read_parquet(folder / "correlations.parquet")
        of_outcome = correlations["outcome"] == "finetune_eval_loss"
        return cls(
            folder.name,
            cells[cells["finetune_status"].notna() & (cells["finetune_status"] != "diverged")],
            correlations[of_outcome & (correlations["regime"] == "linear")],
            pd.read_csv(folder / "choices.csv"),
        )


def linear_lambdas(found: Found) -> pd.DataFrame:
    """Return a row for each task and lambda: how far f and f_lin are apart, and what fine-tuning gains.

    `difference` is the geometric mean of |f - f_lin| / |f| over layer sets, seeds and learning rates; the others are
    plain means. `gain` is the evaluation loss before training minus that after it, `share_of_gain` its share of the
    largest gain of the task.
    """
    groups = found.cells.groupby(["task", "lambda_given"], sort=False)
    table = groups[
        ["initial_eval_loss", "finetune_eval_loss", "initial_eval_accuracy", "finetune_eval_accuracy"]
    ].mean()
    table["difference"] = groups["difference_eval_relative"].agg(lambda values: np.exp(np.log(values).mean()))
    table["linear"] = table["difference"] < LINEAR_UP_TO
    table["gain"] = table["initial_eval_loss"] - table["finetune_eval_loss"]
    table["share_of_gain"] = table["gain"] / table.groupby("task")["gain"].transform("max")
    return table.reset_index()


def orders(sweeps: Sequence[Found]) -> pd.DataFrame:
    """Return a row for each number: its partial Spearman correlation with the loss, one a sweep and task, and p.

    A task's correlation is the mean over lambdas and learning rates at which it exists. `p` is the two-sided sign test
    over all pairs of sweep and task, `p_holm` the same after Holm's correction for `NUMBERS`.
    """
    rows = []
    for number in NUMBERS:
        of_pairs = {
            (found.name, str(task)): values["partial_spearman"].mean()
            for found in sweeps
            for task, values in found.correlations[found.correlations["quantity"] == number].groupby("task")
            if values["partial_spearman"].notna().any()
        }
        values = np.array(list(of_pairs.values()))
        above = {
            found.name: f"{sum(v > 0 for (name, _), v in of_pairs.items() if name == found.name)} of "
            f"{sum(name == found.name for name, _ in of_pairs)}"
            for found in sweeps
        }
        median = float(np.median(values)) if len(values) else np.nan
        rows.append({"number": number, "median": median, **above, "pairs": len(values), "p": sign_test(values)})
    table = pd.DataFrame(rows).set_index("number")
    table["p_holm"] = holm(table["p"])
    return table


def holm(p: "pd.Series[float]") -> "pd.Series[float]":
    """Return p-values after Holm's correction (Scandinavian Journal of Statistics 1979); nan counts as a test."""
    ordered = p.sort_values(na_position="last")
    corrected = (ordered * np.arange(len(p), 0, -1)).cummax().clip(upper=1.0)
    return corrected.reindex(p.index)


def costs(found: Found) -> pd.DataFrame:
    """Return what choosing costs at linear lambdas: a row for each way and task, means over lambdas and seeds."""
    linear = linear_lambdas(found).query("linear")[["task", "lambda_given"]]
    chosen = found.choices.merge(linear, on=["task", "lambda_given"])
    return chosen.groupby(["chosen_by", "task"])[["excess_loss", "lost_accuracy"]].mean()


def page(sweeps: Sequence[Found]) -> Iterator[str]:
    """Yield the lines of the page."""
    yield "# The study: three answers"
    yield ""
    yield (
        "Written by `python examples/study/answers.py` from the tables of the folders beside this page. What is asked, "
        "and how each answer is decided, was fixed before: `examples/study/README.md`."
    )
    for found in sweeps:
        yield from ("", f"## At which λ does linearization hold, and does fine-tuning gain there? {found.name}", "")
        yield from _linearity(found)
    fixed = [found for found in sweeps if found.name in FIXED_HEAD]
    trained = [found for found in sweeps if found.name not in FIXED_HEAD]
    for heading, group in (("fixed heads", fixed), ("trained heads", trained)):
        if group:
            yield from ("", f"## Which number orders layer sets where linearization holds? {heading}", "")
            yield from _orders(group)
    for found in sweeps:
        yield from ("", f"## What would choosing by it have cost? {found.name}", "")
        yield from _costs(found)


def _linearity(found: Found) -> Iterator[str]:
    table = linear_lambdas(found)
    yield (
        "| task | λ | \\|f − f_lin\\| / \\|f\\| | holds | loss before | loss after | of the largest gain | "
        "accuracy before | accuracy after |"
    )
    yield "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |"
    for _, row in table.iterrows():
        yield (
            f"| {row['task']} | {row['lambda_given']:g} | {row['difference']:.3g} | "
            f"{'yes' if row['linear'] else 'no'} | {row['initial_eval_loss']:.4f} | "
            f"{row['finetune_eval_loss']:.4f} | {row['share_of_gain']:.0%} | "
            f"{row['initial_eval_accuracy']:.3f} | {row['finetune_eval_accuracy']:.3f} |"
        )
    linear = table[table["linear"]]
    if linear.empty:
        yield from ("", NOWHERE_LINEAR)
        return
    of_tasks = linear.groupby("task")["gain"].max()
    yield ""
    yield (
        f"Linearization holds at some λ for {len(of_tasks)} of {table['task'].nunique()} tasks. There fine-tuning "
        f"gains in {int((of_tasks > 0).sum())} of {len(of_tasks)} (p = {sign_test(of_tasks.to_numpy()):.2g}), at best "
        f"{linear['share_of_gain'].max():.0%} of the largest gain of its task."
    )


def _orders(sweeps: Sequence[Found]) -> Iterator[str]:
    if all(found.correlations.empty for found in sweeps):
        yield NOWHERE_LINEAR
        return
    names = [found.name for found in sweeps]
    yield (
        "Partial Spearman correlation with the evaluation loss after fine-tuning, given the number of parameters: "
        "positive where layer sets with a larger number end worse."
    )
    yield ""
    heads = [f"above 0 in {name}" for name in names]
    yield f"| number | median over pairs | {' | '.join(heads)} | p | after Holm |"
    yield f"| --- | ---: |{' ---: |' * len(names)} ---: | ---: |"
    for number, row in orders(sweeps).iterrows():
        counts = " | ".join(str(row[name]) for name in names)
        numbers = (
            "- | {} | - | -"
            if not row["pairs"]
            else f"{row['median']:.2f} | {{}} | {row['p']:.2g} | {row['p_holm']:.2g}"
        )
        yield f"| `{number}` | {numbers.format(counts)} |"


def _costs(found: Found) -> Iterator[str]:
    table = costs(found)
    if table.empty:
        yield NOWHERE_LINEAR
        return
    loss = table["excess_loss"].unstack("task")
    accuracy = table["lost_accuracy"].unstack("task")
    yield "Means over the tasks, λ and seeds at which linearization holds; 0 is the best layer set."
    yield ""
    yield (
        "| chosen by | loss above the best | accuracy below the best | less loss than `all` | than `last` | "
        "than `random` |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    ways = [*(way for way in NUMBERS.values() if way in loss.index), *BASELINES]
    for way in ways:
        better = [f"{int((loss.loc[way] < loss.loc[other]).sum())} of {loss.shape[1]}" for other in BASELINES]
        yield f"| {way} | {loss.loc[way].mean():.5f} | {accuracy.loc[way].mean():.4f} | {' | '.join(better)} |"


def main() -> None:
    """Write the page."""
    there = [FOLDER / name for name in SWEEPS if (FOLDER / name).is_dir()]
    if not there:
        sys.exit(f"no findings in {FOLDER}; `ntksweep findings` writes them")
    lines = page([Found.read(folder) for folder in there])
    (FOLDER / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(FOLDER / "README.md")


if __name__ == "__main__":
    main()
