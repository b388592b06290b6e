"""A small convolutional network that trains in seconds on a CPU."""

from collections.abc import Sequence

from torch import Tensor, nn

from visionsweep.errors import ConfigError

# Features are averaged down to at most 7 x 7, so that the head stays small for large images.
MAX_GRID = 7


class CNN(nn.Module):
    """Blocks of (3 x 3 convolution, 2 x 2 max pooling, BatchNorm, ReLU), then two linear layers.

    Takes (N, in_channels, H, W) float images, H and W at least 8 pixels; returns (N, num_classes)
    logits.

    A model of your own is any nn.Module that does the same. ``build`` passes those of these
    arguments that your class names, besides the keys of its YAML:

    - ``num_classes``: int, the number of classes.
    - ``in_channels``, also as ``in_chans`` (timm's name): int, 1 (grey) or 3 (RGB).
    - ``image_size``: (int, int), height and width in pixels.

    Optional methods: ``no_weight_decay()`` returns names of parameters that must not decay;
    ``group_matcher()`` (timm's) names the layers for ``optim.layer_decay`` and for a number of
    stages in ``model.freeze``; ``get_classifier()`` (timm's) returns the last layer, for
    ``model.freeze=backbone``.
    """

    def __init__(
        self,
        widths: Sequence[int] = (16, 32, 64),
        hidden: int = 128,
        drop_rate: float = 0.0,
        *,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
    ) -> None:
        """``widths``: channels of each block. ``hidden``: units between the two linear layers."""
        super().__init__()
        if not widths or min(widths) < 1:
            raise ConfigError(
                "model.widths: expected the channels of each block, such as [16,32,64], "
                f"got {list(widths)}"
            )
        if not 0 <= drop_rate < 1:
            raise ConfigError(f"model.drop_rate: expected a number in [0, 1), got {drop_rate}")
        layers: list[nn.Module] = []
        for before, width in zip((in_channels, *widths), widths, strict=False):
            layers += [
                nn.Conv2d(before, width, kernel_size=3, padding=1, bias=False),
                # Pooling first leaves BatchNorm and ReLU a quarter of the pixels: 1.5 times the
                # images/s, the same F1. ceil_mode: a side of one pixel does not vanish.
                nn.MaxPool2d(2, ceil_mode=True),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
        self.features = nn.Sequential(*layers)
        sides = [-(-side // 2 ** len(widths)) for side in image_size]
        windows = [-(-side // MAX_GRID) for side in sides]
        height, width = (-(-side // window) for side, window in zip(sides, windows, strict=True))
        # Not adaptive pooling: on a GPU its gradient is not deterministic.
        self.pool = nn.AvgPool2d((windows[0], windows[1]), ceil_mode=True)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(widths[-1] * height * width, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(drop_rate),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the (N, num_classes) logits."""
        logits: Tensor = self.classifier(self.pool(self.features(images)))
        return logits
