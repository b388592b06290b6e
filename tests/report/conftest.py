import pytest
from matplotlib.figure import Figure

from visionsweep.report.run.drawing import drawing_style


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, in order. They are not rendered: that takes most of the time."""
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: saved.append(figure))
    with drawing_style([]):
        yield saved
