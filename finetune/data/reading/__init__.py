"""Files of examples, read as they are written: no value is guessed at, and each fault is told with its line."""
