"""From probabilities to labels that score well in macro F1: temperature and one offset per class.

Two ways to choose them from the predictions for held-out images:

``prior``    calibrates the probabilities (a temperature and a bias per class with the least log
             loss, Alexandari et al. 2020, arXiv 1901.06852), then replaces the class frequencies
             of the validation images by those of the test (Saerens et al. 2002; as post-hoc logit
             adjustment, Menon et al. 2021, arXiv 2007.07314, equation 9, with tau 1).
``offsets``  starts there and moves one offset after the other to the best macro F1.

Either looks better on the images that it was fitted on than on others, so it is judged
cross-fitted, and as if these images had the class frequencies of the test.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax

from visionsweep.answer.cross_fit import cross_fitted, deal_folds, group_indices
from visionsweep.answer.difference import difference_interval
from visionsweep.answer.score import f1_macro, with_prior
from visionsweep.rundir.predictions import log_probabilities

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
DecisionMethod = Literal["prior", "offsets"]

_STEPS: Final = np.linspace(-2, 2, 21)  # moves of an offset, in nats
_PASSES: Final = 2  # over all classes


@dataclass(frozen=True)
class Decisions:
    """Labels are the argmax of ``log(probabilities) / temperature + offsets``."""

    method: DecisionMethod
    temperature: float
    offsets: tuple[float, ...]  # one per class

    def apply(self, probabilities: NDArray[np.floating]) -> Floats:
        """Return probabilities (N, K) with temperature and offsets."""
        logits = _logs(probabilities) / self.temperature + np.array(self.offsets)
        applied: Floats = softmax(logits, axis=1)
        return applied


@dataclass(frozen=True)
class Gain:
    """The macro F1 of decisions minus that of the plain argmax: cross-fitted, 95 % interval."""

    method: DecisionMethod
    plain: float  # macro F1 without decisions
    gain: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval lies above zero."""
        return self.low > 0


@dataclass(frozen=True)
class HeldOut:
    """What was predicted for N images of K classes that no member trained on."""

    probabilities: NDArray[np.floating]  # (N, K)
    targets: Indices  # (N,)
    groups: NDArray[np.str_] | None = None  # (N,)


def default_method(prior: Floats | None) -> DecisionMethod:
    """Return the method that `auto` judges.

    ``prior`` follows from theory and fits less, and did better wherever it applies (measured by
    benchmarks/decisions.py). For a test with the frequencies of training (None) it changes nothing.
    """
    return "offsets" if prior is None else "prior"


def fit(method: DecisionMethod, data: HeldOut, prior: Floats | None) -> Decisions:
    """Return the decisions for a test with the class shares ``prior`` (K,); None: as in `data`."""
    num_classes = data.probabilities.shape[1]
    logs = _logs(data.probabilities)
    temperature, bias = _calibrate(logs, data.targets)
    offsets = bias
    if prior is not None:
        counts = np.bincount(data.targets, minlength=num_classes) + 1.0  # no class has share 0
        offsets = bias + log_probabilities(prior) - np.log(counts / counts.sum())
    if method == "offsets":
        offsets = _climb(logs / temperature, offsets, data.targets, prior)
    return Decisions(method, temperature, tuple((offsets - offsets.mean()).tolist()))


def judge(method: DecisionMethod, data: HeldOut, prior: Floats | None) -> Gain:
    """Return the gain of a method on images that its decisions were not fitted to.

    The interval is a bootstrap over the images (over whole groups) with the cross-fitted labels.
    """
    group_of = group_indices(data.groups, len(data.targets))

    def decide(chosen_on: NDArray[np.bool_], held_out: NDArray[np.bool_]) -> Floats:
        part = HeldOut(data.probabilities[chosen_on], data.targets[chosen_on])
        return fit(method, part, prior).apply(data.probabilities[held_out])

    decided = cross_fitted(decide, deal_folds(data.targets, group_of)).argmax(axis=1)
    num_classes = data.probabilities.shape[1]
    plain = data.probabilities.argmax(axis=1)
    cells = [data.targets * num_classes + preds for preds in (plain, decided)]

    def scores(weights: Floats | None) -> list[float]:
        matrices = (
            np.bincount(cell, weights, num_classes**2).reshape(num_classes, num_classes)
            for cell in cells
        )
        return [f1_macro(with_prior(matrix.astype(np.float64), prior)) for matrix in matrices]

    def difference(weights: Floats) -> float:
        one, other = scores(weights)
        return other - one

    before, after = scores(None)
    low, high = difference_interval(difference, group_of)
    return Gain(method, before, after - before, low, high)


def choose(data: HeldOut, prior: Floats | None) -> tuple[Decisions | None, Gain]:
    """Return the decisions of the default method, None if their gain is not clear; and the gain."""
    gain = judge(default_method(prior), data, prior)
    return (fit(gain.method, data, prior) if gain.is_clear else None), gain


def _calibrate(logs: Floats, targets: Indices) -> tuple[float, Floats]:
    """Return temperature and bias (K,) with the least log loss of ``logs / temperature + bias``.

    A weak prior (a normal one with deviation 1 on each bias and on the log of the temperature)
    keeps them finite for classes of few images, or that are never mistaken.
    """
    num_images, num_classes = logs.shape
    rows = np.arange(num_images)

    def loss(params: Floats) -> tuple[float, Floats]:
        scale, bias = np.exp(-params[0]), params[1:]
        logits = logs * scale + bias
        log_sum = logsumexp(logits, axis=1)
        errors = np.exp(logits - log_sum[:, None])
        value = (log_sum - logits[rows, targets]).sum() + (params**2).sum() / 2
        errors[rows, targets] -= 1
        gradient = np.concatenate([[-scale * (errors * logs).sum()], errors.sum(axis=0)])
        return float(value) / num_images, (gradient + params) / num_images

    found = minimize(loss, np.zeros(num_classes + 1), jac=True, method="L-BFGS-B")
    return float(np.exp(found.x[0])), np.asarray(found.x[1:], dtype=np.float64)


def _climb(logits: Floats, offsets: Floats, targets: Indices, prior: Floats | None) -> Floats:
    """Return offsets (K,) that no move of a single one improves: macro F1 by coordinate ascent.

    Of equally good moves the smallest wins.
    """
    offsets = offsets.copy()
    num_classes = len(offsets)
    order = np.argsort(np.abs(_STEPS), kind="stable")
    for _ in range(_PASSES):
        before = offsets.copy()
        for k in range(num_classes):
            scores = logits + offsets
            own = scores[:, k].copy()
            scores[:, k] = -np.inf
            rivals = scores.argmax(axis=1)
            margins = scores.max(axis=1) - own  # class k wins if its offset grows by more
            values = []
            for step in _STEPS[order]:
                preds = np.where(step > margins, k, rivals)
                cells = np.bincount(targets * num_classes + preds, minlength=num_classes**2)
                matrix = cells.reshape(num_classes, num_classes).astype(np.float64)
                values.append(f1_macro(with_prior(matrix, prior)))
            offsets[k] += _STEPS[order][int(np.argmax(values))]
        if np.array_equal(before, offsets):
            break
    return offsets


def _logs(probabilities: NDArray[np.floating]) -> Floats:
    logs: Floats = log_softmax(log_probabilities(probabilities.astype(np.float64)), axis=1)
    return logs
