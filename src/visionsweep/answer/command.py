"""The command `visionsweep compare`: is one setting better than another, or was it luck?"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visionsweep.answer.compare import Comparison, Difference, compare
from visionsweep.answer.predictions import finished_runs
from visionsweep.answer.selection import CorrectedWinner, corrected_winner
from visionsweep.answer.sentences import sentences, table, winner_sentence
from visionsweep.config.paths import shown
from visionsweep.config.verb_arguments import split_arguments
from visionsweep.errors import ConfigError, UserError
from visionsweep.program import command
from visionsweep.rundir.atomic import open_output
from visionsweep.rundir.layout import holds_sweep
from visionsweep.streams import keep_streams

_HELP = """\
usage: {command} DIR [DIR ...] [by=KEY] [metric=NAME] [smallest=NUMBER] [json=FILE]

Compare finished runs: any runs, sweeps or folders of runs, as A B or [A,B]. What differs between
them, seed and fold aside, makes the configurations; they are paired by seed, fold and image. Prints
a table, and one sentence per question. Nothing is trained; the predictions of the runs are enough.

  by=loss           the question: a config group, a key such as optim.lr, or several: loss,optim
                    (default: everything that differs)
  metric=NAME       such as accuracy (default: the objective of the runs)
  smallest=0.005    the smallest difference that matters, as a fraction (default: 0)
  json=FILE         write all figures there as well; - is the standard output, without the table
"""
_KEYS = ("by", "metric", "smallest", "json")


@dataclass(frozen=True)
class Arguments:
    """The arguments of `compare`."""

    directories: list[Path]
    by: list[str] = field(default_factory=list)
    metric: str | None = None
    smallest: float = 0.0
    json: Path | None = None


def main(argv: list[str]) -> int:
    """Compare what `argv` names and return the exit code: 1, with one line, for a mistake."""
    keep_streams()
    if any(argument in ("-h", "--help") for argument in argv):
        sys.stdout.write(_HELP.format(command=command("compare")))
        return 0
    try:
        arguments = parse_arguments(argv)
        runs = finished_runs(arguments.directories)
        comparison = compare(
            runs, arguments.by, metric=arguments.metric, smallest=arguments.smallest
        )
        winners = [corrected_winner(d) for d in arguments.directories if holds_sweep(d)]
        _show(comparison, [winner for winner in winners if winner is not None], arguments.json)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130
    return 0


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Return the arguments in `argv`. Raises `ConfigError` if one is unknown, repeated or wrong."""
    directories, given = split_arguments(argv, _KEYS)
    if not directories:
        raise ConfigError(
            "expected the directories of runs or sweeps, e.g. "
            f"{command('compare')} multirun/STUDY by=loss"
        )
    return Arguments(
        directories,
        by=_keys(given.get("by", "")),
        metric=given.get("metric"),
        smallest=_smallest(given.get("smallest", "0")),
        json=Path(given["json"]).expanduser() if "json" in given else None,
    )


def _keys(text: str) -> list[str]:
    names = [name.strip() for name in text.strip("[]").split(",")]
    return list(dict.fromkeys(name for name in names if name))


def _smallest(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ConfigError(
            f"smallest: expected a number, 0 or more, such as 0.005 (half a point), got '{text}'"
        )
    return value


def _show(comparison: Comparison, winners: list[CorrectedWinner], file: Path | None) -> None:
    if file is not None:
        figures = as_json(comparison) | {"winners": [winner_json(winner) for winner in winners]}
        text = json.dumps(figures, indent=2, ensure_ascii=False) + "\n"
        if file == Path("-"):
            sys.stdout.write(text)
            return
        _write(file, text)
    lines = [*table(comparison), "", *sentences(comparison)]
    lines += [f"{shown(w.trial)} won its sweep: {winner_sentence(w)}" for w in winners]
    lines += [f"note: {note}" for note in comparison.notes]
    sys.stdout.write("\n".join(lines) + "\n")


def _write(file: Path, text: str) -> None:
    if file.is_dir() or not file.absolute().parent.is_dir():
        problem = "is a folder" if file.is_dir() else "is in a folder that does not exist"
        raise ConfigError(f"json: {file} {problem}; expected a file in a folder that exists")
    try:
        with open_output(file) as stream:
            stream.write(text.encode(errors="backslashreplace"))
    except OSError as error:
        raise ConfigError(
            f"json: {shown(file)} cannot be written ({error.strerror}); choose another file"
        ) from error


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return all figures as plain values; docs/answers.md lists them."""
    return {
        "metric": comparison.metric,
        "by": list(comparison.factors),
        "others": list(comparison.others),
        "configurations": [
            {
                "name": arm.name,
                "mean": arm.mean.value,
                "interval": list(arm.mean.interval()),
                "seed_std": arm.spread,
                "runs": arm.num_runs,
                "images": arm.num_images,
            }
            for arm in comparison.arms
        ],
        "comparisons": [_difference_json(difference) for difference in comparison.differences],
        "corrected_for": comparison.num_comparisons,
        "resampled": "groups" if comparison.are_groups else "images",
        "sentences": sentences(comparison),
        "notes": comparison.notes,
    }


def winner_json(winner: CorrectedWinner) -> dict[str, Any]:
    """Return the winner of a sweep as plain values."""
    return {
        "trial": str(winner.trial),
        "metric": winner.metric,
        "raw": winner.raw,
        "corrected": winner.corrected,
        "interval": list(winner.interval),
        "trials": winner.num_trials,
        "images": winner.num_images,
        "includes_epochs": winner.includes_epochs,
        "sentence": winner_sentence(winner),
    }


def _difference_json(difference: Difference) -> dict[str, Any]:
    return {
        "first": difference.first,
        "second": difference.second,
        "difference": difference.estimate.value,
        "interval": list(difference.interval),
        "interval_uncorrected": list(difference.estimate.interval()),
        "p_value": difference.estimate.p_value(),
        "probability_first_better": difference.estimate.probability_positive(),
        "verdict": difference.verdict,
        "covers_seeds": difference.covers_seeds,
        "pairs": difference.num_pairs,
        "seeds": difference.estimate.num_seeds,
        "images": difference.num_images,
        "smallest": difference.smallest,
    }
