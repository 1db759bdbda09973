"""The unfinished stages of a run, and their dependencies on each other."""

from collections.abc import Collection, Iterable, Iterator

from orchestrator.store.stage import Stage


class OpenStages(Collection[str]):
    """A collection of the identities of open stages; a stage is ready once nothing that it needs is open."""

    def __init__(self) -> None:
        self._missing_inputs: dict[str, set[str]] = {}
        self._readers: dict[str, list[Stage]] = {}

    def __contains__(self, stage_id: object) -> bool:
        return stage_id in self._missing_inputs

    def __iter__(self) -> Iterator[str]:
        return iter(self._missing_inputs)

    def __len__(self) -> int:
        return len(self._missing_inputs)

    def add(self, stages: Iterable[Stage]) -> list[Stage]:
        """Open the stages that are not open yet, given inputs first; return those that are ready."""
        new = {stage.stage_id: stage for stage in stages if stage.stage_id not in self}
        self._missing_inputs |= {stage_id: set() for stage_id in new}
        for stage in new.values():
            for _, needed in stage.needs():
                if needed in self:
                    self._missing_inputs[stage.stage_id].add(needed)
                    self._readers.setdefault(needed, []).append(stage)
        return [stage for stage_id, stage in new.items() if not self._missing_inputs[stage_id]]

    def finish(self, stage: Stage) -> list[Stage]:
        """Close a stage; return the stages that are ready because of it."""
        del self._missing_inputs[stage.stage_id]
        ready = []
        for reader in self._readers.pop(stage.stage_id, []):
            missing = self._missing_inputs[reader.stage_id]
            missing.discard(stage.stage_id)
            if not missing:
                ready.append(reader)
        return ready

    def reopen(self, stage: Stage) -> list[Stage]:
        """Check again the needs of an open stage after more stages were opened; return it if it is still ready."""
        del self._missing_inputs[stage.stage_id]
        return self.add([stage])

    def with_readers(self, stage_ids: Iterable[str]) -> set[str]:
        """Return stages together with all open ones that need them, directly or indirectly."""
        found = set(stage_ids)
        reached = list(found)
        while reached:
            new = {reader.stage_id for reader in self._readers.get(reached.pop(), [])} - found
            found |= new
            reached.extend(new)
        return found
