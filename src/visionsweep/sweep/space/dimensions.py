"""One dimension of a search space: its values, when it is active, how it is described and compared."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from visionsweep.sweep.space import grammar

MAX_CHOICES = 20  # a discrete range with more values is represented by its ends


@dataclass(frozen=True)
class Condition:
    """Holds where the chosen value of `key`, as text, is one of `values`."""

    key: str
    values: tuple[str, ...]

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Return whether `params` gives `key` one of the values; False where it does not give it at all."""
        return self.key in params and self.allows(params[self.key])

    def allows(self, value: Any) -> bool:
        """Return whether `value` is one of the values."""
        if str(value) in self.values:
            return True
        # A float range draws 0.30000000000000004 for 0.3.
        return isinstance(value, float) and any(
            math.isclose(value, float(text), rel_tol=1e-9, abs_tol=1e-12)
            for text in self.values
            if _as_number(text) is not None
        )

    def __str__(self) -> str:
        return f"{self.key}={','.join(self.values)}"


@dataclass(frozen=True)
class Dimension:
    """A parameter that the sweep chooses: from `distribution`, where all conditions hold."""

    key: str
    distribution: BaseDistribution
    when: tuple[Condition, ...] = ()
    warning: str | None = field(default=None, compare=False)  # a doubt about how it was written

    def is_active(self, params: Mapping[str, Any]) -> bool:
        """Return whether the conditions hold for the (active) `params` before it."""
        return all(condition.holds(params) for condition in self.when)

    def __str__(self) -> str:
        text = describe(self.distribution)
        return f"{text}   when {' and '.join(map(str, self.when))}" if self.when else text


def values(distribution: BaseDistribution) -> Sequence[Any] | None:
    """Return the distinct values of a discrete distribution in order, None for a continuous one."""
    if isinstance(distribution, CategoricalDistribution):
        # By what a job is given: 1 and true are equal to Python.
        return list({str(choice): choice for choice in distribution.choices}.values())
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        low, step = Decimal(str(distribution.low)), Decimal(str(distribution.step))
        steps = round((Decimal(str(distribution.high)) - low) / step)
        return [float(low + index * step) for index in range(steps + 1)]
    return None


def choices(distribution: BaseDistribution) -> list[Any]:
    """Return the values worth a look: all of a categorical and of a short range, the ends of anything else."""
    found = values(distribution)
    if found is not None and (
        isinstance(distribution, CategoricalDistribution) or len(found) <= MAX_CHOICES
    ):
        return list(found)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    return (
        [distribution.low]
        if distribution.low == distribution.high
        else [distribution.low, distribution.high]
    )


def convert(distribution: BaseDistribution, value: Any) -> Any:
    """Return a value given in YAML as the distribution's own; ValueError that says what was expected."""
    if isinstance(distribution, CategoricalDistribution):
        return _choice(distribution.choices, value)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    found = _as_number(value)
    # NaN fails the comparison.
    if (
        found is None
        or not distribution.low <= found <= distribution.high
        or not _on_a_step(distribution, found)
    ):
        raise ValueError(f"expected {describe(distribution)}")
    return found if isinstance(distribution, FloatDistribution) else int(found)


def _as_number(value: Any) -> float | None:
    try:
        return (
            None if isinstance(value, bool) else float(value)
        )  # a string too: YAML reads 1e-4 as one
    except (TypeError, ValueError):
        return None


def _on_a_step(distribution: FloatDistribution | IntDistribution, value: float) -> bool:
    if distribution.step is None:
        return True
    steps = (value - distribution.low) / distribution.step
    return abs(steps - round(steps)) < 1e-8  # Optuna's own tolerance


def _choice(available: Sequence[Any], value: Any) -> Any:
    """Return the choice that is `value`, or means the same to a job, or is written the same, in this order."""
    tests = (
        lambda choice: type(choice) is type(value) and choice == value,
        lambda choice: grammar.same(grammar.meaning(choice), value),
        lambda choice: grammar.same(grammar.meaning(choice), grammar.meaning(value)),
        lambda choice: (
            grammar.text_of(value)
            in (grammar.text_of(choice), grammar.text_of(grammar.meaning(choice)))
        ),
    )
    for test in tests:
        for choice in available:
            if test(choice):
                return choice
    written = [str(choice) for choice in available]
    raise ValueError(f"expected one of {', '.join(written)}" + nearest(str(value), written))


def nearest(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the name that resembles `name` most, or nothing."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""


def describe(distribution: BaseDistribution) -> str:
    """Return a distribution in a few words: `log 0.0001 .. 0.1`, `focal | f1`, `1 .. 9 in steps of 2`."""
    if isinstance(distribution, CategoricalDistribution):
        return " | ".join(str(choice) for choice in distribution.choices)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = grammar.number(distribution.low), grammar.number(distribution.high)
    text = f"log {low} .. {high}" if distribution.log else f"{low} .. {high}"
    if isinstance(distribution, IntDistribution) and distribution.step == 1:
        return f"{text}, integers"
    return (
        f"{text} in steps of {grammar.number(distribution.step)}"
        if distribution.step is not None
        else text
    )


def fingerprint(distribution: BaseDistribution) -> dict[str, Any]:
    """Return a distribution as plain YAML that is equal where the distribution is."""
    if isinstance(distribution, CategoricalDistribution):
        # NaN is not equal to itself.
        return {
            "choices": ["nan" if choice != choice else choice for choice in distribution.choices]
        }
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    return {
        "type": "int" if isinstance(distribution, IntDistribution) else "float",
        "low": distribution.low,
        "high": distribution.high,
        "log": distribution.log,
        "step": distribution.step,
    }
