"""Who won a sweep and why, in sentences. The markup (Markdown, HTML) is the caller's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from visionsweep.report.sweep.importances import MIN_TRIALS, importances
from visionsweep.report.sweep.linked import followers
from visionsweep.report.sweep.record import SweepRecord, SweptTrial
from visionsweep.report.sweep.values import describe, share_text
from visionsweep.text import counted, duration_text, objective_text, short_value, shortened

_MAX_NAMED_PARAMS = 8  # in a sentence
_MAX_NAME = 80  # characters
_ROUGH = 30  # complete trials under which shares are called rough


@dataclass(frozen=True)
class Markup:
    """How sentences are marked up; each function escapes its text."""

    plain: Callable[[str], str]
    code: Callable[[str], str]
    strong: Callable[[str], str]


@dataclass(frozen=True)
class Summary:
    """The results that the sentences and charts share."""

    record: SweepRecord
    shares: dict[str, float]  # importances, the largest first
    ranked: list[SweptTrial]

    @property
    def winner(self) -> SweptTrial | None:
        """The best trial."""
        return self.ranked[0] if self.ranked else None

    @property
    def runner_up(self) -> SweptTrial | None:
        """The second best trial, without those that took another's value."""
        return next((trial for trial in self.ranked[1:] if trial.duplicate_of is None), None)

    def ordered_keys(self) -> list[str]:
        """Return the searched parameters, those that mattered most first, then as in the space."""
        return list(dict.fromkeys([*self.shares, *self.record.space]))

    def params_of(self, trial: SweptTrial) -> dict[str, Any]:
        """Return a trial's parameters in that order."""
        return {key: trial.params[key] for key in self.ordered_keys() if key in trial.params}


def summarize(record: SweepRecord) -> Summary:
    """Work out ranks and importances."""
    return Summary(record, importances(record), record.ranked())


def value_text(trial: SweptTrial, position: int = 0) -> str:
    """Return an objective of a trial; the first with its spread: `0.9972 ± 0.0011`.

    With folds it is that of all images, and the mean over the folds follows.
    """
    if position >= len(trial.values):
        return ""
    text = objective_text(trial.values[position])
    if position == 0 and trial.seed_std is not None:
        text += f" ± {short_value(trial.seed_std, 2)}"
    if position == 0 and trial.fold_mean is not None:
        spread = "" if trial.fold_std is None else f" ± {short_value(trial.fold_std, 2)}"
        text += f" (mean of folds {objective_text(trial.fold_mean)}{spread})"
    return text


def won_sentence(summary: Summary, markup: Markup) -> str:
    """Return who won with which parameters; while trials run, who leads."""
    record, winner = summary.record, summary.winner
    num_running = record.counts().get("running", 0)
    if winner is None:
        if not record.trials:
            return markup.plain("No trial has started yet.")
        return markup.plain(
            "No trial is complete yet." if num_running else "No trial completed, so none won."
        )
    verb = "leads so far" if num_running else "won"
    won = markup.plain(f"{_name(record.metrics[0])} {value_text(winner)}")
    text = f"{markup.strong(f'#{winner.number} {verb}')}: {won}"
    if record.races:
        text += markup.plain(f" ({len(winner.seed_values)} of at most {record.num_seeds} seeds)")
    elif record.num_seeds > 1:
        text += markup.plain(f" ({record.num_seeds} seeds)")
    text += markup.plain(f" ({record.num_folds} folds)") if record.num_folds > 1 else ""
    params = [
        markup.code(f"{_name(key)}={short_value(value)}")
        for key, value in summary.params_of(winner).items()
    ]
    if params:
        text += f"{markup.plain(' with ')}{', '.join(params[:_MAX_NAMED_PARAMS])}"
        if len(params) > _MAX_NAMED_PARAMS:
            text += markup.plain(f" and {len(params) - _MAX_NAMED_PARAMS} more")
    for name, position in zip(record.metrics[1:], range(1, len(winner.values)), strict=False):
        text += markup.plain(f"; {_name(name)} {value_text(winner, position)}")
    if len(record.metrics) > 1:
        text += markup.plain(f". {len(record.pareto())} trials are Pareto-optimal; ")
        text += markup.plain("this one is the best in the first objective")
    return text + markup.plain(".")


