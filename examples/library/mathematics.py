"""The rows, the kernel and the ridge path of a small network."""

import numpy as np
import torch

import ntk_dist

torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double().eval()
inputs = torch.randn(20, 4, dtype=torch.float64)
groups = {
    "first": [ntk_dist.TrackedLinear(network[0], "first", bias=True)],
    "last": [ntk_dist.TrackedLinear(network[2], "last", bias=True)],
}
scores, rows = ntk_dist.jacobian_rows(lambda: network(inputs), groups)
blocks = {}
for name, of_group in rows.items():
    matrix = of_group.flatten(0, 1).numpy()  # (examples * outputs, parameters)
    blocks[name] = ntk_dist.gram_tile(
        matrix, matrix, kind="sgd", outputs_per_example=1, accumulate="float64", max_bytes=1 << 20
    )
    print(f"{name}: {matrix.shape[1]} parameters, trace {np.trace(blocks[name]):.4g}")

residual = np.sign(inputs[:, :1].numpy()) - scores.numpy()
lambdas = np.array([0.1, 1.0, 10.0])
decomposition = ntk_dist.TridiagonalDecomposition(blocks["first"] + blocks["last"])
path = decomposition.ridge_path(residual, lambdas)
bounds = ntk_dist.ridge_distance_bound(float(np.linalg.norm(residual)), lambdas)
for position, strength in enumerate(lambdas):
    left = np.linalg.norm(path.train_residuals[position])
    distance = np.sqrt(path.squared_distance[position])
    print(
        f"lambda {strength:4}: residual {left:.3f}, |d| {distance:.3f} (at most {bounds[position]:.3f}), "
        f"{path.degrees_of_freedom[position]:.2f} degrees of freedom"
    )
print(f"effective rank {ntk_dist.effective_rank(decomposition.eigenvalues):.2f}")
