"""The kernel, the ridge path and the spectrum of your own model and loader, without a spec."""

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

import ntk_dist

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)).double().eval()
inputs = torch.randn(80, 4, dtype=torch.float64)
loader = DataLoader(TensorDataset(inputs, torch.sign(inputs[:, :1] + inputs[:, 1:2])), batch_size=16)

linears = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
groups = {f"layer {name}": [ntk_dist.TrackedLinear(module, name, bias=True)] for name, module in linears.items()}
captured = [ntk_dist.jacobian_rows(lambda batch=batch: model(batch), groups) for batch, _ in loader]
residual = np.concatenate([(y - f).numpy() for (_, y), (f, _) in zip(loader, captured, strict=True)])  # (n, 1)
kernel = np.zeros((80, 80))
for group in groups:
    rows = np.concatenate([of[group].flatten(0, 1).numpy() for _, of in captured])  # (examples * outputs, parameters)
    kernel += ntk_dist.gram_tile(rows, rows)
    print(f"{group}: {rows.shape[1]} parameters, kernel of trace {kernel.trace():.1f} so far")

train, held_out, lambdas = slice(0, 60), slice(60, 80), np.array([0.01, 1.0, 100.0])
decomposition = ntk_dist.TridiagonalDecomposition(kernel[train, train])  # once, for every lambda
path = decomposition.ridge_path(residual[train], lambdas)
for strength, change in zip(lambdas, path.eval_fit(kernel[held_out, train]), strict=True):
    print(f"lambda {strength}: mean squared error {np.mean((residual[held_out] - change) ** 2):.3f} held out")
spectrum = ntk_dist.summarize(decomposition.eigenvalues, size=60, trace=float(kernel[train, train].trace()))
print(f"eigenvalues up to {spectrum.sigma_max:.1f}, effective rank {spectrum.effective_rank:.2f} of 60")
