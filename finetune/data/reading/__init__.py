"""Readers of example files, which guess no value and report each fault with its line."""
