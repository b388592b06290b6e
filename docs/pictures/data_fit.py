"""Draw data_fit.png: a photograph beside what the model sees of it with each `data.fit`.

    python docs/pictures/data_fit.py PHOTO

The picture shows a CC0 photograph of github.com/alexeygrigorev/clothing-dataset-small,
test/dress/06a00c0f-5f9a-410d-a7da-3881a9df3a71.jpg, decoded as for training.
"""

import sys
from pathlib import Path
from typing import get_args

from PIL import Image, ImageDraw, ImageFont

from visionsweep.data.decode import decode_image
from visionsweep.data.preprocessing import Fit, make_preprocessing

SIDE, GAP, TEXT = 160, 24, 22


def main(photo: Path) -> None:
    """Write the picture beside this file."""
    with Image.open(photo) as opened:
        width = SIDE * opened.width // opened.height
        tiles = {"the file": opened.convert("RGB").resize((width, SIDE))}
    for fit in get_args(Fit):
        pixels = decode_image(photo, make_preprocessing(SIDE, 3, fit))
        tiles[f"data.fit={fit}"] = Image.fromarray(pixels.transpose(1, 2, 0))
    width = sum(tile.width + GAP for tile in tiles.values()) - GAP
    canvas = Image.new("RGB", (width, SIDE + TEXT), "white")
    draw, left = ImageDraw.Draw(canvas), 0
    for name, tile in tiles.items():
        canvas.paste(tile, (left, 0))
        draw.text((left, SIDE + 4), name, "black", ImageFont.load_default(14))
        left += tile.width + GAP
    path = Path(__file__).with_suffix(".png")
    canvas.quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
