"""Runs that were never trained, and the probabilities that their networks give."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from visionsweep.models.cnn import CNN
from visionsweep.rundir.layout import BEST, CONFIG
from visionsweep.training import checkpoint

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
MODEL = """
model:
  _target_: visionsweep.models.cnn.CNN
  widths: [4]
  drop_rate: 0.5
"""


def make_run(
    directory: Path,
    *,
    seed: int = 0,
    class_names: tuple[str, ...] = ("cat", "dog", "owl"),
    image_size: tuple[int, int] = (8, 10),
    flips: bool = True,
    class_counts: list[int] | None = None,
) -> CNN:
    """Write a run with random weights; return its network in evaluation mode."""
    torch.manual_seed(seed)
    model = CNN(widths=[4], num_classes=len(class_names), in_channels=3, image_size=image_size)
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    for buffer in (norm.running_mean, norm.running_var):
        buffer.uniform_(0.5, 1.5)
    model.classifier[-1].weight.data *= 10  # so that images differ in their class
    inference: dict[str, Any] = {
        "class_names": list(class_names),
        "image_size": list(image_size),
        "channels": 3,
        "fit": "stretch",
        "mean": MEAN,
        "std": STD,
        "flips": flips,
    }
    if class_counts is not None:
        inference["class_counts"] = class_counts
    contents = {"model": model.state_dict(), "epoch": 0, "metrics": {}, "inference": inference}
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint.save(contents, directory / BEST)
    (directory / CONFIG).write_text(MODEL)
    return model.eval()


def expected_probabilities(model: CNN, pixels: np.ndarray) -> np.ndarray:
    """Return (N, K) by the textbook: ((x / 255) - mean) / std, logits, exp / sum in float64."""
    mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    images = ((pixels / 255 - mean) / std).astype(np.float32)
    with torch.no_grad():
        logits = model(torch.from_numpy(images)).numpy().astype(np.float64)
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=1, keepdims=True)
