"""Hydra's override grammar for the search space: text to distribution and back.

hydra-optuna-sweeper makes the distributions; a comment gives the reason for each deviation.
Conditions are not known here.
"""

import functools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    Sweep,
)
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from visionsweep.errors import ConfigError
from visionsweep.sweep import _hydra
from visionsweep.text import first_line, param_text

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

_REFUSED = (
    HydraException,
    ValueError,
    TypeError,
    ArithmeticError,
    AssertionError,
    NotImplementedError,
)


def plain(mapping: Mapping[str, Any] | None, where: str) -> dict[str, Any]:
    """Return a YAML mapping as plain Python, with its interpolations resolved.

    Raises `ConfigError` that begins with `where`.
    """
    try:
        return {str(key): _plain_value(item) for key, item in (_plain_value(mapping) or {}).items()}
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {first_line(error)}") from error


def _plain_value(value: Any) -> Any:
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    return value


def text_of(value: Any, quote: Quote = Quote.single) -> str:
    """Return the right side of an override for a YAML value. Strings are in the grammar already.

    Those in lists and mappings get quotes, `quote` unless they would need an escape; upstream
    writes Python's repr.
    """
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_element(item, quote) for item in value) + "]"
    if isinstance(value, dict):
        items = (f"{key}:{_element(item, quote)}" for key, item in value.items())
        return "{" + ",".join(items) + "}"
    return param_text(value)  # upstream writes None, which a job reads as the string "None"


def _element(value: Any, quote: Quote) -> str:
    if not isinstance(value, str):
        return text_of(value, quote)
    mark, other = ("'", '"') if quote == Quote.single else ('"', "'")
    if mark in value and other not in value:
        quote = Quote.double if quote == Quote.single else Quote.single
    return QuotedString(value, quote).with_quotes()


@contextmanager
def _repeatable(text: str) -> Iterator[None]:
    """Seed `random` with `text`.

    Upstream's shuffle(...) draws a new order in each process, but a resumed sweep needs the same
    search space.
    """
    state = random.getstate()
    random.seed(text)
    try:
        yield
    finally:
        random.setstate(state)


def parse(text: str, config_loader: "ConfigLoader | None" = None) -> Override:
    """Return the parsed override. Raises `ConfigError` with Hydra's reason."""
    try:
        with _repeatable(text):
            override = OverridesParser.create(config_loader).parse_override(text)
    except _REFUSED as error:
        raise ConfigError(f"{text}: not a valid override: {first_line(error)}") from error
    override.config_loader = config_loader
    return override


def distribution_of(override: Override) -> BaseDistribution | str:
    """Return what a sweep override draws from, or the text of a plain value.

    Raises `ConfigError` if there is nothing to draw.
    """
    value, text = override.value(), str(override.input_line)
    if isinstance(value, Glob):
        return _globbed(override)  # upstream's parser has no config loader: AssertionError
    try:
        with _repeatable(text):
            found = _hydra.create_distribution(override)
    except _REFUSED as error:
        raise ConfigError(f"{text}: nothing to draw: {first_line(error)}") from error
    if isinstance(found, CategoricalDistribution) and isinstance(value, ChoiceSweep):
        unquoted = [item for item in value.list if isinstance(item, str)]
        return CategoricalDistribution(
            _distinct([_readable(item) if item in unquoted else item for item in found.choices])
        )
    if isinstance(found, FloatDistribution) and not (
        math.isfinite(found.low) and math.isfinite(found.high)
    ):
        raise ConfigError(f"{text}: an interval needs two finite ends")
    return found


def _distinct(choices: Sequence[Any]) -> list[Any]:
    """Return the choices, as text if Optuna would take two of them for one: 0 equals false."""
    texts = {param_text(choice) for choice in choices}
    return [param_text(c) for c in choices] if len(set(choices)) < len(texts) else list(choices)


def _globbed(override: Override) -> CategoricalDistribution:
    if override.config_loader is None:
        raise ConfigError(
            f"{override.input_line}: glob() needs the config groups of an app; "
            "list the choices instead"
        )
    names = list(override.sweep_iterator())
    if not names:
        raise ConfigError(
            f"{override.input_line}: no config of the group {override.key_or_group} matches"
        )
    return CategoricalDistribution([str(name) for name in names])


def _readable(unquoted: Any) -> str:
    r"""Return text that a job reads as `unquoted`.

    Upstream loses the escapes of `a\,b`, so that the job reads a sweep.
    """
    override = _read(unquoted)
    is_kept = override is not None and _hydra.raw_value(override) == unquoted
    return str(unquoted) if is_kept else _hydra.escaped(unquoted)


def one_choice(override: Override) -> CategoricalDistribution:
    """Return a plain value as the only choice of a distribution."""
    value = _hydra.raw_value(override)
    if isinstance(value, (bool, int, float)):
        return CategoricalDistribution([value])
    is_text = isinstance(value, str)
    return CategoricalDistribution([_readable(value) if is_text else _hydra.escaped(value)])


def quoted(value: str) -> str:
    """Return text that a job reads as `value`, which may have a meaning in the grammar."""
    return value if meaning(value) == value else QuotedString(value, Quote.single).with_quotes()


def elements(override: Override) -> list[Any] | None:
    """Return the values that an override lists, without quotes; None if it lists none."""
    if isinstance(override.value(), Glob):
        return None
    if not override.is_sweep_override():
        return [override.value()]
    if not override.is_discrete_sweep():
        return None
    return [meaning(text) for text in override.sweep_string_iterator()]


def meaning(value: Any) -> Any:
    """Return what a job reads for `value`: None for "null", 'a b' for "'a b'", 1 for "1"."""
    if not isinstance(value, str):
        return value
    override = _read(value)
    return value if override is None else override.value()


@functools.lru_cache(maxsize=4096)
def _read(text: str) -> Override | None:
    """Return the plain override `x=TEXT`, or None if a job could not read it."""
    try:
        override = OverridesParser.create().parse_override(f"x={text}")
    except HydraException:
        return None
    return None if override.is_sweep_override() else override


def same(left: Any, right: Any) -> bool:
    """Return whether two values mean the same to a job: 1 and 1.0 do, 1 and true do not."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def warning_of(override: Override, distribution: BaseDistribution) -> str | None:
    """Return a warning about an override that is legal but probably a mistake.

    That is a linear interval over several decades, or a log tag without effect.
    """
    value, key = override.value(), override.get_key_element()
    if not isinstance(distribution, (FloatDistribution, IntDistribution)):
        return None
    if not isinstance(value, IntervalSweep):
        if isinstance(value, Sweep) and "log" in value.tags:
            return f"{key}: tag(log, ...) has no effect on a range; use tag(log, interval(...))"
        return None
    low, high = distribution.low, distribution.high
    if distribution.log or low <= 0 or high / low <= 100 * (1 + 1e-9):
        return None
    above = (high - high / 10) / (high - low)
    written = f"interval({number(low)},{number(high)})"
    better = f"int({written})" if isinstance(distribution, IntDistribution) else written
    return (
        f"{key}: {better} is linear over {math.log10(high / low):.2g} decades: {above:.0%} of the "
        f"draws are above {number(high / 10)}; use tag(log, {better})"
    )


def number(value: float) -> str:
    """Return a number in as few digits as do not change it."""
    short = f"{value:g}"
    return short if isinstance(value, float) and float(short) == value else repr(value)
