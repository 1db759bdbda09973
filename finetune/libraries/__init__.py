"""Libraries that load and run models: their errors as one message, and their output."""
