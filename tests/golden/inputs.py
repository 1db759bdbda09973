"""Models, data and spec files of what is recorded; the same files whichever checkout reads them."""

import json
import random
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import yaml
from safetensors.numpy import load_file, save_file
from transformers.utils.logging import disable_progress_bar

from tests.golden.renames import Renames
from tests.tiny_models import WORDS, save_tiny

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
HUB_DATA, HUB_MODEL = "nyu-mll/glue", "FacebookAI/roberta-base"
N_HUB = 5500


@dataclass(frozen=True)
class Case:
    """A spec that is recorded.

    Attributes:
        name: its name, and that of its folder.
        spec: its file.
        runs: whether it is run, or planned alone.
        float64: whether its model computes in float64.
    """

    name: str
    spec: Path
    runs: bool
    float64: bool


class Inputs:
    """Writes what is recorded into a folder."""

    def __init__(self, folder: Path, renames: Renames) -> None:
        self.folder = folder
        self.renames = renames
        self.content = yaml.safe_load((HERE / "specs.yaml").read_text())

    def sweeps(self) -> Iterator[Case]:
        """Write and yield the sweeps of specs.yaml."""
        for name, about in self.content["sweeps"].items():
            spec = self.write(name, about)
            dtype = yaml.safe_load(spec.read_text())["model"].get("dtype")
            yield Case(name, spec, not about.get("plan_only"), dtype == "float64")

    def examples(self) -> Iterator[Case]:
        """Write and yield the specs of examples/; where model and data are on the hub small ones stand for them."""
        for path in sorted(EXAMPLES.glob("*.yaml")):
            tree = yaml.safe_load(path.read_text())
            if tree["model"]["path"] == HUB_MODEL:
                tree["model"]["path"] = str(self.model({"kind": "roberta", "layers": 12, "masked": True}, limit=514))
                for task in (tree["task"], *(tree["grid"].get("tasks") or {}).values()):
                    if "config" in task:
                        task["data"] = str(self._glue(task.pop("config")))
                if tree["task"].get("data") == HUB_DATA:
                    del tree["task"]["data"]
            else:
                for section in (tree["model"], tree["task"], *(tree["grid"].get("tasks") or {}).values()):
                    for key in ("path", "data"):
                        if key in section:
                            section[key] = str(EXAMPLES / section[key])
            folder = self.folder / f"example-{path.stem}"
            folder.mkdir(parents=True)
            yield Case(f"example-{path.stem}", self._spec(folder, tree), runs=False, float64=False)

    def write(self, name: str, about: Mapping[str, Any]) -> Path:
        """Write model, data and spec of a case into a folder of its own; return the spec's path.

        Args:
            name: name of the folder.
            about: what it is, as in specs.yaml and bad_specs.yaml.
        """
        folder = self.folder / name
        folder.mkdir(parents=True)
        shutil.copytree(self.model(about.get("model", {})), folder / "model")
        wanted = dict(about.get("data", {}))
        write_data(folder / "data.parquet", **wanted)
        write_data(folder / "books.parquet", **wanted | {"seed": 1})
        (folder / "splits").mkdir()
        for seed, split in enumerate(("train", "validation")):
            table = pa.table(sentences(30, seed=seed))
            pyarrow.csv.write_csv(table.select(["text", "label"]), folder / "splits" / f"{split}.csv")
        for path, text in about.get("files", {}).items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
        for path in about.get("removed", ()):
            (folder / path).unlink()
        if about.get("spoilt"):
            path = folder / "model/model.safetensors"
            weights = load_file(path)
            next(array for name, array in weights.items() if "layer.1" in name and array.ndim == 2)[0, 0] = np.nan
            save_file(weights, path, metadata={"format": "pt"})
        if "text" in about:  # a spec that is no dictionary, or no YAML
            (folder / "sweep.yaml").write_text(about["text"])
            return folder / "sweep.yaml"
        return self._spec(folder, changed(self.content["base"], about.get("changes", {})))

    def _spec(self, folder: Path, tree: dict[str, Any]) -> Path:
        path = folder / "sweep.yaml"
        path.write_text(yaml.safe_dump(self.renames.changes(tree), sort_keys=False))
        return path

    def model(self, wanted: Mapping[str, Any], *, limit: int | None = None) -> Path:
        """Return the folder of a tiny model, saved once; `limit` is how many positions it has instead of its own."""
        options = {"kind": "bert"} | dict(wanted)
        folder = self.folder / "models" / "-".join(f"{key}-{value}" for key, value in options.items())
        if folder.exists():
            return folder
        disable_progress_bar()
        save_tiny(options.pop("kind"), folder, **options)
        if limit is not None:
            weights = load_file(folder / "model.safetensors")
            (name,) = (name for name in weights if name.endswith("position_embeddings.weight"))
            weights[name] = np.resize(weights[name], (limit, weights[name].shape[1]))
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
            for name, key in (("config", "max_position_embeddings"), ("tokenizer_config", "model_max_length")):
                path = folder / f"{name}.json"
                path.write_text(json.dumps(json.loads(path.read_text()) | {key: limit}))
        return folder

    def _glue(self, config: str) -> Path:
        folder = self.folder / "glue" / config
        if not folder.exists():
            for seed, split in enumerate(("train", "validation")):
                found = sentences(N_HUB, seed=sum(map(ord, config)) + seed)
                texts = dict.fromkeys(("sentence", "sentence1", "question"), found["text"])
                write_data(folder / f"{split}.parquet", columns=texts | {"sentence2": found["second"]}, n=N_HUB)
        return folder


def changed(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with dotted names set to other values; None removes a key."""
    tree: dict[str, Any] = json.loads(json.dumps(base))
    for name, value in changes.items():
        *sections, key = name.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        if value is None:
            del place[key]
        else:
            place[key] = value
    return tree


def sentences(n: int, *, classes: int = 2, seed: int = 0) -> dict[str, list[Any]]:
    """Return `n` sentences of known words, each with a second one, a class and a rating."""
    draw = random.Random(seed)
    return {
        "text": [" ".join(draw.choices(WORDS, k=draw.randint(1, 6))) for _ in range(n)],
        "second": [" ".join(draw.choices(WORDS, k=draw.randint(1, 4))) for _ in range(n)],
        "label": [i % classes for i in range(n)],
        "rating": [round(draw.uniform(-4, 4), 3) for _ in range(n)],
    }


def write_data(
    path: Path,
    *,
    n: int = 40,
    classes: int = 2,
    seed: int = 0,
    columns: Mapping[str, Any] | None = None,
    rows: Mapping[int, Mapping[str, Any]] | None = None,
) -> None:
    """Write sentences; `columns` replaces or leaves out columns, `rows` cells; one value may stand for all rows."""
    table = sentences(n, classes=classes, seed=seed)
    for name, values in (columns or {}).items():
        table[name] = values if isinstance(values, list) else [values] * n
    for row, cells in (rows or {}).items():
        for name, value in cells.items():
            table[name][row] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: each for name, each in table.items() if each != [None] * n}), path)
