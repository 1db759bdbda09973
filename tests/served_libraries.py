"""Libraries that the server of `tests.served` loads before it forks; later garbage collections skip them."""

import gc
from importlib import import_module

from orchestrator.loading import no_garbage

with no_garbage():
    for _name in (
        "datasets", "peft", "scipy.stats", "sklearn.linear_model", "transformers",
        "transformers.models.bert.modeling_bert", "finetune.scorers", "orchestrator.cli",
        "orchestrator.cli.summary", "orchestrator.plan.estimate", "orchestrator.sweep.model_memory",
        "orchestrator.engine.run", "orchestrator.stages.capture.compute", "orchestrator.stages.dataset.compute",
        "orchestrator.stages.gram.compute", "orchestrator.stages.solve.compute", "orchestrator.engine.executors.inline",
        "orchestrator.engine.executors.local_ray",
    ):  # fmt: skip
        import_module(_name)
    gc.freeze()