def why_sentence(summary: Summary, markup: Markup) -> str:
    """Return which parameters mattered most, or why that is unknown; empty without a choice."""
    record, shares = summary.record, summary.shares
    own = [trial for trial in summary.ranked if trial.duplicate_of is None]
    if len(record.space) < 2 or not record.trials:
        return ""
    if not shares:
        if len(own) < MIN_TRIALS:
            have = f"{len(own)} complete, {MIN_TRIALS} are needed"
            return markup.plain(f"Too few trials to tell which parameter mattered ({have}).")
        return markup.plain("No parameter tells the best trials from the others.")
    (first, share), *others = shares.items()
    linked = followers(record.space)

    def name(key: str) -> str:
        moved = ", ".join(map(_name, linked.get(key, ())))
        return markup.code(_name(key)) + (markup.plain(f" with {moved}") if moved else "")

    text = name(first)
    text += markup.plain(f" mattered most: {share_text(share)} of the importance")
    named = [
        f"{name(key)}{markup.plain(f' ({share_text(other)})')}"
        for key, other in others[:2]
        if other >= 0.05
    ]
    if named:
        text += f"{markup.plain(', then ')}{markup.plain(' and ').join(named)}"
    text += markup.plain(".")
    if len(own) < _ROUGH:
        text += markup.plain(f" Rough: only {len(own)} trials are complete.")
    return text


def counts_sentence(summary: Summary) -> str:
    """Return the trials by state, the epochs trained and saved, and the time, as plain text."""
    record = summary.record
    if not record.trials:
        return ""
    states = ", ".join(f"{num} {state}" for state, num in record.counts().items())
    parts = [f"{counted(len(record.trials), 'trial')}: {states}"]
    spent = sum(trial.epochs or 0 for trial in record.trials)
    saved = record.epochs_saved()
    if spent:
        parts.append(f"{spent:,} epochs trained")
        if saved:
            parts[-1] += f", {saved:,} saved by pruning ({share_text(saved / (saved + spent))})"
    seconds = elapsed_seconds(record)
    if seconds is not None:
        parts.append(duration_text(seconds))
    return "; ".join(parts) + "."


def noise_sentence(summary: Summary) -> str:
    """Return the noise between seeds, and which trials had several; empty if it is not known."""
    noise = summary.record.noise()
    if noise is None:
        return ""
    text = f"{str(noise)[:1].upper()}{str(noise)[1:]}."
    if summary.record.races:
        text += " Only trials that may be the best got more than one seed, and those with all come "
        text += "first: values over different seeds cannot be compared."
    return text


def elapsed_seconds(record: SweepRecord) -> float | None:
    """Return the time from the first start to the last start or end, if any is known."""
    starts = [trial.start for trial in record.trials if trial.start is not None]
    ends = [trial.end for trial in record.trials if trial.end is not None]
    return max(starts + ends) - min(starts) if starts else None


def _name(key: str) -> str:
    return shortened(key, _MAX_NAME)


def gap_sentence(summary: Summary, markup: Markup) -> str:
    """Return how far the runner-up is behind; empty without one."""
    winner, second = summary.winner, summary.runner_up
    if winner is None or second is None:
        return ""
    gap = summary.record.cost(second.values[0]) - summary.record.cost(winner.values[0])
    text = f"#{second.number} is second with {value_text(second)}"
    if gap == 0:
        return markup.plain(f"{text}: the same value, and #{winner.number} was first.")
    if gap < 0:
        if not second.has_all_seeds:
            return markup.plain(f"{text}, but has not had all seeds.")
        return markup.plain(f"{text}, better in this objective but beaten in all of them together.")
    text += f", {short_value(gap, 2)} behind"
    noise = summary.record.noise()
    if noise is not None and noise.own > gap:
        text += f", less than the noise between seeds ({short_value(noise.own, 2)}): maybe chance"
    return markup.plain(f"{text}.")


def differences(summary: Summary) -> list[tuple[str, str, str]]:
    """Return (parameter, winner's value, runner-up's) where they differ; `-`: not active."""
    winner, second = summary.winner, summary.runner_up
    if winner is None or second is None:
        return []
    found = []
    for key in summary.ordered_keys():
        mine, theirs = (
            short_value(t.params[key], 4) if key in t.params else "-" for t in (winner, second)
        )
        if winner.params.get(key) != second.params.get(key) or mine != theirs:
            found.append((key, mine, theirs))
    return found


def space_rows(space: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return each parameter with its distribution, what moves with it, and its conditions."""
    rows = []
    for key, distribution in space.items():
        moved = ", ".join(map(str, distribution.get("with") or ()))
        when = " and ".join(map(str, distribution.get("when") or ()))
        more = (f" (with {moved})" if moved else "") + (f" (when {when})" if when else "")
        rows.append((key, describe(distribution) + more))
    return rows
