"""Checkpoints that are damaged, or not what is looked for: each ends as one message before a weight is read."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.data.tokens import load_tokenizer
from finetune.errors import FinetuneError
from finetune.model.checkpoint_fit import check_checkpoint
from finetune.model.inspection import inspect_model
from finetune.model.loading import empty_model, load_model
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from tests.tiny_models import save_tiny

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0f1e2d\nsize 123456789\n"
QUERY = "encoder.layer.0.attention.self.query.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("bert", tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """Copy a checkpoint, for one test to damage."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def said_of(folder: Path) -> str:
    """Return the one line that is said of a checkpoint before it is loaded."""
    settings = ModelSettings(str(folder))
    with pytest.raises(FinetuneError) as caught:
        check_checkpoint(settings, empty_model(settings, n_outputs=2, language_model=False))
        load_tokenizer(settings)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    assert len(message) < 700
    return message


def divide(folder: Path) -> dict[str, str]:
    """Save the weights again, in two files and their index; return the index's map."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    holders = {name: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(holders.values()):
        save_file({name: tensors[name] for name in names if holders[name] == file}, folder / file)
    write_index(folder, {"metadata": {}, "weight_map": holders})
    return holders


def write_index(folder: Path, index: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def pickled(folder: Path, content: Callable[[dict[str, Tensor]], object]) -> Path:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(content(tensors), folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_pointer_of_git_lfs_in_place_of_a_file(folder: Path, file: str):
    (folder / file).write_text(POINTER)
    assert f"{folder / file} is a pointer of Git LFS instead of the file itself; run `git lfs pull`" in said_of(folder)


@pytest.mark.parametrize("kept", [0, 5, 50, -200])
def test_weights_that_are_cut_short(folder: Path, kept: int):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert f"the weight file {file} cannot be read" in said_of(folder)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.gguf", "model.gguf is in a format that is not read here: get the checkpoint in safetensors"),
        ("tf_model.h5", "tf_model.h5 is in a format"),
        ("notes.txt", "has no weights, which would be in one of model.safetensors, "),
        ("notes.txt", "; get the whole checkpoint, or set model.weights: random"),
    ],
)
def test_a_folder_without_weights(folder: Path, name: str, said: str):
    (folder / "model.safetensors").rename(folder / name)
    assert said in said_of(folder)


def test_files_of_an_index_that_are_missing_pointers_or_another_s(folder: Path):
    divide(folder)
    second = folder / "model-00002-of-00002.safetensors"
    shutil.copy(folder / "model-00001-of-00002.safetensors", second)
    assert f"{second} holds no " in said_of(folder)
    second.write_text(POINTER)
    assert f"the weight file {second} is a pointer of Git LFS" in said_of(folder)
    second.unlink()
    assert f"the weights lack the file {second}; get it again" in said_of(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON (line 1, column 2: "),
        ("[1]", "holds no JSON object"),
        ("{}", "has no weight_map"),
        ('{"weight_map": {"a": 1}, "metadata": {}}', "has no weight_map"),
        ('{"weight_map": {"a": "b"}}', "has no metadata"),
    ],
)
def test_an_index_that_is_none(folder: Path, text: str, said: str):
    divide(folder)
    (folder / "model.safetensors.index.json").write_text(text)
    assert f"index.json {said}" in said_of(folder).replace(" is no index of a checkpoint's files: it", "")


class Calls:
    """An object that runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._mark),)


def test_a_pickle_of_more_than_tensors_is_not_loaded(folder: Path):
    pickled(folder, lambda _: {"a": Calls(folder / "ran")})
    message = said_of(folder)
    assert "holds more than tensors (posix.mkdir)" in message
    assert "get the checkpoint in safetensors" in message
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("content", [lambda tensors: {"state_dict": tensors}, lambda _: [1, 2]])
def test_a_pickle_of_a_training_in_progress(folder: Path, content: Callable[[dict[str, Tensor]], object]):
    pickled(folder, content)
    assert "holds other things than tensors by name" in said_of(folder)


def test_a_pickle_that_is_damaged(folder: Path):
    file = pickled(folder, lambda tensors: tensors)
    file.write_bytes(file.read_bytes()[:-500])
    assert f"the weight file {file} cannot be read" in said_of(folder)
    file.write_bytes(b"no pickle at all")
    assert f"the weight file {file} cannot be read" in said_of(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
@pytest.mark.parametrize("as_pickle", [False, True])
def test_quantized_weights_of_which_config_json_says_nothing(folder: Path, dtype: torch.dtype, as_pickle: bool):
    tensors = load_file(folder / "model.safetensors")
    tensors[QUERY] = tensors[QUERY].to(dtype)
    save_file(tensors, folder / "model.safetensors")
    if as_pickle:
        pickled(folder, lambda tensors: tensors)
    message = said_of(folder)
    assert f"holds {QUERY} in " in message
    assert "the weights are quantized, which config.json does not say; use the checkpoint" in message
    with pytest.raises(FinetuneError, match="the weights are quantized"):
        load_model(ModelSettings(str(folder)), n_outputs=2, language_model=False, seed=0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"model_type": "bert",', "config.json is not JSON (line 1, column 23: "),
        (b"", "config.json is not JSON (line 1, column 1: "),
        (b"null", "config.json holds no JSON object"),
        (b"[1]", "config.json holds no JSON object"),
        (b"\xff\xfe{}", "config.json is not UTF-8"),
        (b"{}", "`model_type` key in its config.json; correct what its config.json says"),
    ],
)
def test_a_configuration_that_is_none(folder: Path, content: bytes, said: str):
    (folder / "config.json").write_bytes(content)
    assert said in said_of(folder)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"dtype": "float99"}, "float99"),
        ({"hidden_act": "swoosh"}, "swoosh"),
        ({"num_attention_heads": 3}, "number of attention heads (3)"),
        ({"num_attention_heads": 0}, "ZeroDivisionError"),
        ({"hidden_size": "16"}, "'hidden_size' expected int"),
        ({"quantization_config": "4bit"}, "'str' object"),
    ],
)
def test_a_configuration_that_makes_no_model(folder: Path, changes: dict[str, Any], cause: str):
    configure(folder, **changes)
    message = said_of(folder)
    assert cause in message
    assert "; correct what its config.json says, or get the checkpoint again" in message


def test_an_architecture_that_reads_no_texts(folder: Path):
    configure(folder, model_type="vit")
    message = said_of(folder)
    assert "Unrecognized configuration class" in message
    assert "use one of texts that has" in message
    assert "BertConfig" not in message


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_is_none(folder: Path, file: str):
    (folder / file).write_text("{")
    assert f"{folder / file} is not JSON (line 1, column 2: " in said_of(folder)


def test_a_head_that_the_checkpoint_should_bring(folder: Path, tmp_path: Path):
    adapter = AdapterSettings("lora", 2, 4.0, ("query",))
    with pytest.raises(FinetuneError, match="the checkpoint has no classifier with 2 outputs"):
        inspect_model(ModelSettings(str(folder)), adapter, HeadSettings("pretrained"), n_outputs=2)
    with_head = ModelSettings(str(save_tiny("bert", tmp_path / "fine-tuned", n_labels=3)))
    inspect_model(with_head, adapter, HeadSettings("pretrained"), n_outputs=3)
    with pytest.raises(FinetuneError, match="the checkpoint has no classifier with 2 outputs"):
        inspect_model(with_head, adapter, HeadSettings("pretrained"), n_outputs=2)
