"""A results folder: the paths of its parts, the sweep that it holds, and its treatment of a changed spec."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.documents.composing import compose
from orchestrator.documents.files import UnreadableFileError, text_of
from orchestrator.documents.node import YamlFault
from orchestrator.documents.writing import to_yaml
from orchestrator.errors import ChangedError, ResultsError, SpecError
from orchestrator.identity import identity
from orchestrator.spec import Spec
from orchestrator.spec.places import NO_TEXT, is_text
from orchestrator.spec.section import adding_keys
from orchestrator.store import files
from orchestrator.store.artifacts import ArtifactStore
from orchestrator.store.claims import ClaimBook
from orchestrator.store.journal import Journal
from orchestrator.store.refusals import Refusals
from orchestrator.store.sealed import unsealed
from orchestrator.sweep.blocks_asked import BlocksAsked, with_asked
from orchestrator.sweep.comparing import comparable, same_but_for_written_labels
from orchestrator.sweep.differences import differences, overrides_apart
from orchestrator.sweep.missing_places import holds_spec, named_alike, sweeps_below
from orchestrator.sweep.on_change import OnChange
from orchestrator.sweep.sources import Source, Sources, find_again
from orchestrator.sweep.stacked_before import StackedBefore
from orchestrator.sweep.versions import versions

LARGEST_STORED = 256 * 2**20
"""Bytes of a stored spec, which names every file of the model and the data."""


FOLDERS = (
    "artifacts", "claims", "journal", "tables", "logs", "submissions", "refused", "checkpoints", "training",
)  # fmt: skip
"""Folders of a results folder."""

_LISTED = ("", "artifacts", "artifacts/damaged", "tables", "logs", "logs/slurm")
"""Folders of a results folder that may hold folders."""


@dataclass(frozen=True)
class Sweep:
    """A spec with the model and the data that it was resolved to.

    Attributes:
        spec: the spec.
        sources: where its model and its data were found.
        trusts_code: whether the user of this command allows code that comes with the model to run; never stored.
        drawn_before: training sets that its results folder was run with, ascending; what was made of them stays.
        blocks_asked: what its results folder was asked to store kernel blocks for, run by run; they stay.
        stacked_before: what its results folder was asked to train before; cells stay in stacks that were begun.
    """

    spec: Spec
    sources: Sources
    trusts_code: bool = False
    drawn_before: tuple[int, ...] = ()
    blocks_asked: tuple[BlocksAsked, ...] = ()
    stacked_before: StackedBefore = field(default_factory=StackedBefore)

    @property
    def drawn_sets(self) -> tuple[int, ...]:
        """Training sets that are drawn, ascending: the smaller ones of earlier runs, and the largest of the grid."""
        largest = max(self.spec.grid.n_train)
        return (*(size for size in self.drawn_before if size < largest), largest)

    @property
    def all_drawn(self) -> tuple[int, ...]:
        """Training sets that the results folder was run with, those of this sweep included."""
        return max(self.drawn_before, self.drawn_sets, key=lambda sets: sets[-1:])

    def numbers(self, *, training: bool = False) -> dict[str, Any]:
        """Return all values outside the grid that fix the numbers, by dotted name.

        Paths of the model and the data are left out, but their content is included: a moved file is the same sweep.

        Args:
            training: whether to include the values of the section `finetune`.
        """
        spec = self.spec.model_dump(mode="json")
        spec["model"] |= {"path": None, "content": self.sources.model.content_id}
        spec["task"] = self._task_numbers(spec)
        kept = ["threads", "gram_dtype", "batch_tokens", "batching", "shard_examples"]
        if spec["compute"]["shard_examples"] is None:
            kept.append("memory_budget")  # it determines the shards, and with them the order of sums
        spec["compute"] = {key: spec["compute"][key] for key in kept}
        parts = ["model", "task", "adapter", "head", "kernel", "compute"]
        if training and self.spec.finetune is not None:
            parts.append("finetune")
        for part in parts:
            for key in adding_keys(getattr(self.spec, part)):
                del spec[part][key]
        return dict(_flat({part: spec[part] for part in parts}))

    def _task_numbers(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that fix the examples: of the one task, or of each task of the grid under its name."""
        if not self.sources.tasks:
            return {**spec["task"], "data": None, "content": self.sources.data.content_id}
        return {
            name: {**task, "data": None, "content": self.sources.tasks[name].content_id}
            for name, task in spec["grid"]["tasks"].items()
        }


