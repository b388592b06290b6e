"""Trial records for tests."""

from typing import Any

from visionsweep.sweep.record import TrialRecord


def record(number: int, *values: float, state: Any = "complete", **more: Any) -> TrialRecord:
    given = {"params": {}, "start": None, "end": None, "epochs": None, "directory": str(number)}
    return TrialRecord(number, state, values or None, **(given | more))  # type: ignore[arg-type]
