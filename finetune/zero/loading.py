"""Loading of sharded models: every process reads its own part of every weight, and never all of a layer."""

import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from finetune.errors import UnsupportedModelError
from finetune.model.architecture import head_linears
from finetune.model.checkpoint_fit import check_checkpoint
from finetune.model.device import check_device
from finetune.model.loading import LoadedModel, empty_model
from finetune.model.weight_files import WeightFiles, weight_files
from finetune.parallel.deepspeed_private import shard
from finetune.parallel.weights import local_part
from finetune.settings import ModelSettings
from ntk_dist.errors import NonFiniteError


def load_sharded(
    settings: ModelSettings, *, n_outputs: int, language_model: bool, seed: int, config: dict[str, Any]
) -> LoadedModel:
    """Load a model as `finetune.model.loading.load_model`, of which each process keeps its part of every weight.

    It has the same parameters, missing ones and ties as the unsharded model. The head, and every module of which the
    checkpoint lacks a parameter, are unsharded. transformers would read all files in the first process.

    Args:
        settings: where it is and how it is loaded.
        n_outputs: outputs of the head.
        language_model: load the language model instead of the classifier.
        seed: seeds what transformers draws for parameters that the checkpoint lacks.
        config: of DeepSpeed, see `zero_config`.

    Raises:
        ModelLoadError, NoDeviceError, DeviceError, NonFiniteError, HeadError: as `load_model`, in all processes alike.
        UnsupportedModelError: as `load_model`, or transformers computes weights from several tensors of the checkpoint.
    """
    check_device(settings)
    with no_init_weights():
        model = empty_model(settings, n_outputs=n_outputs, language_model=language_model)
    with weight_files(settings) as files:
        check_checkpoint(settings, model)
        sources = _sources(model, files)
        expected = model.state_dict()
        mismatched = {name for name, source in sources.items() if files.shapes[source] != tuple(expected[name].shape)}
        sources = {name: source for name, source in sources.items() if name not in mismatched}
        missing = _tie(model, files, sources, expected.keys() - sources.keys() - mismatched)
        _Filling(model, files, sources, settings.device, config).run()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.initialize_weights()
    lacking = missing | mismatched
    return LoadedModel(
        model.requires_grad_(False).eval(), frozenset(lacking & {name for name, _ in model.named_parameters()})
    )


