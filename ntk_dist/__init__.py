"""The mathematics: Jacobian capture, Gram blocks, spectra and ridge paths, on tensors and modules alone."""
