"""GPUs: transfers of tensors, memory, faults, and results that have the same bits each time."""
