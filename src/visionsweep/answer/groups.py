"""Which runs are one configuration: what differs between runs, seed and fold aside.

An arm is one side of a comparison: all runs with the same values of the settings in question. Its
runs are told apart by a pairing key: the values of the other settings that differ, and the seed.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionsweep.answer.predictions import FinishedRun, pooled
from visionsweep.errors import ConfigError, DataError
from visionsweep.rundir.predictions import Predictions
from visionsweep.text import did_you_mean, short_value

# Settings that do not change what a configuration is.
_NO_CONFIGURATION = (
    *("seed", "name", "study", "resume", "tracking", "split.fold", "objective.others"),
    *("trainer.threads", "trainer.device", "trainer.eval_batch_size"),
    *("data.cache_dir", "data.cache_limit_gb", "data.workers"),
)
_NOT_SET = "(not set)"

PairingKey = tuple[Any, ...]


@dataclass(frozen=True)
class Replicate:
    """One configuration trained with one seed; if it trained folds, all of them together."""

    runs: tuple[FinishedRun, ...]
    class_names: tuple[str, ...]  # (K,)
    # of the N validation images, pooled over the folds
    ids: NDArray[np.str_]
    targets: NDArray[np.int64]
    preds: NDArray[np.int64]
    groups: NDArray[np.str_] | None  # None: not known

    def metric(self, name: str) -> float:
        """Return a metric of `result.json`, averaged over the folds.

        Raises `DataError` if the runs have none.
        """
        values = [run.result.get("metrics", {}).get(f"val/{name}") for run in self.runs]
        if None in values:
            raise DataError(f"{self.runs[0].directory}: its result has no val/{name}")
        return float(sum(values) / len(values))


@dataclass(frozen=True)
class Arm:
    """One side of a comparison."""

    name: str
    # several replicates with one key differ only in settings that belong to the arm's own choice
    cells: Mapping[PairingKey, Sequence[Replicate]]

    @property
    def replicates(self) -> list[Replicate]:
        """All replicates."""
        return [replicate for cell in self.cells.values() for replicate in cell]


@dataclass(frozen=True)
class Arms:
    """The sides of a comparison, and what was noticed while making them."""

    arms: list[Arm]
    factors: tuple[str, ...]  # the settings in question
    others: tuple[str, ...]  # further settings that differ
    notes: list[str] = field(default_factory=list)


def make_arms(runs: Sequence[FinishedRun], by: Sequence[str] = ()) -> Arms:
    """Group runs by the settings `by`, or by all settings that differ between them.

    Raises `ConfigError` if one of `by` does not differ, and `DataError` if the runs do not have the
    same classes, or one image has two targets.
    """
    settings = {id(run): settings_of(run) for run in runs}
    groups = {name for run in runs for name in run.choices}
    differing = differing_keys(list(settings.values()), groups)
    _check_factors(by, differing, next(iter(settings.values())), len(runs))
    factors = tuple(by) or differing
    others = tuple(key for key in differing if key not in factors)
    # gamma is a part of focal loss: with by=loss nothing else could have the same gamma
    paired_by = [key for key in others if key.partition(".")[0] not in factors]
    by_configuration: dict[tuple[Any, ...], list[FinishedRun]] = defaultdict(list)
    for run in runs:
        configuration = (settings[id(run)].get(key, _NOT_SET) for key in differing)
        by_configuration[(*map(_hashable, configuration), run.seed)].append(run)
    notes: list[str] = []
    arms: dict[PairingKey, dict[PairingKey, list[Replicate]]] = {}
    names: dict[PairingKey, str] = {}
    for members in by_configuration.values():
        values = settings[id(members[0])]
        side = tuple(_hashable(values.get(k, _NOT_SET)) for k in factors)
        names.setdefault(side, _arm_name(factors, values, groups))
        key = (*(_hashable(values.get(k, _NOT_SET)) for k in paired_by), members[0].seed)
        arms.setdefault(side, defaultdict(list))[key].append(_replicate(members, notes))
    unique = _told_apart(names)
    made = [Arm(unique[side], cells) for side, cells in arms.items()]
    _check_same_images([replicate for arm in made for replicate in arm.replicates])
    counts = Counter(notes)
    lines = [f"{note} ({count} times)" if count > 1 else note for note, count in counts.items()]
    return Arms(made, factors, others, lines)


def settings_of(run: FinishedRun) -> dict[str, Any]:
    """Return ``{dotted key: value}`` of what makes the configuration of a run.

    A config group has its choice under its own name.
    """
    flat = {
        key: value
        for key, value in _flat(run.config)
        if not key.endswith("_target_") and not _is_below(key, _NO_CONFIGURATION)
    }
    return {**run.choices, **flat}


def differing_keys(settings: Sequence[Mapping[str, Any]], groups: Iterable[str]) -> tuple[str, ...]:
    """Return the keys whose values differ, in the order of the config.

    A key below a config group counts only if it differs between runs of the same choice: that
    cross entropy has no gamma follows from the choice.
    """
    groups = set(groups)
    keys = dict.fromkeys(key for values in settings for key in values)
    found = []
    for key in keys:
        group = key.partition(".")[0]
        choice_of = [s.get(group) if group in groups and key != group else None for s in settings]
        seen: dict[Any, set[Any]] = defaultdict(set)
        for choice, values in zip(choice_of, settings, strict=True):
            seen[choice].add(_hashable(values.get(key, _NOT_SET)))
        if any(len(values) > 1 for values in seen.values()):
            found.append(key)
    return tuple(found)


def _check_factors(
    by: Sequence[str], differing: Sequence[str], known: Mapping[str, Any], num_runs: int
) -> None:
    for key in by:
        if key in differing:
            continue
        differs = ", ".join(differing) or "nothing but the seed"
        if key not in known:
            raise ConfigError(
                f"by: the runs have no setting {key}{did_you_mean(key, [*differing, *known])}. "
                f"They differ in: {differs}"
            )
        raise ConfigError(
            f"by: all {num_runs} runs have {key}={short_value(known[key])}. They differ in: "
            f"{differs}"
        )


def _replicate(members: Sequence[FinishedRun], notes: list[str]) -> Replicate:
    """Return the runs of one configuration and seed, pooled over its folds."""
    by_fold: dict[int | None, tuple[FinishedRun, Predictions]] = {}
    for run in members:
        found = run.predictions()
        _, first = by_fold.setdefault(run.fold, (run, found))
        if first is not found:
            if not np.array_equal(first.val.ids, found.val.ids):
                raise DataError(
                    f"{run.directory} has the settings and the seed of "
                    f"{by_fold[run.fold][0].directory}, but other validation images: the data "
                    "changed in between. Compare runs on the same data"
                )
            notes.append("left out a run that repeats another with its seed and its validation set")
    if len(by_fold) > 1 and None in by_fold:
        notes.append("left out the folds of a configuration that also has a plain validation set")
        by_fold = {None: by_fold[None]}
    runs = tuple(run for run, _ in by_fold.values())
    predictions = [found for _, found in by_fold.values()]
    names = {tuple(found.class_names) for found in predictions}
    if len(names) > 1:
        raise DataError(f"{runs[0].directory}: the folds of this configuration differ in classes")
    val = pooled([found.val for found in predictions])
    return Replicate(runs, names.pop(), val.ids, val.targets, val.logits.argmax(axis=1), val.groups)


def _check_same_images(replicates: Sequence[Replicate]) -> None:
    first = replicates[0]
    targets: dict[str, int] = {}
    seen: set[tuple[bytes, bytes]] = set()
    for replicate in replicates:
        places = f"{first.runs[0].directory} and {replicate.runs[0].directory}"
        if replicate.class_names != first.class_names:
            raise DataError(
                f"{places} cannot be compared: their classes differ "
                f"({_some(first.class_names)}; {_some(replicate.class_names)})"
            )
        contents = replicate.ids.tobytes(), replicate.targets.tobytes()
        if contents in seen:
            continue
        seen.add(contents)
        pairs = zip(replicate.ids.tolist(), replicate.targets.tolist(), strict=True)
        for name, target in pairs:
            if targets.setdefault(name, target) != target:
                raise DataError(
                    f"{places} cannot be compared: image {name} has another label in one of them, "
                    "so they trained on different data"
                )


def _some(names: Sequence[str]) -> str:
    return f"{len(names)}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def _arm_name(factors: Sequence[str], settings: Mapping[str, Any], groups: Iterable[str]) -> str:
    if len(factors) == 1 and factors[0] in groups:
        return str(settings[factors[0]])
    texts = [f"{key}={short_value(settings[key])}" for key in factors if key in settings]
    return " ".join(texts) or "all runs"


def _told_apart(names: Mapping[PairingKey, str]) -> dict[PairingKey, str]:
    """Return names that differ: values are shown with three digits, which may be too few."""
    counts = Counter(names.values())
    seen = Counter[str]()
    unique = {}
    for side, name in names.items():
        seen[name] += 1
        unique[side] = name if counts[name] == 1 else f"{name} ({seen[name]})"
    return unique


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{key}.")
        else:
            yield key, value


def _is_below(key: str, prefixes: Iterable[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)
