"""Processes that are forked from a server which has loaded the libraries.

Loading them takes seconds, is not what is tested, and would be most of what the tests do. The server has no threads
and no locks that a process could inherit. There is one for all tests of a process: whoever names other modules to load
takes these away from everybody. What is in the environment when the server starts is in that of its processes.
"""

import multiprocessing

SERVED = multiprocessing.get_context("forkserver")
SERVED.set_forkserver_preload([
    "tests.served", "datasets", "peft", "scipy.stats", "sklearn.linear_model", "transformers",
    "transformers.models.bert.modeling_bert", "finetune.scorers", "orchestrator.cli",
    "orchestrator.cli.summary", "orchestrator.plan.estimate", "orchestrator.sweep.model_memory",
    "orchestrator.engine.run", "orchestrator.stages.capture.compute", "orchestrator.stages.dataset.compute",
    "orchestrator.stages.gram.compute", "orchestrator.stages.solve.compute", "orchestrator.engine.executors.inline",
    "orchestrator.engine.executors.local_ray",
])  # fmt: skip
