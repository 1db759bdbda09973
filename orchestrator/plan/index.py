"""The index of a plan, kept in the results folder, so that commands can show a sweep without planning it again."""

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from orchestrator.identity import digest, identity, is_identity
from orchestrator.stages.base.cells import in_grid
from orchestrator.stages.registry import KINDS
from orchestrator.store import files
from orchestrator.store.sealed import sealed, unsealed
from orchestrator.store.survey_kind import SURVEY
from orchestrator.sweep.folder import ResultsFolder, stored_text
from orchestrator.version import VERSION

if TYPE_CHECKING:
    from orchestrator.plan.plan import Plan

FORMAT = 4
"""Version of the file; raised when its layout changes, so that files of other versions are not read."""


@dataclass(frozen=True)
class IndexedComparison:
    """A stage that fills the columns about training, of some lambdas of a layer set.

    Attributes:
        stage_id: identity of the stage.
        layer_set: position of the layer set among those of the grid.
        lambdas: position of each of its lambdas in the grid; None for one that the grid no longer has.
        trained: position among the stages `finetune` of the one that trains the model.
        run: number of the cells' run in that stage.
        linearized: position of the one that trains the linearization.
    """

    stage_id: str
    layer_set: int
    lambdas: tuple[int | None, ...]
    trained: int
    run: int
    linearized: int

    @property
    def in_grid(self) -> dict[int, int]:
        """Position in the grid of each lambda that the grid has, by its number among those of the stage."""
        return in_grid(self.lambdas)


@dataclass(frozen=True)
class IndexedSolve:
    """A solve stage and the cells that it fills: its layer sets times all lambdas.

    Attributes:
        stage_id: identity of the stage.
        seed: seed of the grid.
        n_train: training examples.
        layer_sets: positions of its layer sets among those of the grid.
        comparisons: the stages that fill the columns about training of the same cells.
        variant: position of the variant that the cells belong to.
    """

    stage_id: str
    seed: int
    n_train: int
    layer_sets: tuple[int, ...]
    comparisons: tuple[IndexedComparison, ...] = ()
    variant: int = 0


