import math

from visionsweep.report.run.learning_curves import draw_learning_curves, read_curves
from visionsweep.rundir.journal import Journal, read_journal


def test_curves_are_those_of_the_journal(tmp_path):
    journal = Journal(tmp_path)
    journal.start("name", "experiment", {}, {})
    for epoch, value in ((1, 0.5), (2, math.nan), (1, 0.6)):  # epoch 1 is repeated after a crash
        journal.metrics(epoch, {"val/loss": value})
    journal.metrics(2, {"best/loss": 0.6})
    journal.close()
    curves = read_curves(read_journal(tmp_path))
    assert curves["val/loss"][1] == 0.6
    assert math.isnan(curves["val/loss"][2])


def test_there_is_a_panel_for_what_was_recorded(figures, tmp_path):
    losses = {"train/loss": {2: 0.5, 1: 1.0}, "val/loss": {1: 1.2, 2: math.nan}}
    draw_learning_curves(losses, tmp_path / "c.png", best_epoch=2)
    scores = {"val/f1_macro": {1: 0.1}, "train/lr": {1: 1e-3}}
    draw_learning_curves(losses | scores, tmp_path / "c.png")
    draw_learning_curves({}, tmp_path / "c.png")
    titles = [[axes.get_title("left") for axes in figure.axes] for figure in figures]
    assert titles == [["loss"], ["loss", "macro F1", "learning rate"], []]
    lines = {line.get_label(): list(line.get_xdata()) for line in figures[0].axes[0].lines}
    assert lines == {"train/loss": [1, 2], "val/loss": [1, 2], "best epoch: 2": [2, 2]}
