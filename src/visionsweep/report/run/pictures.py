"""The pictures and the table of a run's best checkpoint, from its predictions on the validation images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from visionsweep.report.run.confusion_matrix import confusion_matrix_png
from visionsweep.report.run.learning_curves import curves_png
from visionsweep.report.run.mistakes import mistakes_png, worst_mistakes
from visionsweep.report.run.per_class import per_class_csv
from visionsweep.report.run.pr_curves import pr_curves_png
from visionsweep.report.run.reliability import reliability_png
from visionsweep.run.assemble import Experiment
from visionsweep.training.loop import predict_probabilities

FIGURES = "figures"  # the folder, in the run's directory and in MLflow


def draw(
    run_dir: Path,
    experiment: Experiment,
    matrix: np.ndarray,
    history: Sequence[Mapping[str, float]],
    best_epoch: int,
) -> list[str]:
    """Write all of them for the model as it stands; return their paths, relative to the run's directory.

    ``matrix``: (K, K) int64, the best epoch's confusion matrix; ``best_epoch``: counted from 1.
    """
    names, data = experiment.settings.class_names, experiment.dataset.train
    probabilities = predict_probabilities(
        experiment.state.evaluated_model(), experiment.val, experiment.settings
    ).numpy()
    targets = data.targets.numpy()[experiment.val_indices]
    folder = run_dir / FIGURES
    confusion_matrix_png(matrix, names, folder / "confusion_matrix.png")
    curves_png(history, folder / "curves.png", best_epoch=best_epoch)
    per_class_csv(matrix, names, folder / "per_class.csv", experiment.settings.absent_classes)
    pr_curves_png(probabilities, targets, names, folder / "pr_curves.png")
    reliability_png(probabilities, targets, folder / "reliability.png")
    worst = worst_mistakes(probabilities, targets)
    rows = experiment.val_indices[worst]
    predicted = probabilities[worst].argmax(axis=1)
    mistakes_png(
        np.stack([data.images[row].numpy() for row in rows.tolist()])
        if len(rows)
        else np.zeros((0, 1, 1, 1), np.uint8),
        [names[target] for target in targets[worst]],
        [names[k] for k in predicted],
        probabilities[worst, predicted],
        [data.ids[row] for row in rows.tolist()],
        folder / "mistakes.png",
    )
    written = (
        "confusion_matrix.png",
        "curves.png",
        "per_class.csv",
        "pr_curves.png",
        "reliability.png",
        "mistakes.png",
    )
    return [f"{FIGURES}/{name}" for name in written]