@dataclass(frozen=True)
class PlanIndex:
    """The stages and the cells of a plan, by name.

    Attributes:
        key: identity of the stored spec and the versions of all code that plans, which fix the plan.
        plan_id: identity of the plan.
        surveys: identities of the stages that keep the surveys.
        variants: name of each variant; empty for the only one.
        lambdas: regularization strengths of the grid, as the spec gives them.
        layer_sets: names of the layer sets of the grid.
        stages: identities of the stages of each kind that the plan has.
        solves: the stages that fill cells, in the order of the table.
    """

    key: str
    plan_id: str
    surveys: tuple[str, ...]
    variants: tuple[str, ...]
    lambdas: tuple[float, ...]
    layer_sets: tuple[str, ...]
    stages: Mapping[str, tuple[str, ...]]
    solves: tuple[IndexedSolve, ...]

    @property
    def n_cells(self) -> int:
        """Number of cells of the grid."""
        return sum(len(solve.layer_sets) for solve in self.solves) * len(self.lambdas)

    @cached_property
    def kinds(self) -> dict[str, str]:
        """The kind of every stage, by its identity."""
        return {stage_id: kind for kind, stages in self.stages.items() for stage_id in stages}

    def cells_of(self, stage_id: str) -> dict[str, Any]:
        """Return variant, layer sets, seed and training examples of the cells that a stage fills; empty for others."""
        if stage_id not in self._filled_by:
            return {}
        solve, layer_sets = self._filled_by[stage_id]
        names = [self.layer_sets[position] for position in layer_sets]
        facts = {"layer_sets": names, "seed": solve.seed, "n_train": solve.n_train}
        return facts | ({"variant": self.variants[solve.variant]} if self.variants[solve.variant] else {})

    @cached_property
    def _filled_by(self) -> dict[str, tuple[IndexedSolve, tuple[int, ...]]]:
        solves = {solve.stage_id: (solve, solve.layer_sets) for solve in self.solves}
        compared = {each.stage_id: (solve, (each.layer_set,)) for solve in self.solves for each in solve.comparisons}
        return solves | compared

    def to_json(self) -> dict[str, Any]:
        """Return the index as JSON; each division of the layer sets into stages is stored once, as seeds share it."""
        divisions: dict[tuple[tuple[int, ...], ...], int] = {}
        problems = []
        of_problem = groupby(self.solves, key=lambda solve: (solve.variant, solve.seed, solve.n_train))
        for (variant, seed, n_train), solves in of_problem:
            found = list(solves)
            division = divisions.setdefault(tuple(solve.layer_sets for solve in found), len(divisions))
            stages = [solve.stage_id for solve in found]
            compared = [[list(astuple(each)) for each in solve.comparisons] for solve in found]
            problem = {
                "variant": variant, "seed": seed, "n_train": n_train, "division": division, "stages": stages
            }  # fmt: skip
            problems.append(problem | ({"comparisons": compared} if any(compared) else {}))
        return {
            "key": self.key,
            "plan": self.plan_id,
            "surveys": self.surveys,
            "variants": self.variants,
            "lambdas": self.lambdas,
            "layer_sets": self.layer_sets,
            "stages": self.stages,
            "divisions": list(divisions),
            "problems": problems,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "PlanIndex":
        """Return the index that `to_json` wrote."""
        return cls(
            key=data["key"],
            plan_id=data["plan"],
            surveys=tuple(data["surveys"]),
            variants=tuple(data["variants"]),
            lambdas=tuple(data["lambdas"]),
            layer_sets=tuple(data["layer_sets"]),
            stages={kind: tuple(stages) for kind, stages in data["stages"].items()},
            solves=tuple(_solves(data)),
        )


def _solves(data: Mapping[str, Any]) -> Iterator[IndexedSolve]:
    divisions = [[tuple(part) for part in division] for division in data["divisions"]]
    for problem in data["problems"]:
        compared = problem.get("comparisons", [[]] * len(problem["stages"]))
        for stage_id, part, each in zip(problem["stages"], divisions[problem["division"]], compared, strict=True):
            comparisons = tuple(
                IndexedComparison(stage_id, layer_set, tuple(lambdas), *runs)
                for stage_id, layer_set, lambdas, *runs in each
            )
            yield IndexedSolve(stage_id, problem["seed"], problem["n_train"], part, comparisons, problem["variant"])


def index_of(plan: "Plan", key: str = "") -> PlanIndex:
    """Return the index of a plan."""
    from orchestrator.sweep.survey import survey_stage

    stages: dict[str, list[str]] = {}
    for stage in plan.stages:
        stages.setdefault(stage.kind, []).append(stage.stage_id)
    positions = {name: position for position, name in enumerate(plan.layer_set_names)}
    trainings = {stage_id: position for position, stage_id in enumerate(stages.get("finetune", ()))}
    return PlanIndex(
        key=key,
        plan_id=plan.plan_id,
        surveys=tuple(dict.fromkeys(survey_stage(variant.sweep).stage_id for variant in plan.variants)),
        variants=tuple(str(variant.choice) for variant in plan.variants),
        lambdas=plan.lambdas,
        layer_sets=plan.layer_set_names,
        stages={kind: tuple(listed) for kind, listed in stages.items()},
        solves=tuple(
            IndexedSolve(
                solve.stage.stage_id,
                solve.seed,
                solve.n_train,
                tuple(positions[each.name] for each in solve.layer_sets),
                tuple(
                    IndexedComparison(
                        each.stage.stage_id,
                        positions[solve.layer_sets[each.layer_set].name],
                        each.lambdas,
                        trained=trainings[each.stage.inputs["trained"][0][1]],
                        run=each.stage.parameters.run,
                        linearized=trainings[each.stage.inputs["linearized"][0][1]],
                    )
                    for each in solve.comparisons
                ),
                solve.variant,
            )
            for solve in plan.solves
        ),
    )


def keep_plan(plan: "Plan", folder: ResultsFolder) -> None:
    """Keep the index of a plan in the results folder, whose sweep was written before.

    Raises:
        StorageError: the folder cannot be written.
    """
    content = sealed(index_of(plan, _key(stored_text(plan.sweep))).to_json())
    try:
        if files.read_plain(folder.plan_path) == content:
            return
    except OSError:
        pass
    files.replace(folder.plan_path, content)


def plan_index(folder: ResultsFolder, known: PlanIndex | None = None) -> PlanIndex:
    """Return the index of the plan of a folder's sweep, planned anew if none is kept that is intact and up to date.

    Args:
        folder: the results folder; nothing is written to it.
        known: an index read earlier, returned if it still holds.

    Raises:
        SweepError: the folder holds no sweep, or keeps no survey to plan it by.
    """
    folder.check_folders()
    try:
        stored = files.read_plain(folder.spec_path)
    except OSError:
        folder.existing()  # raises an error that explains the fault
        raise
    key = _key(stored.decode("utf-8", errors="replace"))
    if known is not None and known.key == key:
        return known
    return _kept(folder, key) or _planned(folder, key)


def _key(spec_text: str) -> str:
    # A hash of the text, not of its content: parsing YAML takes longer than everything else here.
    versions = {kind.name: kind.version for kind in (SURVEY, *KINDS.values())}
    return identity([FORMAT, VERSION, versions, digest(spec_text)])


def _kept(folder: ResultsFolder, key: str) -> PlanIndex | None:
    try:
        data = unsealed(files.read_plain(folder.plan_path))
        index = PlanIndex.from_json(data) if data["key"] == key else None
        return index if index is None or (_names_stages(index) and _is_whole(index)) else None
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def _names_stages(index: PlanIndex) -> bool:
    """Tell whether an index holds only valid kinds and identities of stages, which are used as file names."""
    named = [*index.surveys, *(stage_id for stages in index.stages.values() for stage_id in stages)]
    return index.stages.keys() <= KINDS.keys() and all(map(is_identity, named))


def _is_whole(index: PlanIndex) -> bool:
    """Tell whether all positions in an index lead somewhere, and all values are of their types."""
    solves, comparisons = set(index.stages.get("solve", ())), set(index.stages.get("compare", ()))
    sets, variants = range(len(index.layer_sets)), range(len(index.variants))
    trainings, lambdas = range(len(index.stages.get("finetune", ()))), range(len(index.lambdas))
    return (
        all(isinstance(name, str) for name in (index.plan_id, *index.variants, *index.layer_sets))
        and all(isinstance(each, int | float) for each in index.lambdas)
        and all(
            solve.stage_id in solves
            and isinstance(solve.seed, int)
            and isinstance(solve.n_train, int)
            and solve.variant in variants
            and all(position in sets for position in solve.layer_sets)
            for solve in index.solves
        )
        and all(
            each.stage_id in comparisons
            and each.layer_set in sets
            and all(position is None or position in lambdas for position in each.lambdas)
            and each.trained in trainings
            and each.linearized in trainings
            and isinstance(each.run, int)
            for solve in index.solves
            for each in solve.comparisons
        )
    )


def _planned(folder: ResultsFolder, key: str) -> PlanIndex:
    from orchestrator.plan.plan import make_plan
    from orchestrator.sweep.survey import kept_surveys

    sweep, store = folder.existing(), folder.artifacts()
    return index_of(make_plan(sweep, kept_surveys(sweep, store), store), key)
