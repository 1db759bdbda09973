"""Results as programs and notebooks have them: tables, pictures, a summary, and how a run ended."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.results.loading import Results as StoredTables
from orchestrator.results.loading import load as load_tables
from orchestrator.spec.places import given_path
from orchestrator.sweep.folder import ResultsFolder

if TYPE_CHECKING:
    from orchestrator.api.plots import Plots
    from orchestrator.engine.run import Ending
    from orchestrator.engine.schedule import Failure, Report
    from orchestrator.plan.plan import Plan


class Results(StoredTables):
    """The tables of a results folder, its pictures and its summary.

    Tables are attributes: `cells`, `spectra`, and further ones that the spec asked for. Notebooks show the summary.
    """

    @cached_property
    def plot(self) -> "Plots":
        """The pictures of `ntksweep plot`, each a method: `results.plot.lambda_path()`."""
        from orchestrator.api.plots import Plots

        return Plots(self)

    def save_adapter(self, cell: str, folder: str | Path, *, trust_remote_code: bool = False) -> Path:
        """Write the trained weights of a cell as a folder that peft loads, as `ntksweep export --adapter`; return it.

        Args:
            cell: identity of the cell, column `cell_id`; its beginning is enough.
            folder: folder to write, which must not exist or be empty.
            trust_remote_code: whether code that comes with the model may run.

        Raises:
            SweepError: there is no such cell, it was not trained, or no adapter of peft holds it; says why.
        """
        from orchestrator.results.adapter_folder import export_adapter

        output = given_path(folder)
        export_adapter(self.folder, cell, output, trusts_code=trust_remote_code)
        return output

    def _repr_html_(self) -> str:
        from orchestrator.api.page import summary_html

        return summary_html(self)


class Run(Results):
    """The results of a run, and how it ended.

    Attributes:
        plan: the plan of the sweep.
        report: stages computed, failed and blocked.
        n_cells: cells in the tables.
        was_finished: whether everything was finished before the run.
    """

    def __init__(self, ending: "Ending") -> None:
        super().__init__(ResultsFolder(ending.plan.sweep.spec.folder))
        self.plan: Plan = ending.plan
        self.report: Report = ending.report
        self.n_cells = ending.n_cells
        self.was_finished = ending.was_finished

    @property
    def failures(self) -> "list[Failure]":
        """The stages that were given up, and why."""
        return self.report.failures

    @property
    def said(self) -> str:
        """How it ended, in a few words."""
        cells = f"{self.n_cells} of {self.plan.n_cells} cells"
        if self.was_finished:
            return f"{cells}, finished before"
        failed = f", {len(self.failures)} failed" if self.failures else ""
        blocked = f" and {self.report.blocked} wait for them" if self.report.blocked else ""
        return f"{cells}, {self.report.computed} stages computed{failed}{blocked}"

    def __repr__(self) -> str:
        return f"<ntksweep run of {self.plan.sweep.spec.name}: {self.said}; results at {self.folder.root}>"

    def _repr_html_(self) -> str:
        from orchestrator.api.page import summary_html

        return summary_html(self, self.said, [(each.stage.label, each.message) for each in self.failures])


def load(path: str | Path) -> Results:
    """Return the tables, pictures and summary of the results folder at `path`, or of the sweep whose spec file it is.

    Raises:
        ResultsError: there are no results there.
        SpecError: the file is no valid spec.
    """
    place = given_path(path)
    if place.suffix in (".yaml", ".yml") and place.is_file():
        from orchestrator.cli.arguments import results_folder

        place = results_folder(place).root
    return Results(load_tables(place).folder)
