"""From the sections of a spec to the settings that `finetune` takes."""

from typing import Any

from finetune.settings import AdapterSettings, HeadSettings, ModelSettings, TaskSettings
from orchestrator.errors import UntrustedCodeError
from orchestrator.spec.sections import AdapterSection, HeadSection, TaskSection
from orchestrator.sweep.folder import Sweep


def refuse_untrusted_code(sweep: Sweep) -> None:
    """Check that a model's own code may run if the spec asks for it; the spec alone does not allow it.

    Raises:
        UntrustedCodeError: the command line does not allow it.
    """
    if sweep.spec.model.trust_remote_code and not sweep.trusts_code:
        raise UntrustedCodeError(
            f"model.trust_remote_code: true asks to run Python code that comes with {sweep.sources.model.location}; "
            "read it, and if you trust its authors give this command --trust-remote-code"
        )


def model_settings(sweep: Sweep) -> ModelSettings:
    """Return the settings of the model, to be loaded from the place where it was found.

    Raises:
        UntrustedCodeError: as `refuse_untrusted_code`.
    """
    refuse_untrusted_code(sweep)
    section, compute, source = sweep.spec.model, sweep.spec.compute, sweep.sources.model
    return ModelSettings(
        path=source.location,
        revision=source.revision,
        dtype=section.dtype,
        attention=section.attention,
        trust_remote_code=section.trust_remote_code,
        weights=section.weights,
        weights_seed=section.weights_seed,
        device=compute.device,
        checkpointing=compute.checkpointing,
        alone=compute.batching == "alone",
    )


def adapter_settings(section: AdapterSection) -> AdapterSettings:
    """Return the settings of the adapter: the modules to adapt, and how."""
    return AdapterSettings(**{key: _plain(value) for key, value in section.model_dump(exclude={"seed"}).items()})


def head_settings(section: HeadSection) -> HeadSettings:
    """Return the settings of the head."""
    return HeadSettings(**{key: _plain(value) for key, value in section.model_dump(exclude={"seed"}).items()})


def task_settings(section: TaskSection, data: str, revision: str | None) -> TaskSettings:
    """Return the settings of the task.

    Args:
        section: the section of a spec.
        data: where the data are, or the identity of their content.
        revision: their commit on the hub, if they are there.
    """
    own = section.model_dump(exclude={"data", "classes", "labels", "n_eval", "sampling", "sample_seed"})
    return TaskSettings(data=data, revision=revision, labels=tuple((section.labels or {}).items()), **own)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
