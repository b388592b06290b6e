"""What a run is called in MLflow: `#017 focal adamp lr=3e-4 f1=0.913` says where it stands and what it was."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from visionsweep.tracking.ack import sweep_directory

_TIME = re.compile(
    r"\d{4}-(\d\d-\d\d)_(\d\d)-(\d\d)-\d\d-\d+"
)  # the name of a run that was given none
_ALWAYS = ("loss", "optim", "optim.lr")
_MAX_VALUE = 24
# Which run and where it runs, nothing of what it does.
_LEFT_OUT = re.compile(
    r"name|study|seed|resume|sweep|(tracking|hydra)([./].*)?|data\.(root|path)|trainer\.(threads|device)"
)


def trial_place(config: Mapping[str, Any], run_dir: Path) -> str | None:
    """Return NUMBER, or NUMBER/seed_K, of a run that belongs to a sweep; None for any other."""
    sweep_dir = sweep_directory(run_dir)
    place = run_dir.relative_to(sweep_dir)
    if sweep_dir.name != config["study"] or not place.parts[0].isdigit():
        return None
    return place.as_posix()


def run_title(
    config: Mapping[str, Any],
    run_dir: Path,
    choices: Mapping[str, str],
    values: Mapping[str, object],
) -> str:
    """Return a run's name without its score.

    ``choices``: the chosen option of each config group; ``values``: what was searched or typed, by key.
    """
    words = [_lead(config, run_dir)]
    for key in [*_ALWAYS, *(key for key in values if key not in _ALWAYS)]:
        value = values.get(key, choices.get(key))
        if key == "optim.lr":
            value = config["optim"].get("lr")
        if value is None or _LEFT_OUT.fullmatch(key):
            continue
        words.append(
            _short(value) if key in choices else f"{key.rpartition('.')[2]}={_short(value)}"
        )
    return " ".join(words)


def score_text(metric: str, value: float) -> str:
    """Return the objective as the end of a name: ``f1=0.913`` of ``val/f1_macro``."""
    name = metric.rpartition("/")[2]
    return f"{'f1' if name == 'f1_macro' else name}={value:.3f}"


def ordered_values(keys: Iterable[str], overrides: Iterable[str]) -> dict[str, object]:
    """Return the values that a run's overrides give to `keys`, as they were typed."""
    given = {
        key.lstrip("+"): value
        for key, _, value in (override.partition("=") for override in overrides)
    }
    return {key: given[key].strip("'\"") for key in keys if key in given}


def _lead(config: Mapping[str, Any], run_dir: Path) -> str:
    place = trial_place(config, run_dir)
    if place is None:
        found = _TIME.fullmatch(run_dir.name)
        return "{} {}:{}".format(*found.groups()) if found else run_dir.name
    number, _, seed = place.partition("/")
    return f"#{int(number):03d}{seed.replace('seed_', ' seed ')}"


def _short(value: object) -> str:
    try:
        number = float(str(value))
    except ValueError:
        text = str(value)
        return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 3]}..."
    if number == 0 or 0.01 <= abs(number) < 10_000:
        return f"{number:.3g}" if number % 1 else f"{number:.0f}"
    mantissa, _, exponent = f"{number:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
