"""Changes of a kernel by known faults of published kernel code, each one alone, on the same 32 sentences.

    python benchmarks/published_faults.py [--threads 2]

MiniLM, LoRA r=8 alpha=8 on query and value of all layers, margin of a random head, the first 32 sentences of
examples/data/amazon.parquet with a rating beyond 0.5: the all-layers kernel of examples/as-published-minilm.yaml at
seed 0. Prints for every fault |K - K_0| / |K_0| and the condition number with sigma = 1e-4.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.capture import demo_model
from finetune.data.sampling import sample
from finetune.data.targets import kernel_outputs
from finetune.data.task import read_examples
from finetune.data.tokens import TokenizedTexts, tokenize
from finetune.model.scorer import Scorer
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings, TaskSettings
from ntk_dist.jacobian.batches import Batch
from ntk_dist.jacobian.capture import jacobian_rows

DATA = "examples/data/amazon.parquet"
LENGTH, SIGMA, N_TRAIN = 64, 1e-4, 32

Score = Callable[[Scorer, Batch], Tensor]
Matrix = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    model = ModelSettings(str(demo_model()), dtype="float64")
    scorer = build_scorer(
        model,
        AdapterSettings("lora", 8, 8.0, ("query", "value")),
        HeadSettings("random", in_kernel=False),
        n_outputs=2,
        adapter_seed=0,
        head_seed=0,
    )
    tokens = first_sentences(model)
    faults: dict[str, Score] = {
        "none": lambda scorer, batch: scorer.logits(batch),
        "padding to 64 tokens attended": attend_padding,
        "embeddings applied twice": embed_twice,
        "dropout live, one draw": drop(1),
        "dropout live, another draw": drop(2),
    }
    rows = {name: rows_of(scorer, tokens, score) for name, score in faults.items()}
    for kind, kernel in (("asymmetric_sign", asymmetric_sign), ("sgd", sgd)):
        right = kernel(rows["none"])
        print(f"\n{kind}\n{'fault':32}{'change':>8}{'condition':>12}")
        for name, J in rows.items():
            K = kernel(J)
            change = np.linalg.norm(K - right) / np.linalg.norm(right)
            print(f"{name:32}{change:8.3f}{condition(np.linalg.svd(K, compute_uv=False)):12.4g}")
    describe_unsymmetric(asymmetric_sign(rows["none"]))


def first_sentences(model: ModelSettings) -> TokenizedTexts:
    task = TaskSettings(DATA, "classification", label="rating", sign_cut=0.5)
    examples = read_examples(task)
    drawn = sample(examples, n_train=N_TRAIN, n_eval=1, seed=0, sampling="first")
    return tokenize(model, [examples.train.texts[i] for i in drawn.train], template=None, max_length=LENGTH)


def attend_padding(scorer: Scorer, batch: Batch) -> Tensor:
    ids = torch.nn.functional.pad(batch.input_ids, (0, LENGTH - batch.input_ids.shape[1]))
    logits: Tensor = scorer.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return logits


def embed_twice(scorer: Scorer, batch: Batch) -> Tensor:
    """Feed the output of the embedding in as word vectors, which then get positions and norm once more."""
    embedded = scorer.model.base_model.embeddings(input_ids=batch.input_ids)
    logits: Tensor = scorer.model(inputs_embeds=embedded, attention_mask=batch.attention_mask).logits
    return logits


def drop(seed: int) -> Score:
    def score(scorer: Scorer, batch: Batch) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(1000 * seed + int(batch.input_ids.sum()))
            scorer.model.train()
            try:
                return scorer.logits(batch)
            finally:
                scorer.model.eval()

    return score


def rows_of(scorer: Scorer, tokens: TokenizedTexts, score: Score) -> Matrix:
    """Rows (n, p) of the margin, one sentence at a time."""
    rows = []
    for i in range(len(tokens)):
        batch = tokens.batch([i])
        _, found = jacobian_rows(lambda batch=batch: kernel_outputs(score(scorer, batch), "margin"), scorer.groups)
        rows.append(torch.cat([found[group][0, 0] for group in scorer.groups]).numpy())
    return np.stack(rows)


def asymmetric_sign(J: Matrix) -> Matrix:
    return J @ np.sign(J).T


def sgd(J: Matrix) -> Matrix:
    return J @ J.T


def condition(spectrum: Matrix) -> float:
    return float((spectrum.max() + SIGMA) / (spectrum.min() + SIGMA))


def describe_unsymmetric(K: Matrix) -> None:
    values = np.linalg.eigvals(K)
    halves = {half: np.linalg.eigvalsh(K, UPLO=half) for half in ("L", "U")}
    print(f"\nasymmetric_sign: |K - K'| / |K| = {np.linalg.norm(K - K.T) / np.linalg.norm(K):.3f}")
    print(f"  complex eigenvalues: {int((np.abs(values.imag) > 1e-12 * np.abs(values).max()).sum())} of {len(K)}")
    for half, found in halves.items():
        print(f"  a symmetric solver on half {half}: smallest {found.min():.4g}, condition {condition(found):.4g}")
    exact = np.linalg.cond(K + SIGMA * np.eye(len(K)))
    shifted = condition(np.linalg.svd(K, compute_uv=False))
    print(f"  ratio of singular values, sigma added to each {shifted:.4g}, of K + sigma I {exact:.4g}")


if __name__ == "__main__":
    main()
