"""Damage in a results folder: what is found by reading everything, and what was found before."""

from collections.abc import Iterator, Mapping, Set
from contextlib import suppress

from orchestrator.errors import DamagedArtifactError, StorageError
from orchestrator.plan.index import PlanIndex
from orchestrator.results.tables.manifest import PART, TABLES_NOTED, damaged_tables, names_in_manifest, written_at
from orchestrator.store.artifacts import ArtifactStore
from orchestrator.sweep.folder import ResultsFolder


def damage_found(plan: PlanIndex, folder: ResultsFolder, finished: Mapping[str, Set[str]]) -> Iterator[str]:
    """Yield what does not match its checksum, and why; note it, where the folder is writable, for later commands.

    Args:
        plan: the index of the sweep's plan.
        folder: its results folder.
        finished: identities of the finished stages of each kind.
    """
    store = folder.artifacts()
    stages = {"survey": plan.surveys, **plan.stages}
    finished = {"survey": store.finished("survey"), **finished}
    for kind, stage_id in ((kind, stage_id) for kind, listed in stages.items() for stage_id in listed):
        if stage_id not in finished[kind]:
            continue
        try:
            store.read(kind, stage_id).verify()
        except DamagedArtifactError as error:
            _note(store, kind, stage_id, damaged=True)
            yield f"{kind}/{stage_id}: {error.reason}"
        else:
            _note(store, kind, stage_id, damaged=False)
    found = damaged_tables(folder)
    yield from (f"tables/{name}" for name in found)
    for table in names_in_manifest(folder):
        _note(store, TABLES_NOTED, table, damaged=f"{table}/{PART}" in found)


def _note(store: ArtifactStore, kind: str, name: str, *, damaged: bool) -> None:
    with suppress(StorageError):
        if damaged:
            store.note_damage(kind, name)
        elif store.noted_at(kind, name):
            store.drop_note(kind, name)


def damage_noted(plan: PlanIndex, folder: ResultsFolder) -> Iterator[str]:
    """Yield what was noted as damaged and was not made anew since; only looks at times, and reads nothing."""
    store = folder.artifacts()
    planned = {"survey": set(plan.surveys)} | {kind: set(ids) for kind, ids in plan.stages.items()}
    for kind, name in store.noted():
        noted = store.noted_at(kind, name)
        if kind == TABLES_NOTED:
            if written_at(folder) <= noted:
                yield f"tables/{name}/{PART}"
        elif name in planned.get(kind, ()) and 0 < store.recorded_at(kind, name) <= noted:
            yield f"{kind}/{name}"
