"""One dimension of a search space: a distribution and the conditions under which it is active."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from visionsweep.sweep.space import grammar, zip_names
from visionsweep.text import did_you_mean

MAX_CHOICES = 20  # of a range with more values, only the ends are tried before trial 0


@dataclass(frozen=True)
class Condition:
    """Holds if the value of `key`, as text, is one of `values`."""

    key: str  # a dimension's
    values: tuple[str, ...]
    text: str | None = None  # as it is shown; None: `key=value,value`

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Return whether `params` has `key` with one of the values."""
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
        return self.text or f"{self.key}={','.join(self.values)}"


@dataclass(frozen=True)
class Dimension:
    """A searched parameter: drawn from `distribution` if all conditions hold."""

    key: str  # of the config, or the name of a zip
    distribution: BaseDistribution
    when: tuple[Condition, ...] = ()
    warning: str | None = field(default=None, compare=False)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the config that it sets: several for a zip."""
        return zip_names.keys_of(self.key)

    @property
    def is_zip(self) -> bool:
        """Whether it sets several keys."""
        return zip_names.is_zip(self.key)

    def is_active(self, params: Mapping[str, Any]) -> bool:
        """Return whether all conditions hold for the active `params` of earlier dimensions."""
        return all(condition.holds(params) for condition in self.when)

    def __str__(self) -> str:
        text = describe(self.distribution)
        return f"{text}   when {' and '.join(map(str, self.when))}" if self.when else text


def values(distribution: BaseDistribution) -> Sequence[Any] | None:
    """Return the distinct values of a discrete distribution in order; None if continuous."""
    if isinstance(distribution, CategoricalDistribution):
        # By the text that a job gets: Python holds 1 and True for equal.
        return list({str(choice): choice for choice in distribution.choices}.values())
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        low, step = Decimal(str(distribution.low)), Decimal(str(distribution.step))
        steps = round((Decimal(str(distribution.high)) - low) / step)
        return [float(low + index * step) for index in range(steps + 1)]
    return None


def choices(distribution: BaseDistribution) -> list[Any]:
    """Return the values to try before trial 0: all, or the ends of a long or continuous range."""
    found = values(distribution)
    is_long = found is None or len(found) > MAX_CHOICES
    if is_long and isinstance(distribution, (FloatDistribution, IntDistribution)):
        return list(dict.fromkeys((distribution.low, distribution.high)))
    return list(found or ())


def convert(distribution: BaseDistribution, value: Any) -> Any:
    """Return a value from YAML as the distribution's own. Raises ValueError: what is expected."""
    if isinstance(distribution, CategoricalDistribution):
        return _choice(distribution.choices, value)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    found = _as_number(value)
    is_inside = found is not None and distribution.low <= found <= distribution.high  # NaN is not
    if found is None or not is_inside or not _on_a_step(distribution, found):
        raise ValueError(f"expected {describe(distribution)}")
    return found if isinstance(distribution, FloatDistribution) else int(found)


def nearest(distribution: BaseDistribution, value: Any) -> Any:
    """Return the value of the distribution that is nearest to `value`; None if there is none.

    Only `value` itself is near enough for a choice, and any number for a range.
    """
    if isinstance(distribution, CategoricalDistribution):
        try:
            return _choice(distribution.choices, value)
        except ValueError:
            return None
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    number = _as_number(value)
    if number is None or math.isnan(number):
        return None
    inside = min(max(number, distribution.low), distribution.high)
    if distribution.step is not None:
        steps = round((inside - distribution.low) / distribution.step)
        inside = distribution.low + steps * distribution.step
    return convert(distribution, inside)


def _as_number(value: Any) -> float | None:
    try:
        # float() also of a string: YAML reads 1e-4 as one.
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _on_a_step(distribution: FloatDistribution | IntDistribution, value: float) -> bool:
    if distribution.step is None:
        return True
    steps = (value - distribution.low) / distribution.step
    return abs(steps - round(steps)) < 1e-8  # Optuna's own tolerance


def _choice(available: Sequence[Any], value: Any) -> Any:
    """Return the choice that is `value`, else means the same to a job, else is written the same."""
    tests = (
        lambda choice: type(choice) is type(value) and choice == value,
        lambda choice: (
            type(grammar.meaning(choice)) is type(value) and grammar.meaning(choice) == value
        ),
        lambda choice: grammar.same(grammar.meaning(choice), value),
        lambda choice: grammar.same(grammar.meaning(choice), grammar.meaning(value)),
        lambda choice: (
            grammar.text_of(value) in map(grammar.text_of, (choice, grammar.meaning(choice)))
        ),
    )
    for test in tests:
        for choice in available:
            if test(choice):
                return choice
    written = [str(choice) for choice in available]
    raise ValueError(f"expected one of {', '.join(written)}{did_you_mean(str(value), written)}")


def describe(distribution: BaseDistribution) -> str:
    """Return a distribution for people: `log 0.0001 .. 0.1`, `focal | f1`, `1 .. 9, integers`."""
    if isinstance(distribution, CategoricalDistribution):
        return " | ".join(str(choice) for choice in distribution.choices)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = grammar.number(distribution.low), grammar.number(distribution.high)
    text = f"log {low} .. {high}" if distribution.log else f"{low} .. {high}"
    if isinstance(distribution, IntDistribution) and distribution.step == 1:
        return f"{text}, integers"
    if distribution.step is None:
        return text
    return f"{text} in steps of {grammar.number(distribution.step)}"


def fingerprint(distribution: BaseDistribution) -> dict[str, Any]:
    """Return a distribution as plain YAML, equal for equal distributions."""
    if isinstance(distribution, CategoricalDistribution):
        # NaN is not equal to itself.
        return {"choices": ["nan" if item != item else item for item in distribution.choices]}
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    return {
        "type": "int" if isinstance(distribution, IntDistribution) else "float",
        "low": distribution.low,
        "high": distribution.high,
        "log": distribution.log,
        "step": distribution.step,
    }
