"""Pretrains a decoder of 2 million parameters on the sentences of the study, in some minutes on a processor.

    python examples/study/pretrain_decoder.py

A Llama of six layers, with a byte-pair vocabulary of its own, learns to continue the sentences below `examples/data`;
it reads no label. It is no good language model: it is a second architecture whose features come from pretraining, small
enough for the study. The folder `examples/data/decoder` is what transformers loads; it is written once, at the end.
"""

import argparse
import time
from pathlib import Path

import pandas as pd
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

DATA = Path(__file__).parents[1] / "data"
VOCABULARY, LENGTH, BATCH, SEED = 8000, 32, 128, 0
START, PADDING = "<s>", "<pad>"


def texts() -> list[str]:
    """Return every training sentence once, those of the rated domains included, in a fixed order."""
    files = sorted(
        {*DATA.glob("study/*/train.parquet"), *DATA.glob("study/ag_news/test.parquet"), *DATA.glob("*.parquet")}
    )
    columns = [pd.read_parquet(file, columns=["text"])["text"] for file in files]
    return list(dict.fromkeys(text.strip() for text in pd.concat(columns) if text.strip()))


def tokenizer_of(corpus: list[str]) -> PreTrainedTokenizerFast:
    """Return a byte-pair tokenizer learned from `corpus`, which puts `<s>` before every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[START, PADDING], initial_alphabet=alphabet),
    )
    start = tokenizer.token_to_id(START)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A", special_tokens=[(START, start)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=START, pad_token=PADDING)


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return an untrained Llama of six layers of width 128."""
    torch.manual_seed(SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=128, intermediate_size=352, num_hidden_layers=6,
            num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128, tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=None, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip


def pretrain(model: LlamaForCausalLM, ids: torch.Tensor, mask: torch.Tensor, *, epochs: int) -> None:
    """Train `model` to predict each next token of rows of `ids` (texts, length), by AdamW and one cycle of its rate."""
    steps = epochs * (len(ids) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    order = torch.Generator().manual_seed(SEED)
    model.train()
    began, step, recent = time.perf_counter(), 0, 0.0
    for _ in range(epochs):
        for rows in torch.randperm(len(ids), generator=order)[: len(ids) // BATCH * BATCH].split(BATCH):
            width = int(mask[rows].sum(dim=1).max())
            tokens, kept = ids[rows, :width], mask[rows, :width]
            loss = model(input_ids=tokens, attention_mask=kept, labels=tokens.masked_fill(kept == 0, -100)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            step, recent = step + 1, 0.98 * recent + 0.02 * loss.item()
            if step % 100 == 0:
                mean = recent / (1 - 0.98**step)
                print(f"step {step} of {steps}: loss {mean:.3f}, {time.perf_counter() - began:.0f} s", flush=True)


def main() -> None:
    """Pretrain the decoder and write its folder."""
    parser = argparse.ArgumentParser(description="Pretrain the decoder of the study.")
    parser.add_argument("--epochs", type=int, default=2, help="passes over the sentences")
    parser.add_argument("--output", type=Path, default=DATA / "decoder", help="where the model goes")
    chosen = parser.parse_args()
    corpus = texts()
    tokenizer = tokenizer_of(corpus)
    model = new_model(tokenizer)
    print(f"{len(corpus):,} sentences, {model.num_parameters():,} parameters", flush=True)
    encoded = tokenizer(corpus, truncation=True, max_length=LENGTH, padding="max_length", return_tensors="pt")
    pretrain(model, encoded["input_ids"], encoded["attention_mask"], epochs=chosen.epochs)
    model.eval().save_pretrained(chosen.output)
    tokenizer.save_pretrained(chosen.output)
    print(f"written to {chosen.output}")


if __name__ == "__main__":
    main()
