"""From the sections of a spec to the settings that `finetune` takes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UntrustedCodeError
from orchestrator.sweep.folder import Sweep
from orchestrator.sweep.sources import Source

if TYPE_CHECKING:
    from finetune.settings import AdapterSettings, HeadSettings, ModelSettings, TaskSettings


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


def model_settings(sweep: Sweep) -> "ModelSettings":
    """Return the settings of the model, to be loaded from the place where it was found.

    Raises:
        UntrustedCodeError: as `refuse_untrusted_code`.
    """
    from finetune.settings import ModelSettings

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


def adapter_settings(section: Mapping[str, Any]) -> "AdapterSettings":
    """Return the settings of the adapter: the modules to adapt, and how.

    Args:
        section: the section `adapter` of a spec as JSON, with its seed or without.
    """
    from finetune.settings import AdapterSettings

    return AdapterSettings(**{key: _plain(value) for key, value in section.items() if key != "seed"})


def head_settings(section: Mapping[str, Any]) -> "HeadSettings":
    """Return the settings of the head.

    Args:
        section: the section `head` of a spec as JSON, with its seed or without.
    """
    from finetune.settings import HeadSettings

    return HeadSettings(**{key: _plain(value) for key, value in section.items() if key != "seed"})


def task_settings(section: Mapping[str, Any], data: Source) -> "TaskSettings":
    """Return the settings of the task: the source of the examples and their meaning.

    Args:
        section: the section `task` of a spec as JSON.
        data: the source at which its data were found.
    """
    from finetune.settings import TaskSettings

    elsewhere = ("data", "classes", "n_eval", "sampling", "sample_seed")
    own = {key: value for key, value in section.items() if key not in elsewhere}
    return TaskSettings(data=data.location, revision=data.revision, **own)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
