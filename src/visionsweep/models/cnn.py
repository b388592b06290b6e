"""A small convolutional network that trains in seconds on a CPU."""

from collections.abc import Sequence

from torch import Tensor, nn

from visionsweep.errors import ConfigError


class CNN(nn.Module):
    """Blocks of (3 x 3 convolution, BatchNorm, ReLU, 2 x 2 max pooling), a 4 x 4 average pooling, one linear layer.

    Takes (N, in_channels, H, W) float images, H and W from 8 pixels up, and returns (N, num_classes) logits.
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 64),
        drop_rate: float = 0.0,
        *,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise ConfigError(
                f"model.widths: got {list(widths)}, expected channels of each block, e.g. [32,64]"
            )
        if not 0 <= drop_rate < 1:
            raise ConfigError(f"model.drop_rate: got {drop_rate}, expected a number in [0, 1)")
        layers: list[nn.Module] = []
        for before, width in zip((in_channels, *widths), widths, strict=False):
            layers += [
                nn.Conv2d(before, width, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                # ceil_mode: a side of one pixel stays one pixel instead of vanishing
                nn.MaxPool2d(2, ceil_mode=True),
            ]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Dropout(drop_rate), nn.Linear(widths[-1] * 16, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the (N, num_classes) logits."""
        logits: Tensor = self.classifier(self.pool(self.features(images)))
        return logits
