"""The weights of an ensemble's members, chosen by what they predict for held-out images.

``greedy`` is ensemble selection with replacement (Caruana et al., ICML 2004, section 2): add the
member that helps the mean prediction most, again and again, and keep the best of these ensembles.
``weights`` are the convex weights with the least log loss. Members are probabilities, and an
ensemble is their weighted mean.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from visionsweep.answer.cross_fit import cross_fitted, deal_folds, group_indices
from visionsweep.answer.difference import difference_interval
from visionsweep.answer.score import Metric, cost, score, scorer

Method = Literal["greedy", "weights", "uniform"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

ROUNDS: Final = 50  # members that greedy selection adds
_GAP: Final = 1e-6  # nats by which the convex weights may miss the least log loss
_MAX_ITERATIONS: Final = 20_000
_SMALLEST: Final = 1e-3  # a weight that is worth a network's time


def choose_weights(
    method: Method, metric: Metric, probabilities: NDArray[np.floating], targets: Indices
) -> Floats:
    """Return the weights (M,) of the members, which add up to 1.

    ``probabilities``: (M, N, K) of each member, ``targets``: (N,).
    """
    num_members = len(probabilities)
    if method == "uniform" or num_members == 1:
        return np.full(num_members, 1 / num_members)
    if method == "weights":
        return convex_weights(probabilities, targets)
    return greedy_weights(metric, probabilities, targets)


def greedy_weights(
    metric: Metric,
    probabilities: NDArray[np.floating],
    targets: Indices,
    rounds: int = ROUNDS,
) -> Floats:
    """Return the shares (M,) of the members in the best ensemble of up to ``rounds`` members.

    Of equally good ones the smaller ensemble and the earlier member win.
    """
    total = np.zeros(probabilities.shape[1:])
    counts = np.zeros(len(probabilities), dtype=np.int64)
    best_cost, best = np.inf, counts
    for size in range(1, rounds + 1):
        costs = [cost(metric, (total + member) / size, targets) for member in probabilities]
        chosen = int(np.argmin(costs))
        total += probabilities[chosen]
        counts[chosen] += 1
        if costs[chosen] < best_cost:
            best_cost, best = costs[chosen], counts.copy()
    shares: Floats = best / best.sum()
    return shares


def convex_weights(probabilities: NDArray[np.floating], targets: Indices) -> Floats:
    """Return the weights (M,) on the simplex with the least log loss.

    By expectation-maximization for the weights of a mixture (Dempster et al. 1977, section 4.3):
    the problem is convex, and each step lowers the loss. With g the gradient of the log likelihood
    per image, the loss is at most max(g) - 1 above the least one, which says when to stop.
    """
    # (M, N) what each member gives the true class
    given = probabilities[:, np.arange(len(targets)), targets].astype(np.float64)
    given = np.maximum(given, np.finfo(np.float32).tiny)
    weights = np.full(len(given), 1 / len(given))
    for _ in range(_MAX_ITERATIONS):
        gradient = (given / (weights @ given)).mean(axis=1)
        if gradient.max() - 1 < _GAP:
            break
        weights = weights * gradient
    weights[weights < _SMALLEST] = 0
    total: Floats = weights / weights.sum()
    return total


def mix(weights: Floats, probabilities: NDArray[np.floating]) -> Floats:
    """Return the weighted mean (N, K) of the members' probabilities (M, N, K)."""
    mixed: Floats = np.tensordot(weights, probabilities, axes=1)
    return mixed


@dataclass(frozen=True)
class Choice:
    """An ensemble, and what it is worth on images that it was not chosen on."""

    weights: Floats  # (M,)
    predicted: Floats  # (N, K) cross-fitted probabilities
    score: float  # of these
    raw_score: float  # on the images that the weights were chosen on
    best: int  # the best single member
    best_score: float  # of choosing a single member, cross-fitted
    best_raw_score: float  # of the best single member on the images that it was chosen on
    gain: float  # score over best_score; positive is better
    low: float  # 95 % interval of the gain
    high: float

    @property
    def used(self) -> list[int]:
        """The members with a weight, the heaviest first."""
        order = np.argsort(-self.weights, kind="stable")
        return [int(index) for index in order if self.weights[index] > 0]


def choose_ensemble(
    method: Method,
    metric: Metric,
    probabilities: NDArray[np.floating],
    targets: Indices,
    groups: NDArray[np.str_] | None = None,
) -> Choice:
    """Return the ensemble of the members, and the best single one beside it, judged alike.

    ``probabilities``: (M, N, K), ``targets`` and ``groups``: (N,).
    """
    group_of = group_indices(groups, len(targets))
    fold_of = deal_folds(targets, group_of)

    def best_on(rows: NDArray[np.bool_]) -> int:
        costs = [cost(metric, member[rows], targets[rows]) for member in probabilities]
        return int(np.argmin(costs))

    def ensemble(chosen_on: NDArray[np.bool_], held_out: NDArray[np.bool_]) -> Floats:
        chosen = choose_weights(method, metric, probabilities[:, chosen_on], targets[chosen_on])
        return mix(chosen, probabilities[:, held_out])

    def single(chosen_on: NDArray[np.bool_], held_out: NDArray[np.bool_]) -> Floats:
        chosen: Floats = probabilities[best_on(chosen_on), held_out].astype(np.float64)
        return chosen

    everything = np.ones(len(targets), dtype=np.bool_)
    weights = choose_weights(method, metric, probabilities, targets)
    best = best_on(everything)
    predicted, predicted_by_best = cross_fitted(ensemble, fold_of), cross_fitted(single, fold_of)
    ours, theirs = (scorer(metric, p, targets) for p in (predicted, predicted_by_best))
    sign = -1 if metric == "log_loss" else 1

    def gain(counts: Floats | None) -> float:
        return sign * (ours(counts) - theirs(counts))

    low, high = difference_interval(gain, group_of)
    return Choice(
        weights,
        predicted,
        score=ours(None),
        raw_score=score(metric, mix(weights, probabilities), targets),
        best=best,
        best_score=theirs(None),
        best_raw_score=score(metric, probabilities[best], targets),
        gain=gain(None),
        low=low,
        high=high,
    )
