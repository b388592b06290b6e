"""`decisions.json`: decisions that are kept with an ensemble, and the lines that speak of them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from visionsweep.answer.decisions import (
    Decisions,
    Gain,
    HeldOut,
    choose,
    fit,
    judge,
)
from visionsweep.errors import ConfigError, DataError
from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.layout import DECISIONS
from visionsweep.text import first_line

TestPrior = str | list[float]  # train, uniform, or shares in the order of the classes
Wanted = Literal["none", "auto", "prior", "offsets"]


@dataclass(frozen=True)
class StoredDecisions:
    """Decisions, the test that they are for, and what they are worth there."""

    decisions: Decisions
    test_prior: TestPrior
    gain: Gain

    @property
    def line(self) -> str:
        """What they do, for a person."""
        return (
            f"decisions={self.decisions.method} for {_test(self.test_prior)}: "
            f"{_gain_text(self.gain)}"
        )


def decide(
    wanted: Wanted, data: HeldOut, test_prior: TestPrior
) -> tuple[StoredDecisions | None, list[str]]:
    """Return the decisions that `wanted` asks for, if any, and the lines that say why.

    Raises `ConfigError` for a prior that does not fit the classes.
    """
    prior = shares(test_prior, data.probabilities.shape[1])
    if wanted == "none":
        return None, []
    if wanted == "auto":
        found, gain = choose(data, prior)
        if found is None:
            tried = f"of {gain.method} is not clear: {_gain_text(gain)}"
            return None, [f"decisions=auto for {_test(test_prior)}: none, since the gain {tried}"]
    elif wanted == "prior" and prior is None:
        raise ConfigError(
            "decisions=prior: changes nothing if the test has the class frequencies of training; "
            "set decisions.test_prior=uniform or a list of shares"
        )
    else:
        gain = judge(wanted, data, prior)
        found = fit(wanted, data, prior)
    stored = StoredDecisions(found, test_prior, gain)
    return stored, [stored.line]


def shares(test_prior: TestPrior, num_classes: int) -> NDArray[np.float64] | None:
    """Return the class shares (K,) of the test; None if they are those of training."""
    key = "decisions.test_prior"
    if test_prior == "train":
        return None
    if test_prior == "uniform":
        return np.full(num_classes, 1 / num_classes)
    if isinstance(test_prior, str):
        raise ConfigError(
            f"{key}: expected train, uniform or a list of {num_classes} shares in the order of the "
            f"classes, got '{test_prior}'"
        )
    values = np.array(test_prior, dtype=np.float64)
    if len(values) != num_classes:
        raise ConfigError(
            f"{key}: expected {num_classes} shares, one per class in their order, got {len(values)}"
        )
    if not (np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
        raise ConfigError(
            f"{key}: expected shares of at least 0, not all of them 0, got {test_prior}"
        )
    normalized: NDArray[np.float64] = values / values.sum()
    return normalized


def parse_test_prior(text: str) -> TestPrior:
    """Return `train`, `uniform` or the numbers in `[0.2,0.8]`. Raises `ConfigError`."""
    if text in ("train", "uniform"):
        return text
    try:
        if not (text.startswith("[") and text.endswith("]")):
            raise ValueError
        return [float(item) for item in text[1:-1].split(",")]
    except ValueError:
        raise ConfigError(
            f"decisions.test_prior: expected train, uniform or shares such as [0.2,0.8], "
            f"got '{text}'"
        ) from None


def write_decisions(run_dir: Path, stored: StoredDecisions) -> None:
    """Write `decisions.json` atomically."""
    write_text(run_dir / DECISIONS, json.dumps(asdict(stored), indent=2) + "\n")


def read_decisions(run_dir: Path, num_classes: int) -> StoredDecisions | None:
    """Return the decisions of a run; None if it has none. Raises `DataError` if damaged."""
    path = run_dir / DECISIONS
    if not path.is_file():
        return None
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        plain = contents["decisions"]
        offsets = tuple(map(float, plain["offsets"]))
        found = Decisions(plain["method"], float(plain["temperature"]), offsets)
        values = [*offsets, found.temperature]
        if len(offsets) != num_classes or not np.isfinite(values).all() or found.temperature <= 0:
            raise ValueError(f"expected {num_classes} offsets and a temperature above 0")
        return StoredDecisions(found, contents["test_prior"], Gain(**contents["gain"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read {path} ({first_line(error)}); set decisions=none, or make the ensemble "
            "again"
        ) from error


def _test(test_prior: TestPrior) -> str:
    if test_prior == "train":
        return "a test distributed like training"
    if test_prior == "uniform":
        return "a test of equally frequent classes"
    return "a test of the given class shares"


def _gain_text(gain: Gain) -> str:
    return (
        f"macro F1 {gain.gain:+.4f} cross-fitted (95 %: {gain.low:+.4f} to "
        f"{gain.high:+.4f}) over {gain.plain:.4f}"
    )
