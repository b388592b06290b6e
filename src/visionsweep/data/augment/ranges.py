"""Checks a step's parameters."""

from visionsweep.errors import ConfigError


def require_range(step: object, name: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless low <= value <= high."""
    if not low <= value <= high:
        owner = type(step).__name__
        raise ConfigError(
            f"augment: {owner}.{name}: expected a number in {low:g}..{high:g}, got {value}"
        )
