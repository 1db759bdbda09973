"""From the sections of a spec to the settings that `finetune` takes."""

from typing import TYPE_CHECKING

from orchestrator.folder import Sweep

if TYPE_CHECKING:
    from finetune.settings import AdapterSettings, HeadSettings, ModelSettings, TaskSettings


def model_settings(sweep: Sweep) -> "ModelSettings":
    """Return which model to load, from where it was found."""
    from finetune.settings import ModelSettings

    section, source = sweep.spec.model, sweep.sources.model
    return ModelSettings(
        path=source.location,
        revision=source.revision,
        dtype=section.dtype,
        attention=section.attention,
        trust_remote_code=section.trust_remote_code,
    )


def adapter_settings(sweep: Sweep) -> "AdapterSettings":
    """Return which modules are adapted, and how."""
    from finetune.settings import AdapterSettings

    return AdapterSettings(**sweep.spec.adapter.model_dump(exclude={"seed"}))


def head_settings(sweep: Sweep) -> "HeadSettings":
    """Return what the head is."""
    from finetune.settings import HeadSettings

    return HeadSettings(**sweep.spec.head.model_dump(exclude={"seed"}))


def task_settings(sweep: Sweep) -> "TaskSettings":
    """Return where the examples come from and what they mean."""
    from finetune.settings import TaskSettings

    section = sweep.spec.task.model_dump(exclude={"data", "classes", "n_eval", "sampling", "sample_seed"})
    source = sweep.sources.data
    return TaskSettings(data=source.location, revision=source.revision, **section)
