"""Augmentation of whole micro-batches: steps with random parameters per image, chained by a pipeline."""
