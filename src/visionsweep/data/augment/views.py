"""The choice among cached views of an image; only for features, and not for a config."""

import torch
from torch import Generator, Tensor


class PickView:
    """Takes (B, V, F) features of V views, returns (B, F): a random view of each image."""

    def __call__(
        self, features: Tensor, targets: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Pick the views; targets are returned unchanged."""
        count = features.shape[1]
        views = torch.randint(count, (len(features),), generator=generator).to(features.device)
        rows = torch.arange(len(features), device=features.device)
        return features[rows, views], targets
