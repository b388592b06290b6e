"""Brightness, contrast, saturation and hue as one affine map of the colours of each image."""

import math

import torch
from torch import Generator, Tensor

from visionsweep.data.augment.ranges import require_range

# Weights of red, green and blue: ITU-R BT.601, rounded as in Python's colorsys.
LUMA = (0.30, 0.59, 0.11)


class ColorJitter:
    """Changes brightness, contrast, saturation and hue of each image by random amounts.

    The first three factors are uniform in [max(0, 1 - x), 1 + x]; the hue turns by up to `hue` of a
    circle. All four are linear in the colour, so their product is applied once and values are
    clamped once, not after each as in torchvision. Contrast is around the mean luma. Saturation and
    hue change only images of three channels.
    """

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float) -> None:
        for name, value in (
            ("brightness", brightness),
            ("contrast", contrast),
            ("saturation", saturation),
        ):
            require_range(self, name, value, 0, 10)
        require_range(self, "hue", hue, 0, 0.5)
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue

    def __call__(
        self, images: Tensor, targets: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Return float32 images in 0..255, and the targets unchanged."""
        draws = torch.rand(4, len(images), generator=generator)
        factors = [
            max(0.0, 1 - amount) * (1 - draw) + (1 + amount) * draw
            for amount, draw in zip(
                (self.brightness, self.contrast, self.saturation), draws, strict=False
            )
        ]
        angle = (draws[3] * 2 - 1) * (self.hue * 2 * math.pi)
        brightness, contrast, saturation, angle = (x.to(images.device) for x in (*factors, angle))
        return adjust_color(images, brightness, contrast, saturation, angle), targets


def adjust_color(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, angle: Tensor
) -> Tensor:
    """Return images (B, C, H, W) as float32 in 0..255, changed by factors (B,) and hue angles (B,).

    The angles are in radians.
    """
    channels = images.shape[1]
    pixels = images.flatten(2).float()
    weights = LUMA if channels == 3 else (1 / channels,) * channels
    mean = pixels.mean(dim=2) @ pixels.new_tensor(weights)
    scale = (brightness * contrast).view(-1, 1, 1)
    offset = ((1 - contrast) * brightness * mean).view(-1, 1, 1)
    if channels == 3:
        adjusted = torch.bmm(scale * chroma_matrix(saturation, angle), pixels).add_(offset)
    else:
        adjusted = pixels * scale + offset
    return adjusted.clamp_(0, 255).view(images.shape)


def chroma_matrix(saturation: Tensor, angle: Tensor) -> Tensor:
    """Return RGB -> RGB matrices (B, 3, 3): chroma in YIQ times `saturation`, turned by `angle`."""
    luma = torch.tensor(LUMA, dtype=torch.float64)
    red, _, blue = torch.eye(3, dtype=torch.float64) - luma
    to_yiq = torch.stack([luma, 0.74 * red - 0.27 * blue, 0.48 * red + 0.41 * blue])
    # Inverted in float64 on the CPU: 3x3, and a device would have to report a singular matrix.
    to_rgb = torch.linalg.inv(to_yiq).to(saturation)
    cosine, sine = saturation * angle.cos(), saturation * angle.sin()
    turn = saturation.new_zeros(len(saturation), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1], turn[:, 1, 2] = cosine, -sine
    turn[:, 2, 1], turn[:, 2, 2] = sine, cosine
    matrix: Tensor = to_rgb @ turn @ to_yiq.to(saturation)
    return matrix
