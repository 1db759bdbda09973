"""Products with frozen weights, made once for all cells wherever these do not differ yet.

Up to the first trained module every cell has the same states, so that a layer's products with these states are the same
for all cells: with queries and values adapted, three of the twelve units of work of a BERT layer's forward pass.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ntk_dist.jacobian.forwards import is_replaced, replaced_forwards


def shared_products(model: nn.Module, n_cells: int) -> AbstractContextManager[None]:
    """Return the context in which linear modules multiply inputs that are the same for all cells only once.

    Modules that were given another way to compute, as by `finetune.training.stacked.displaced_stack`, keep it.

    Args:
        model: its inputs are S equal parts of rows, one a cell.
        n_cells: S.
    """
    if n_cells == 1:
        return nullcontext()
    linear = [module for module in model.modules() if isinstance(module, (nn.Linear, Conv1D))]
    return replaced_forwards(
        {module: partial(_forward, module, n_cells) for module in linear if not is_replaced(module)}
    )


def _forward(module: nn.Linear | Conv1D, n_cells: int, inputs: Tensor) -> Tensor:
    """Return the outputs (S B, ...) of inputs (S B, ...)."""
    forward = type(module).forward
    # Inputs that depend on a displacement are not shared even if their values are equal: their gradients differ.
    if inputs.requires_grad or not _equal_parts(inputs, n_cells):
        return forward(module, inputs)
    outputs = forward(module, inputs[: len(inputs) // n_cells])
    return outputs.repeat(n_cells, *[1] * (outputs.dim() - 1))


def _equal_parts(inputs: Tensor, n_cells: int) -> bool:
    # on a GPU the host would wait at every module, which costs more than the products
    if len(inputs) % n_cells or inputs.device.type != "cpu":
        return False
    first, *others = inputs.chunk(n_cells)
    return all(torch.equal(first, other) for other in others)
