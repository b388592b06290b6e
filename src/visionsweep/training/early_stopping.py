"""The best objective of a run, and whether to stop since it no longer improves."""

import math
from typing import Any, Literal


class EarlyStopping:
    """Tracks the best epoch. Improvements of up to ``min_delta`` do not reset the ``patience``.

    Without patience the run never stops early. With ``keeps_last`` the last epoch counts as the
    best: nothing is chosen on the validation images.
    """

    def __init__(
        self,
        direction: Literal["maximize", "minimize"],
        patience: int | None,
        min_delta: float,
        first_epoch: int = 0,
        *,
        keeps_last: bool = False,
    ) -> None:
        """``first_epoch``: the patience counts from its end on; epochs are counted from 1."""
        self.patience = patience
        self.best: float | None = None
        self.best_epoch = 0
        self._sign = 1.0 if direction == "maximize" else -1.0
        self._min_delta = min_delta
        self._reference = -math.inf  # signed; moves by more than min_delta
        self._reference_epoch = 0
        self._first_epoch = first_epoch
        self._keeps_last = keeps_last

    def update(self, epoch: int, value: float) -> bool:
        """Add the objective of an epoch; return whether it is the best. Ties keep the earlier."""
        signed = self._sign * value
        if signed > self._reference + self._min_delta:
            self._reference, self._reference_epoch = signed, epoch
        if self._keeps_last or self.best is None or signed > self._sign * self.best:
            self.best, self.best_epoch = value, epoch
            return True
        return False

    def should_stop(self, epoch: int) -> bool:
        """Return whether to stop after `epoch`: no improvement in the last ``patience`` epochs."""
        if self.patience is None:
            return False
        return epoch - max(self._reference_epoch, self._first_epoch) >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "value": self.best,
            "epoch": self.best_epoch,
            "reference": self._reference,
            "reference_epoch": self._reference_epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.best, self.best_epoch = state["value"], state["epoch"]
        self._reference, self._reference_epoch = state["reference"], state["reference_epoch"]
