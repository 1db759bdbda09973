"""Stages in a worker: claimed, computed, published."""
