"""A comparison in plain words: one sentence per question, and the table above them."""

import math
from collections.abc import Sequence

from visionsweep.answer.compare import LEVEL, Comparison, Difference
from visionsweep.answer.interval import Estimate
from visionsweep.answer.selection import CorrectedWinner
from visionsweep.text import counted, shortened

MORE_SEEDS = "hydra.sweeper.seeds"
_STEPS = (1, 2, 3, 5, 10, 20, 50)  # more seeds to suggest
_ROWS = 20
MANY = 10  # with more differences, one sentence tells of all
_WIDTH = 60


def sentences(comparison: Comparison) -> list[str]:
    """Return one sentence per difference; with a single configuration, one on its value."""
    scale = Scale(comparison.metric)
    if len(comparison.differences) > MANY:
        return [_of_many(comparison, scale)]
    if comparison.differences:
        return [_sentence(d, comparison, scale) for d in comparison.differences]
    (arm,) = comparison.arms
    low, high = scale.within(arm.mean.interval())
    seeds = "" if arm.mean.num_seeds > 1 else ", of images alone: one seed says nothing of others"
    return [
        f"one configuration, nothing to compare: {comparison.metric} "
        f"{scale.text(arm.mean.value)} (95 %: {scale.text(low)} to {scale.text(high)}{seeds})"
    ]


class Scale:
    """How values of a metric are written: fractions in points of 100, a loss as it is."""

    def __init__(self, metric: str) -> None:
        self.is_share = metric.removeprefix("val/") != "loss"
        self.unit = "points" if self.is_share else ""

    def text(self, value: float, sign: str = "") -> str:
        """Return the number."""
        return f"{100 * value:{sign}.1f}" if self.is_share else f"{value:{sign}.4f}"

    def within(self, interval: tuple[float, float]) -> tuple[float, float]:
        """Return an interval of a value without what cannot be: shares below 0 or above 1."""
        low, high = interval
        return (max(low, 0.0), min(high, 1.0)) if self.is_share else (low, high)

    def difference_within(self, interval: tuple[float, float]) -> tuple[float, float]:
        """Return an interval of a difference; two shares differ by at most 1."""
        low, high = interval
        return (max(low, -1.0), min(high, 1.0)) if self.is_share else (low, high)

    def difference(self, value: float, sign: str = "") -> str:
        """Return a difference; a small one with a digit more, so that it does not read as 0."""
        if self.is_share and 0 < abs(value) < 0.001:
            return f"{100 * value:{sign}.2f}"
        return self.text(value, sign)

    def size(self, value: float) -> str:
        """Return a difference with its unit."""
        return f"{self.difference(value)} {self.unit}".strip()


def _sentence(difference: Difference, comparison: Comparison, scale: Scale) -> str:
    low, high = scale.difference_within(difference.interval)
    names = difference.first, difference.second
    estimate = difference.estimate
    if difference.verdict == "different" and high < 0:
        names, low, high = names[::-1], -high, -low
    size = scale.size(abs(estimate.value))
    together = (
        f" for all {comparison.num_comparisons} comparisons together"
        if comparison.num_comparisons > 1
        else ""
    )
    interval = f"95 %{together}: {scale.difference(low)} to {scale.difference(high)}"
    if difference.verdict == "equivalent":
        return (
            f"{names[0]} and {names[1]} differ by less than the {scale.size(difference.smallest)} "
            f"that matter: {scale.text(estimate.value, '+')} ({interval}; {_basis(difference)})"
        )
    if difference.verdict == "unclear" and (low > 0 or high < 0):
        alone = estimate.half_width_of_images(difference.level)
        return (
            f"cannot tell {names[0]} from {names[1]}: {scale.text(estimate.value, '+')}; the "
            f"{counted(estimate.num_seeds, 'seed')} agree ({interval}), but on "
            f"{counted(difference.num_images, 'image')} a difference under {scale.size(alone)} is "
            "invisible however many seeds agree"
        )
    if difference.num_pairs is None and _is_blind(difference, scale):
        return (
            f"cannot tell {names[0]} from {names[1]}: {scale.text(estimate.value, '+')}, but no "
            "difference is visible with so few runs in different settings; run both with the same "
            "settings and seeds, or confirm the sweep"
        )
    if difference.verdict == "unclear":
        return (
            f"cannot tell {names[0]} from {names[1]}: {scale.text(estimate.value, '+')} "
            f"({interval}); {_invisible(difference, scale)}"
        )
    chance = max(estimate.probability_positive(), 1 - estimate.probability_positive())
    if not difference.covers_seeds:
        return (
            f"this run of {names[0]} beats this run of {names[1]} by {size} of "
            f"{comparison.metric} ({interval}; {_basis(difference)}), but one seed says nothing of "
            f"others: repeat both with more seeds, e.g. {MORE_SEEDS}=5"
        )
    matters = ""
    if difference.smallest > 0 and low < difference.smallest:
        matters = f"; whether by the {scale.size(difference.smallest)} that matter is open"
    return (
        f"{names[0]} beats {names[1]} by {size} of {comparison.metric} ({interval}; probability "
        f"{percent(chance)}; {_basis(difference)}){matters}"
    )


