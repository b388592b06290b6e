"""The last layer of a model, trained on cached features of the rest."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHUNK = 4096  # rows at a time


class FeatureHead(nn.Module):
    """A linear classifier that standardizes its (N, F) features; returns (N, K) logits.

    ``weight`` and ``bias`` are those on standardized features, so weight decay treats all features
    alike. `classifier_weights` returns the same function on the features as they are: that of the
    model's own last layer.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, classifier: nn.Linear, drop_rate: float = 0.0) -> None:
        """``name``: of the classifier in its model. Starts as a copy of it."""
        super().__init__()
        self.name = name
        self.drop_rate = drop_rate
        self.weight = nn.Parameter(classifier.weight.detach().clone())
        has_bias = classifier.bias is not None
        self.bias = nn.Parameter(classifier.bias.detach().clone()) if has_bias else None
        self.register_buffer("mean", torch.zeros_like(self.weight[0]))
        self.register_buffer("std", torch.ones_like(self.weight[0]))

    @torch.no_grad()
    def standardize(self, features: Tensor, rows: Tensor) -> None:
        """Standardize by mean and deviation of ``features[rows]``, (N, F), and start at zero.

        The usual start would be as large as the weights that are to be learnt. Without a bias there
        is nothing to fold the mean into, so only the deviation counts.
        """
        mean, std = _moments(features, rows)
        if self.bias is not None:
            self.mean.copy_(mean)
            self.bias.zero_()
        # A constant feature says nothing; divided by its deviation, rounding errors would.
        self.std.copy_(torch.where(std > 1e-5 * std.max(), std, 1.0))
        self.weight.zero_()

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits. Dropout replaces a standardized feature by its mean."""
        standardized = (features - self.mean) / self.std
        if self.drop_rate:
            standardized = F.dropout(standardized, self.drop_rate, self.training)
        return F.linear(standardized, self.weight, self.bias)

    @torch.no_grad()
    def classifier_weights(self) -> dict[str, Tensor]:
        """Return the weights of the model's last layer, by their names in the model."""
        weight = self.weight / self.std
        weights = {f"{self.name}.weight": weight}
        if self.bias is not None:
            weights[f"{self.name}.bias"] = self.bias - weight @ self.mean
        return weights

    @torch.no_grad()
    def load_classifier_weights(self, weights: dict[str, Tensor]) -> None:
        """Become the model's last layer, without standardization: equal to it to the last bit."""
        self.mean.zero_()
        self.std.fill_(1.0)
        self.weight.copy_(weights[f"{self.name}.weight"])
        if self.bias is not None:
            self.bias.copy_(weights[f"{self.name}.bias"])


def _moments(features: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation per feature, computed in float64."""
    total = torch.zeros(features.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for chunk in torch.split(rows, CHUNK):
        values = features[chunk.to(features.device)].cpu().double()
        total += values.sum(0)
    mean = total / len(rows)
    for chunk in torch.split(rows, CHUNK):
        squares += (features[chunk.to(features.device)].cpu().double() - mean).square().sum(0)
    return mean.float(), (squares / len(rows)).sqrt().float()
