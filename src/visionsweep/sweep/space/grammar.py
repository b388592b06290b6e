"""Hydra's override grammar, as the search space uses it: text to distribution and back. Knows nothing of conditions.

The conversion to Optuna distributions is hydra-optuna-sweeper's own; each deviation is one line, with its reason.
"""

import functools
import math
import random
from collections.abc import Mapping
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
from visionsweep.text import first_line

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
    """Return a YAML mapping as plain Python, with its interpolations resolved; ConfigError where that fails."""
    try:
        return {
            str(key): _plain_value(value) for key, value in (_plain_value(mapping) or {}).items()
        }
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {first_line(error)}") from error


def _plain_value(value: Any) -> Any:
    return (
        OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
        if OmegaConf.is_config(value)
        else value
    )


def text_of(value: Any) -> str:
    """Return the right side of an override for a YAML value; a string is taken as written in the grammar."""
    if value is None:
        return "null"  # upstream writes None, which is the string "None" to a job
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_element(item) for item in value) + "]"
    return str(value)


def _element(value: Any) -> str:
    if isinstance(value, str):
        # As upstream, which writes Python's repr: single quotes where they need no escape.
        return QuotedString(
            value, Quote.double if "'" in value and '"' not in value else Quote.single
        ).with_quotes()
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_element(item)}" for key, item in value.items()) + "}"
    return text_of(value)


def parse(text: str, config_loader: "ConfigLoader | None" = None) -> Override:
    """Return the parsed override; ConfigError with Hydra's reason where it is not one."""
    # Upstream's shuffle(...) differs from start to start, and a sweep taken up again must meet the same space.
    state = random.getstate()
    random.seed(text)
    try:
        override = OverridesParser.create(config_loader).parse_override(text)
    except _REFUSED as error:
        raise ConfigError(
            f"{text}: not an override that Hydra understands: {first_line(error)}"
        ) from error
    finally:
        random.setstate(state)
    override.config_loader = config_loader
    return override


def distribution_of(override: Override) -> BaseDistribution | str:
    """Return what a sweep override draws from, or the text of a plain value; ConfigError where nothing can be drawn."""
    from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override

    value = override.value()
    if isinstance(value, Glob):
        return _globbed(
            override
        )  # upstream fails with an AssertionError: its parser has no config loader
    state = random.getstate()
    random.seed(override.input_line)
    try:
        found = create_optuna_distribution_from_override(override)
    except _REFUSED as error:
        raise ConfigError(f"{override.input_line}: nothing to draw: {first_line(error)}") from error
    finally:
        random.setstate(state)
    if isinstance(found, CategoricalDistribution) and isinstance(value, ChoiceSweep):
        unquoted = [item for item in value.list if isinstance(item, str)]
        return CategoricalDistribution(
            [_readable(item) if item in unquoted else item for item in found.choices]
        )
    if isinstance(found, FloatDistribution) and not (
        math.isfinite(found.low) and math.isfinite(found.high)
    ):
        raise ConfigError(f"{override.input_line}: an interval needs two finite ends")
    assert isinstance(found, (BaseDistribution, str))
    return found


def _globbed(override: Override) -> CategoricalDistribution:
    if override.config_loader is None:
        raise ConfigError(
            f"{override.input_line}: glob() needs the config groups of an app; name the choices instead"
        )
    names = list(override.sweep_iterator())
    if not names:
        raise ConfigError(
            f"{override.input_line}: no config of the group {override.key_or_group} matches"
        )
    return CategoricalDistribution([str(name) for name in names])


def _readable(unquoted: Any) -> str:
    r"""Return text that is read back as `unquoted`: upstream loses the escapes of `a\,b`, and the job reads a sweep."""
    override = _read(unquoted)
    is_kept = override is not None and override._value == unquoted
    escaped = Override._get_value_element_as_str(unquoted)
    return str(unquoted) if is_kept or escaped == unquoted else escaped


def one_choice(override: Override) -> CategoricalDistribution:
    """Return a plain value as the only choice of a distribution, encoded as a choice of several would be."""
    value = override._value
    if isinstance(value, (bool, int, float)):
        return CategoricalDistribution([value])
    return CategoricalDistribution(
        [_readable(value) if isinstance(value, str) else override.get_value_element_as_str()]
    )


def elements(override: Override) -> list[Any] | None:
    """Return the values that an override names, quotes removed; None for what cannot be listed."""
    if isinstance(override.value(), Glob) or (
        override.is_sweep_override() and not override.is_discrete_sweep()
    ):
        return None
    if not override.is_sweep_override():
        return [override.value()]
    return [Override._convert_value(value) for value in override.sweep_iterator()]


def meaning(value: Any) -> Any:
    """Return what a job reads where `value` is written: None for "null", 'a b' for "'a b'", 1 for "1"."""
    if not isinstance(value, str):
        return value
    override = _read(value)
    return value if override is None else override.value()


@functools.lru_cache(maxsize=4096)
def _read(text: str) -> Override | None:
    """Return the plain override `x=TEXT`, or None where a job could not read it."""
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
    """Return a doubt about a sweep override: a linear interval over decades, a log tag that changes nothing."""
    value, key = override.value(), override.get_key_element()
    if not isinstance(distribution, (FloatDistribution, IntDistribution)):
        return None
    if not isinstance(value, IntervalSweep):
        if isinstance(value, Sweep) and "log" in value.tags:
            return f"{key}: tag(log, ...) changes nothing on a range; write tag(log, interval(...))"
        return None
    low, high = distribution.low, distribution.high
    if distribution.log or low <= 0 or high / low <= 100 * (1 + 1e-9):
        return None
    above = (high - high / 10) / (high - low)
    written = f"interval({number(low)},{number(high)})"
    better = f"int({written})" if isinstance(distribution, IntDistribution) else written
    return (
        f"{key}: {better} is linear over {math.log10(high / low):.2g} decades: {above:.0%} of the draws lie above "
        f"{number(high / 10)}; write tag(log, {better})"
    )


def number(value: float) -> str:
    """Return a number as short as it can be said without changing it."""
    short = f"{value:g}"
    return short if isinstance(value, float) and float(short) == value else repr(value)
