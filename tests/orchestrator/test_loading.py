"""Loading large libraries does the work of loading once, and leaves the libraries as they are."""

import json
import subprocess
import sys

PLAINLY = """
import json, transformers.models
print(json.dumps(sorted(dir(transformers.models))))
"""

ONCE = """
import json, transformers
from transformers.utils import import_utils

read = import_utils.create_import_structure_from_path
before = read.cache_info().misses
from orchestrator.loading import _load_names_of_models
_load_names_of_models()
assert import_utils.create_import_structure_from_path is read, "the library is as it was"
assert read.cache_info().misses == before > 0, "the sources were read again"
print(json.dumps(sorted(dir(transformers.models))))
"""


def test_the_sources_of_models_are_read_once_and_every_name_is_there():
    plainly, once = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
        for code in (PLAINLY, ONCE)
    )
    assert once.returncode == 0, once.stderr
    assert "BertModel" in json.loads(once.stdout)
    assert json.loads(once.stdout) == json.loads(plainly.stdout)
