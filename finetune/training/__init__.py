"""Training cells of a grid around the pretrained point: the model itself, and its linearization."""
