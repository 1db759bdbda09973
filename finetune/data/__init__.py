"""Tasks: their examples, tokens, targets and metrics."""
