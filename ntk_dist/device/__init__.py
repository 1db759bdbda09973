"""GPUs: the way of tensors to them and back, their memory, their faults, and the same bits on them."""
