"""Execution of a plan: order and place of its stages, and retries."""
