"""Pretrained models with adapter and head, from a checkpoint to the scorer."""