def _sources(model: PreTrainedModel, files: WeightFiles) -> dict[str, str]:
    """Return, by name of a parameter or buffer, the name of its tensor in the files, by the rules of transformers."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    conversions = get_model_conversion_mapping(model)
    rules = (
        [rule for rule in conversions if isinstance(rule, WeightRenaming)],
        [rule for rule in conversions if isinstance(rule, WeightConverter)],
    )
    expected, sources = model.state_dict(), dict[str, str]()
    for source in files.shapes:
        name, converted = rename_source_key(source, *rules, model.base_model_prefix, expected)
        if name not in expected and source in expected:
            name, converted = rename_source_key(source, [], [], model.base_model_prefix, expected)
        if name in expected and converted is not None:
            raise UnsupportedModelError(
                f"{type(model).__name__} does not have its weights as they are in the checkpoint ({source}), so that "
                "they cannot be read in parts; set `sharding.stage: 0`, or save the model again with transformers"
            )
        if name in expected:
            sources.setdefault(name, source)
    return sources


def _tie(model: PreTrainedModel, files: WeightFiles, sources: dict[str, str], absent: set[str]) -> set[str]:
    """Tie the parameters that the architecture shares; return the names of those still missing.

    Where the checkpoint has both, they are shared if they are the same there.
    """
    for name, shared in list(model.all_tied_weights_keys.items()):
        if name in sources and shared in sources:
            if _same(files, sources[name], sources[shared]):
                del sources[name]
                absent.add(name)
            else:
                model.all_tied_weights_keys.pop(name)
    model.tie_weights(missing_keys=absent, recompute_mapping=False)
    ignored = model._keys_to_ignore_on_load_missing or ()
    return {name for name in absent if not any(re.search(pattern, name) for pattern in ignored)}


def _same(files: WeightFiles, name: str, other: str) -> bool:
    """Tell whether two tensors are the same; each process compares its part."""
    start, stop = own_range(prod(files.shapes[name]))
    same = files.shapes[name] == files.shapes[other]
    same = same and torch.equal(files.read(name, start, stop), files.read(other, start, stop))
    verdicts: list[bool] = [True] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(verdicts, same)
    return all(verdicts)


def own_range(size: int) -> tuple[int, int]:
    """Return where this process's part of `size` numbers begins and ends, as DeepSpeed shards them."""
    length = -(-size // torch.distributed.get_world_size())
    start = min(torch.distributed.get_rank() * length, size)
    return start, min(start + length, size)


@dataclass(eq=False)
class _Filling:
    """Gives an empty model its weights and buffers, one after the other.

    Attributes:
        model: on the meta device, its weights tied.
        files: the checkpoint.
        sources: names of tensors by name of a parameter or buffer; the others are left to be drawn.
        device: where unsharded parameters and buffers go.
        config: of DeepSpeed.
    """

    model: PreTrainedModel
    files: WeightFiles
    sources: Mapping[str, str]
    device: str
    config: dict[str, Any]

    def run(self) -> None:
        """Fill the model.

        Raises:
            NonFiniteError: a weight is NaN or infinite, in whichever process it is.
        """
        import deepspeed

        initializer = deepspeed.zero.Init(config_dict_or_path=self.config)
        tensors = dict(self.model.named_parameters(remove_duplicate=False))
        names: dict[int, list[str]] = {}
        for name, parameter in tensors.items():
            names.setdefault(id(parameter), []).append(name)
        sources = {key: self._source(shared) for key, shared in names.items()}
        unsharded = self._unsharded_modules({key for key, source in sources.items() if source is None})
        made: dict[tuple[int, bool], nn.Parameter] = {}
        damaged: list[tuple[int, str]] = []
        for number, (path, module, name, old) in enumerate(_places(self.model)):
            key = (id(old), id(module) in unsharded)
            if key not in made:
                source = sources[id(old)]
                made[key] = self._unsharded(old, source) if key[1] else self._sharded(old, str(source), initializer)
                if not _is_finite(made[key]):
                    damaged.append((number, path))
            setattr(module, name, made[key])
        self._fill_buffers()
        _check_together(damaged)

    def _source(self, names: list[str]) -> str | None:
        return next((self.sources[name] for name in names if name in self.sources), None)

    def _unsharded_modules(self, absent: set[int]) -> set[int]:
        """Return the modules that stay unsharded: what is drawn or replaced is small or the head."""
        found = {id(module) for module in head_linears(self.model).values()}
        return found | {id(module) for _, module, _, parameter in _places(self.model) if id(parameter) in absent}

    def _unsharded(self, empty: Tensor, source: str | None) -> nn.Parameter:
        made = nn.Parameter(torch.empty(empty.shape, dtype=empty.dtype, device=self.device), requires_grad=False)
        if source is not None:
            made.data.copy_(self.files.read(source).view(empty.shape))
            _mark_as_loaded(made)
        return made

    def _sharded(self, empty: Tensor, source: str, initializer: Any) -> nn.Parameter:
        start, stop = own_range(empty.numel())
        made = nn.Parameter(_room(empty, self.device), requires_grad=False)
        made.data.view(-1)[start:stop] = self.files.read(source, start, stop)
        shard(made, initializer)
        # DeepSpeed makes all parts equally long, and does not initialize memory after the last number.
        local_part(made)[stop - start :].zero_()
        _mark_as_loaded(made)
        return made

    def _fill_buffers(self) -> None:
        for path, empty in list(self.model.named_buffers()):
            owner, _, name = path.rpartition(".")
            made = torch.empty(empty.shape, dtype=empty.dtype, device=self.device)
            if path in self.sources:
                made.copy_(self.files.read(self.sources[path]).view(empty.shape))
                _mark_as_loaded(made)
            setattr(self.model.get_submodule(owner), name, made)


def _places(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    """Yield path, module, name and parameter wherever a module has one, tied ones again at every place."""
    for prefix, module in list(model.named_modules()):
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            yield f"{prefix}.{name}".lstrip("."), module, name, parameter


def _room(like: Tensor, device: str) -> Tensor:
    """Return an empty tensor; on a CPU only its written pages take memory, and all are given back at once."""
    if device != "cpu":
        return torch.empty(like.shape, dtype=like.dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, like.nbytes), dtype=like.dtype).view(like.shape)


def _mark_as_loaded(tensor: Tensor) -> None:
    # transformers draws parameters without this mark
    tensor._is_hf_initialized = True  # type: ignore[attr-defined]


def _is_finite(parameter: nn.Parameter) -> bool:
    part = local_part(parameter)
    # parameters that will be drawn have no values yet
    if not hasattr(parameter, "_is_hf_initialized"):
        return True
    # one sum costs less than a mask; elements are checked only if the sum is not finite
    return bool(torch.isfinite(part.sum())) or bool(torch.isfinite(part).all())


def _check_together(damaged: list[tuple[int, str]]) -> None:
    """Raise the same error in all processes if one of them has found damaged weights, which have place and name."""
    found: list[list[tuple[int, str]]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(found, damaged)
    first = min((place for process in found for place in process), default=None)
    if first is not None:
        raise NonFiniteError(
            f"the parameter {first[1]} of the model holds NaN or infinite values; the checkpoint is damaged, "
            "get it again"
        )