def _of_many(comparison: Comparison, scale: Scale) -> str:
    """Return what the best configuration can be told from, when it is compared with many."""
    best = comparison.arms[0].name
    clear = [d for d in comparison.differences if d.verdict == "different" and d.interval[0] > 0]
    rest = len(comparison.differences) - len(clear)
    told = f"beats {len(clear)} of the {len(comparison.differences)} others"
    text = f"{shortened(best, _WIDTH)} {told} (95 % for all comparisons together)"
    if not comparison.differences[0].covers_seeds:
        text = f"this run of {text}"
    if not rest:
        return text
    nearest = next(d for d in comparison.differences if d not in clear)
    return (
        f"{text} and cannot be told from {rest}, such as {shortened(nearest.second, _WIDTH)}: "
        f"{_invisible(nearest, scale)}"
    )


def winner_sentence(winner: CorrectedWinner) -> str:
    """Return how good the best of several trials is on other images than those that chose it."""
    scale = Scale(winner.metric)
    low, high = scale.within(winner.interval)
    runs = " with all seeds" if winner.num_others else ""
    epochs = "" if winner.includes_epochs else "; the choice of the epoch is not in this estimate"
    if winner.num_others:
        all_trials = winner.num_trials + winner.num_others
        epochs += f"; the choice of these among {all_trials} by fewer seeds is not in it"
    return (
        f"on new images expect {winner.metric} {scale.text(winner.corrected)} (95 %: "
        f"{scale.text(low)} to {scale.text(high)}): {scale.text(winner.raw)} is the best of "
        f"{counted(winner.num_trials, 'trial')}{runs} on the "
        f"{counted(winner.num_images, 'image')} that chose it{epochs}"
    )


def _is_blind(difference: Difference, scale: Scale) -> bool:
    """Return whether the interval holds every difference that two shares can have."""
    return scale.is_share and difference.estimate.half_width(difference.level) >= 1


def _basis(difference: Difference) -> str:
    seeds = difference.estimate.num_seeds
    runs = counted(difference.num_pairs, "pair") if difference.num_pairs else "runs not paired"
    if difference.num_pairs and seeds == 1:
        runs = "one seed each"
    return f"{runs}, {counted(difference.num_images, 'image')}"


def _invisible(difference: Difference, scale: Scale) -> str:
    """Return which differences cannot be seen, and what more seeds would show."""
    estimate, level = difference.estimate, difference.level
    half = estimate.half_width(level)
    images = counted(difference.num_images, "image")
    text = f"a difference under {scale.size(half)} is invisible with these {images}"
    if _is_blind(difference, scale):
        text = f"no difference is visible with these {images}"
    if estimate.num_seeds < 2:
        return (
            f"{text}, and one seed hides the noise between seeds; repeat both with more seeds, "
            f"e.g. {MORE_SEEDS}=5"
        )
    noun = "run" if difference.num_pairs is None else "seed"
    text += f" and {counted(estimate.num_seeds, noun)}" if noun == "seed" else " and so few runs"
    more, visible = _more_seeds(estimate, half, difference)
    if visible > 0.8 * half:
        return f"{text}; more seeds would hardly help, more validation images or folds would"
    return f"{text}; {more} more {noun}{'s' if more > 1 else ''} would show {scale.size(visible)}"


def _more_seeds(estimate: Estimate, half: float, difference: Difference) -> tuple[int, float]:
    """Return the fewest seeds more that show what matters (or half of it), and what they show."""
    wanted = difference.smallest or half / 2
    more, visible = 0, math.inf
    for more in _STEPS:
        visible = estimate.half_width_with(estimate.num_seeds + more, difference.level)
        if visible <= wanted:
            break
    return more, visible


def percent(share: float) -> str:
    """Return a probability that never reads as certainty."""
    return f"{100 * share:.1f} %" if share < 0.999 else "over 99.9 %"


def table(comparison: Comparison) -> list[str]:
    """Return the sides with mean, interval and spread, then the differences, as aligned lines."""
    scale = Scale(comparison.metric)
    what = " ".join(comparison.factors) or "configuration"
    rows = [[shortened(what, _WIDTH), comparison.metric, "95 %", "seed std", "runs", "images"]]
    for arm in comparison.arms[:_ROWS]:
        low, high = scale.within(arm.mean.interval(LEVEL))
        rows.append(
            [
                shortened(arm.name, _WIDTH),
                scale.text(arm.mean.value),
                f"{scale.text(low)} to {scale.text(high)}",
                "-" if arm.spread is None else scale.text(arm.spread),
                str(arm.num_runs),
                f"{arm.num_images:,}",
            ]
        )
    lines = aligned(rows) + _left_out(len(comparison.arms))
    if not comparison.differences:
        return lines
    rows = [["difference", scale.unit or "value", "95 % together", "first better", "pairs"]]
    for d in comparison.differences[:_ROWS]:
        low, high = scale.difference_within(d.interval)
        interval = f"{scale.difference(low, '+')} to {scale.difference(high, '+')}"
        rows.append(
            [
                f"{shortened(d.first, _WIDTH // 2)} - {shortened(d.second, _WIDTH // 2)}",
                scale.text(d.estimate.value, "+"),
                "-" if _is_blind(d, scale) else interval,
                percent(d.estimate.probability_positive()),
                "-" if d.num_pairs is None else str(d.num_pairs),
            ]
        )
    return [*lines, "", *aligned(rows), *_left_out(len(comparison.differences))]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *padded]).rstrip())
    return lines


def _left_out(number: int) -> list[str]:
    return [f"... and {number - _ROWS} more: json=FILE has all"] if number > _ROWS else []
