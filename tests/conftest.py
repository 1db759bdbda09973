"""Settings for every test process and the processes that it starts."""

import os

# Tests run in several processes on few processors; tiny products on contended threads take twenty times as long.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
# nothing is fetched from the network
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
