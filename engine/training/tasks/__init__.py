"""What a model is trained to tell, one task per file: targets, loss, metrics."""
