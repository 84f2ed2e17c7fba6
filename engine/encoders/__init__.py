"""Biology to tensors, one encoder per file; the folder listing is the registry."""