class ResultsFolder:
    """The parts of a results folder, and the sweep that it holds."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.spec_path = self.root / "spec.yaml"
        self.plan_path = self.root / "plan.json"
        self.gpu_path = self.root / "gpu.json"
        self.tables = self.root / "tables"
        self.journals = self.root / "journal"
        self.logs = self.root / "logs"
        self.submissions = self.root / "submissions"
        self.checkpoints = self.root / "checkpoints"
        self.training = self.root / "training"

    def check_folders(self) -> None:
        """Raise an error if it is not a folder, or one of its folders is a link: commands read nothing outside of it.

        Files that are links are refused where they are read.

        Raises:
            ResultsError: names the link, or the path that is not a folder.
            StorageError: a folder may not be read.
        """
        if not is_text(self.root):
            raise ResultsError(f"no results can be at {self.root}: {NO_TEXT}")
        if obstacle := files.obstacle(self.root):
            raise ResultsError(
                f"no results can be at {self.root}, for {obstacle} is not a folder; name another one, in a spec as "
                "results.folder"
            )
        for part in _LISTED:
            for entry in files.visible(self.root / part):
                if entry.is_symlink() and (part or entry.name in FOLDERS) and os.path.isdir(entry.path):  # noqa: PTH112
                    raise ResultsError(
                        f"{entry.path} is a link, and ntksweep follows none within a results folder, which may come "
                        "from somebody else: put what it leads to in its place"
                    )

    def artifacts(self) -> ArtifactStore:
        """Return the artifacts of the folder."""
        return ArtifactStore(self.root / "artifacts")

    def claims(self) -> ClaimBook:
        """Return the claims on stages of the folder, as this process sees them."""
        return ClaimBook(self.root / "claims")

    def refusals(self) -> Refusals:
        """Return the stages that failed permanently since the user last started the sweep."""
        return Refusals(self.root / "refused")

    def journal(self) -> Journal:
        """Return a new journal for this process."""
        return Journal(self.journals)

    def stored(self) -> Sweep | None:
        """Return the sweep that the folder holds; None if it is empty or does not exist.

        Raises:
            ResultsError: the folder holds something else, its spec.yaml cannot be read, or it has links within it.
        """
        self.check_folders()
        if self._holds_others:
            raise ResultsError(
                f"{self.root} is not empty and holds no sweep (no spec.yaml); name another results.folder"
            )
        if not os.path.lexists(self.spec_path):
            return None
        try:
            data = self._stored_content()
            drawn = tuple(int(size) for size in data["drawn_sets"])
            spec = Spec.model_validate(data["spec"]).with_overrides(map(str, data.get("overrides", ())))
            asked = tuple(BlocksAsked.model_validate(each) for each in data.get("blocks_asked", ()))
            stacked = StackedBefore.model_validate(data.get("stacked_before", {}))
            sources = Sources.from_json(data["sources"])
            sweep = Sweep(spec, sources, drawn_before=drawn, blocks_asked=asked, stacked_before=stacked)
            # Compare the text as it was written, not the parsed spec: later versions know more keys.
            intact = data["spec_hash"] == identity([data["spec"], data["sources"]])
        except (OSError, UnreadableFileError, YamlFault, ValueError, KeyError, TypeError, SpecError) as error:
            raise ResultsError(
                f"{self.spec_path} cannot be read ({_why(error)}); restore it, or remove it and run the spec "
                "again: finished artifacts are found by their content"
            ) from None
        if not intact:
            raise ResultsError(
                f"{self.spec_path} was edited (its hash does not match); edit your own spec and run that, or remove "
                "this file: finished artifacts are found by their content"
            )
        return sweep

    def _stored_content(self) -> Any:
        root = compose(text_of(self.spec_path, largest=LARGEST_STORED, links=False))
        return None if root is None else root.value

    @property
    def lost_spec(self) -> bool:
        """True if the folder holds parts of a sweep but no spec.yaml; running the spec again restores the file."""
        return not os.path.lexists(self.spec_path) and (self._anything_finished() or self._plan_is_kept())

    def _plan_is_kept(self) -> bool:
        try:
            return bool(unsealed(files.read_plain(self.plan_path)))
        except (OSError, ValueError):
            return False

    @property
    def _holds_others(self) -> bool:
        if os.path.lexists(self.spec_path) or not self.root.is_dir():
            return False
        return any(self._matters(path) for path in self.root.iterdir()) and not self.lost_spec

    def _matters(self, path: Path) -> bool:
        # A process that is about to submit the sweep takes a claim before it writes anything else.
        return not path.name.startswith(".") and path != self.root / "claims"

    def existing(self) -> Sweep:
        """Return the sweep that the folder holds.

        Raises:
            ResultsError: it holds none.
        """
        self.check_folders()
        if self._holds_others:
            raise ResultsError(f"{self.root} is not empty and holds no sweep (no spec.yaml); {sweeps_below(self.root)}")
        sweep = self.stored()
        if sweep is None and self.lost_spec:
            raise ResultsError(
                f"{self.spec_path} is gone; run the spec that the sweep was run with, which writes it again: what is "
                "finished is found by its content"
            )
        if sweep is None:
            near = named_alike(self.root, holds_spec)
            cure = f"did you mean {near}?" if near else "`ntksweep run SPEC` makes them"
            raise ResultsError(f"there are no results at {self.root}; {cure}")
        return sweep

    def settle(self, given: Sweep, on_change: OnChange, note: Callable[[str], None] = lambda _: None) -> Sweep:
        """Return the sweep to run: the given one, unless it differs and the stored one is to be kept.

        Args:
            given: the sweep that is asked for.
            on_change: what to do if it has other numbers.
            note: is told which of the folder's values are kept instead of the given ones.

        Raises:
            ChangedError: the two ask for different numbers, and the user did not choose which to keep.
            ResultsError: the folder holds another sweep.
        """
        stored = self.stored()
        name = self._sweep_in_tables() if stored is None else stored.spec.name
        if name not in (None, given.spec.name):
            raise ResultsError(
                f"{self.root} holds the sweep `{name}`, not `{given.spec.name}`; name another results.folder, or give "
                "the sweep its name"
            )
        if stored is None:
            return given
        # Training may be added to a sweep, or left out, without changing its other numbers.
        training = stored.spec.finetune is not None and given.spec.finetune is not None
        changes = differences(*comparable(stored, given, training=training))
        if not changes or not self._anything_finished():
            return given
        if same_but_for_written_labels(stored, given, self.artifacts(), training=training):
            return given
        if on_change is OnChange.GIVEN:
            # Nothing there has the new numbers.
            return replace(given, blocks_asked=(), stacked_before=StackedBefore())
        if on_change is OnChange.STORED:
            for change in changes:
                note(f"kept as it is in the folder (--on-change stored): {change}")
            sources, stacked = _unchanged_sources(stored, given), stored.stacked_before
            return replace(given, spec=stored.spec, sources=sources, stacked_before=stacked)
        raise ChangedError(
            f"the spec asks for other numbers than {self.root} holds:\n"
            + "\n".join(f"  {change}" for change in changes)
            + "".join(f"\n  {line}" for line in overrides_apart(stored.spec.overrides, given.spec.overrides))
            + "\nKeep the folder's with `--on-change stored`, the spec's with `--on-change given` (its stages are "
            "computed anew where they differ), or name another results.folder."
        )

    def _sweep_in_tables(self) -> str | None:
        """Return the name of the sweep whose tables these are, if they can be read."""
        try:
            return str(unsealed(files.read_plain(self.tables / "manifest.json"))["sweep"])
        except (OSError, ValueError, KeyError):
            return None

    def _anything_finished(self) -> bool:
        artifacts = self.root / "artifacts"
        return any(path.parent.name != "survey" for path in artifacts.glob("*/*.json"))

    @property
    def has_kernels(self) -> bool:
        """True if a kernel block is finished, or something that was solved."""
        kinds = (self.root / "artifacts" / kind for kind in ("gram", "solve"))
        return any(True for folder in kinds for _ in folder.glob("*.json"))

    def begun_trainings(self) -> set[str]:
        """Return the identities of the stages `finetune` that are finished or have left a checkpoint."""
        checkpoints = {entry.name.partition(".")[0] for entry in files.visible(self.checkpoints)}
        return self.artifacts().finished("finetune") | checkpoints

    def changes_since(self, sweep: Sweep) -> list[str]:
        """Return a line for each library of another version than when the folder was last run, and of overrides."""
        try:
            stored = self._stored_content()
            before = dict(stored["versions"])
        except (OSError, UnreadableFileError, YamlFault, ValueError, KeyError, TypeError):
            return []
        return [
            *overrides_apart(tuple(stored.get("overrides", ())), sweep.spec.overrides),
            *(
                f"{name} was {before[name]} when this sweep was last run and is {now} now; last bits may differ"
                for name, now in versions().items()
                if before.get(name, now) != now
            ),
        ]

    def write(self, sweep: Sweep) -> None:
        """Store the sweep that the folder holds from now on.

        Raises:
            StorageError: the folder cannot be written.
        """
        files.make_folder(self.root.parent)
        with files.explained(self.root), suppress(FileExistsError):
            # Readable by its owner only, as is usual on a cluster; wider permissions that the owner has set are kept.
            self.root.mkdir(mode=0o700)
        text = stored_text(sweep)
        if not (self.spec_path.exists() and self.spec_path.read_text(encoding="utf-8") == text):
            files.replace(self.spec_path, text.encode())


def stored_text(sweep: Sweep) -> str:
    """Return the content of `spec.yaml` after `write`."""
    content = {
        "spec_hash": _spec_hash(sweep),
        "versions": versions(),
        "sources": sweep.sources.to_json(),
        **({"overrides": list(sweep.spec.overrides)} if sweep.spec.overrides else {}),
        "drawn_sets": list(sweep.all_drawn),
        "blocks_asked": [each.model_dump(mode="json") for each in with_asked(sweep.blocks_asked, sweep.spec)],
        **({"stacked_before": stacked.model_dump(mode="json")} if (stacked := sweep.stacked_before).begun else {}),
        "spec": sweep.spec.model_dump(mode="json"),
    }
    return HEADING + to_yaml(content)


HEADING = "# The sweep in this folder, as ntksweep resolved it. Change your own spec, not this file.\n"


def _unchanged_sources(stored: Sweep, given: Sweep) -> Sources:
    """Return the sources of a stored sweep at their present places: those of the given ones with the same content."""
    now = {source.content_id: source for source in given.sources.named().values()}

    def unchanged(name: str, before: Source) -> Source:
        same = now.get(before.content_id) or find_again(name, before)
        if same.content_id != before.content_id:
            raise ChangedError(
                f"the {name} at {before.location} has changed since the run began, so the stored sweep cannot go on; "
                "restore it, or take the new one with `--on-change given`"
            )
        return same

    sources = stored.sources
    tasks = {name: unchanged(f"data of {name}", source) for name, source in sources.tasks.items()}
    data = next(iter(tasks.values())) if tasks else unchanged("data", sources.data)
    return Sources(unchanged("model", sources.model), data, tasks)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _why(error: Exception) -> str:
    if isinstance(error, UnreadableFileError | YamlFault):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "it is not, or not all of, what ntksweep wrote"


def _spec_hash(sweep: Sweep) -> str:
    return identity([sweep.spec.model_dump(mode="json"), sweep.sources.to_json()])
