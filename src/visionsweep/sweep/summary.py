"""The lines at the end of a sweep."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from visionsweep.config.paths import shown
from visionsweep.rundir.layout import BEST_TRIAL, TRIALS
from visionsweep.rundir.ranges import Ranges
from visionsweep.sweep.ranking import best, pareto
from visionsweep.sweep.trial_record import TrialRecord
from visionsweep.text import counted, objective_text, params_text

RERUN = "hydra.sweeper.rerun_failed=true"
_MAX_FAILURES = 5
_MAX_SOLUTIONS = 20


def summary(
    trials: Sequence[TrialRecord],
    directions: Sequence[str],
    *,
    sweep_dir: Path,
    repeat_command: str | None = None,
    full_epochs: int | None = None,
    metric: str = "value",
    is_interrupted: bool = False,
    expectation: str | None = None,
    race: Sequence[str] = (),
    ranges: Ranges | None = None,
) -> list[str]:
    """Return the summary of a sweep, line by line.

    ``repeat_command`` repeats the best trial. ``full_epochs`` are those of a whole trial, for what
    pruning saved; None leaves that line out. ``expectation`` tells how good the best trial is on
    other images than those that chose it, ``race`` what its seeds told, ``ranges`` which ranges
    end too early.
    """
    trials = sorted(trials, key=lambda trial: trial.number)
    lines = [_counts_line(trials, is_interrupted)]
    lines += _best_lines(trials, directions, metric)
    lines += [expectation] if expectation is not None else []
    lines += race
    lines += _range_lines(ranges)
    lines += _saved_lines(trials, full_epochs)
    lines += _failed_lines(trials, sweep_dir)
    chosen = best(trials, directions)
    if chosen is not None:
        link = sweep_dir / BEST_TRIAL
        place = link if link.is_symlink() else sweep_dir / chosen.directory
        lines.append(f"results: {shown(sweep_dir / TRIALS)}; the best trial: {shown(place)}")
        if repeat_command is not None:
            has_runs = bool(chosen.seed_values or chosen.fold_values)
            first = " (its first run)" if has_runs else ""
            lines.append(f"repeat trial {chosen.number}{first} with: {repeat_command}")
    return lines


def failure(trials: Sequence[TrialRecord], reason: str | None) -> str:
    """Return why a sweep failed, in one line. ``reason``: what ended it early."""
    errors = [trial.error or "unknown error" for trial in trials if trial.state == "failed"]
    if reason is None:
        reason = f"{len(errors)} of {counted(len(trials), 'trial')} failed, and none is complete"
    if not errors:
        return reason
    text = reason if errors[-1] in reason else f"{reason}: {errors[-1]}"
    return f"{text}. When it is mended, add {RERUN} to the same command"


def _counts_line(trials: Sequence[TrialRecord], is_interrupted: bool) -> str:
    if not trials:
        return "no trial has ended"
    counts = Counter[str](trial.state for trial in trials)
    waiting = sum(trial.state == "running" and trial.start is None for trial in trials)
    unfinished = counts["running"] - waiting
    named = {state: counts[state] for state in ("complete", "pruned", "failed")}
    named |= {"unfinished": unfinished, "not started": waiting}
    states = ", ".join(f"{count} {name}" for name, count in named.items() if count)
    repeated = sum(trial.duplicate_of is not None for trial in trials)
    if repeated:
        states += f" ({repeated} with the value of an equal trial)"
    line = f"{counted(len(trials), 'trial')}: {states}"
    return f"interrupted after {line}" if is_interrupted else line


def _best_lines(trials: Sequence[TrialRecord], directions: Sequence[str], metric: str) -> list[str]:
    chosen = best(trials, directions)
    if chosen is None:
        return ["no trial is complete, so there is no best one"]
    if len(directions) == 1:
        value = f"{metric} {chosen.values_text()}"
        lines = [f"best {value}, trial {chosen.number}: {params_text(chosen.params)}"]
        if not chosen.has_all_seeds:
            lines.append(
                "it has not had all of its seeds and may be lucky; the same command goes on"
            )
        return lines
    front = pareto(trials, directions)
    names = [metric, *(f"value_{i}" for i in range(1, len(directions)))]
    rows = [["trial", *names, "parameters"]]
    rows += [
        [str(t.number), *map(objective_text, t.values or ()), params_text(t.params)]
        for t in front[:_MAX_SOLUTIONS]
    ]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    lines = [f"Pareto set: {counted(len(front), 'trial')} that no other beats in every objective"]
    for *cells, params in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append("  ".join(["", *padded, params]).rstrip())
    if len(front) > _MAX_SOLUTIONS:
        lines.append(f"  and {len(front) - _MAX_SOLUTIONS} more")
    return lines


def _range_lines(ranges: Ranges | None) -> list[str]:
    if ranges is None:
        return []
    return [*ranges.lines, *([] if ranges.command is None else [f"widen with: {ranges.command}"])]


def _saved_lines(trials: Sequence[TrialRecord], full_epochs: int | None) -> list[str]:
    own = [trial for trial in trials if trial.duplicate_of is None]
    pruned = [trial for trial in own if trial.state == "pruned"]
    if full_epochs is None or not pruned:
        return []
    saved = sum(max(full_epochs - (trial.epochs or 0), 0) for trial in pruned)
    spent = sum(trial.epochs or 0 for trial in own if trial.state in ("complete", "pruned"))
    share = 100 * saved / max(saved + spent, 1)
    return [f"pruning saved {saved} of {saved + spent} epochs ({share:.0f} %)"]


def _failed_lines(trials: Sequence[TrialRecord], sweep_dir: Path) -> list[str]:
    failed = [trial for trial in trials if trial.state == "failed"]
    lines = [f"  #{trial.number} {trial.failure_text(sweep_dir)}" for trial in failed]
    if len(failed) > _MAX_FAILURES:
        more = f"  and {len(failed) - _MAX_FAILURES} more: see {shown(sweep_dir / TRIALS)}"
        lines = [*lines[:_MAX_FAILURES], more]
    return [f"failed (to run them again: {RERUN}):", *lines] if lines else []
