"""Training: batches, optimizers, schedules and the loop. Knows models and tensors; no files, no text, no terminal."""
