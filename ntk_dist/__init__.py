"""The mathematics: Jacobian capture, Gram blocks, spectra and ridge paths, on tensors and modules alone."""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a program that imports it decides what is shown
