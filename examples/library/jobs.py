"""A cluster profile: what one allocation asks Slurm for."""

import slurm

profile = slurm.Profile.model_validate(
    {"nodes": 2, "tasks_per_node": 4, "cpus_per_task": 8, "memory": "64GB", "time_limit": "1d12h"}
)
print(f"{profile.nodes} nodes for {profile.minutes} minutes, {profile.memory / 1e9:g} GB on each")
print(f"{profile.nodes * profile.tasks_per_node} workers of {profile.cpus_per_task} processors")
try:
    slurm.Profile.model_validate({"memory": "64", "time_limit": "4h"})
except ValueError as error:
    print(error.errors()[0]["msg"])
