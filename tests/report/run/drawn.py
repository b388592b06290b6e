"""What a picture shows, for tests: its figure is kept on the way to the file."""

import numpy as np
from PIL import Image

from visionsweep.report.run import drawing


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


class Drawn:
    """Keeps the figures that one of the report's modules writes."""

    def __init__(self, monkeypatch, module):
        self.figures = []
        monkeypatch.setattr(module, "save_png", self._save)

    def _save(self, figure, path, *pictures):
        self.figures.append(figure)
        drawing.save_png(figure, path, *pictures)

    @property
    def texts(self):
        """All texts of the last figure, in its axes too."""
        figure = self.figures[-1]
        texts = [text.get_text() for text in figure.texts]
        for axes in figure.axes:
            texts += [text.get_text() for text in (*axes.texts, axes.title, axes._left_title)]
        return [text for text in texts if text]
