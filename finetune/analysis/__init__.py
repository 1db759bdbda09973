"""Measurements of models and heads, apart from their training."""
