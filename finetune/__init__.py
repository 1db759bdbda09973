"""Models, adapters, heads and tasks of fine-tuning."""
