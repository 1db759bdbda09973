"""Models, adapters, heads and tasks of fine-tuning."""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a program that imports it decides what is shown
