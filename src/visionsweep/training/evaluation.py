"""The loss, the metrics and, on request, the logits of a model on a whole split."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visionsweep.data.batches import EvalBatches
from visionsweep.errors import TrainingError
from visionsweep.losses.base import Loss
from visionsweep.training.metrics import classification_metrics, confusion_matrix
from visionsweep.training.state import FitSettings

REMEDY = "try a lower optim.lr or trainer.clip_norm=1"


@dataclass(frozen=True)
class Evaluation:
    """The result of a model on a split."""

    loss: float
    matrix: Tensor  # (K, K) int64 on the CPU: rows are targets, columns predictions
    top5_accuracy: float | None  # None for five classes or fewer
    preds: Tensor  # (N,) int16 on the CPU, in the order of the batches
    logits: (
        Tensor | None
    )  # (N, K) float32 on the CPU, in the order of the batches; None if not kept

    def metrics(self, settings: FitSettings, prefix: str) -> dict[str, float]:
        """Return every metric, each named ``prefix/name``."""
        values = {"loss": self.loss}
        values |= classification_metrics(self.matrix, settings.class_names, settings.absent_classes)
        if self.top5_accuracy is not None:
            values["top5_accuracy"] = self.top5_accuracy
        return {f"{prefix}/{name}": value for name, value in values.items()}


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loss: Loss,
    batches: EvalBatches,
    settings: FitSettings,
    *,
    where: str = "val",
    keep_logits: bool = False,
) -> Evaluation:
    """Return loss, confusion matrix and, with ``keep_logits``, the logits over all of `batches`.

    Raises `TrainingError`, which says `where`, if a logit or the loss is not finite: the argmax of
    NaN is a class like any other, so the metrics would look like those of a bad model.
    """
    model.eval()
    num_classes = len(settings.class_names)
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=settings.device)
    statistics: Tensor | None = None
    kept: list[Tensor] = []
    preds: list[Tensor] = []
    hits, num_finite = torch.zeros(2, dtype=torch.int64, device=settings.device)
    for batch in batches:
        with settings.autocast():
            logits = model(batch.images)
        num_finite += logits.isfinite().all(dim=1).sum()
        if keep_logits:
            kept.append(logits.float().cpu())
        part = loss.statistics(logits, batch.targets)
        part = part.double() if settings.device.type != "mps" else part
        statistics = part if statistics is None else statistics + part
        preds.append(logits.argmax(dim=1))
        matrix += confusion_matrix(preds[-1], batch.targets, num_classes)
        if num_classes > 5:
            hits += (logits.topk(5, dim=1).indices == batch.targets[:, None]).any(dim=1).sum()
    assert statistics is not None  # an empty validation set is refused before training
    num_images = int(matrix.sum())
    if int(num_finite) < num_images:
        raise TrainingError(
            f"{where}: the predictions for {num_images - int(num_finite):,} of {num_images:,} "
            f"images are not finite; {REMEDY}"
        )
    value = float(loss.value(statistics))
    if not math.isfinite(value):
        raise TrainingError(f"{where}: the loss is {value}; {REMEDY}")
    return Evaluation(
        loss=value,
        matrix=matrix.cpu(),
        top5_accuracy=int(hits) / num_images if num_classes > 5 else None,
        preds=torch.cat(preds).to(torch.int16).cpu(),
        logits=torch.cat(kept) if keep_logits else None,
    )
