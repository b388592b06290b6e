"""The answer of a confirmation: looked at after each round of seeds, and written at the end.

Which configurations run is in `confirm.py`, the statistics are in `answer/`.
"""

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from visionsweep.answer.compare import LEVEL, Comparison, Difference, compare
from visionsweep.answer.groups import make_arms
from visionsweep.answer.predictions import FinishedRun, finished_runs
from visionsweep.answer.sentences import sentences
from visionsweep.answer.sequential import nominal_levels
from visionsweep.config.paths import shown
from visionsweep.rundir.confirmation import ConfirmationRecord, write_confirmation
from visionsweep.rundir.layout import run_place
from visionsweep.sweep.confirm import MIN_ROUNDS, Candidates
from visionsweep.sweep.controller import BASELINE
from visionsweep.sweep.settings import SweepSettings
from visionsweep.text import counted, params_text, shortened

_WIDTH = 60


@dataclass(frozen=True)
class Answer:
    """What is known after some rounds."""

    rounds: int
    level: float  # of each interval, so that all of all looks hold together
    # of each candidate with the baseline, each with one difference; the best candidate comes first
    comparisons: dict[int, Comparison]

    def difference(self, number: int) -> Difference:
        """Return candidate minus baseline, positive where the candidate is better."""
        return self.comparisons[number].differences[0]

    @property
    def better(self) -> list[int]:
        """The candidates that are better than the baseline, the best first."""
        return [n for n in self.comparisons if self._differs(n, sign=1)]

    @property
    def is_clear(self) -> bool:
        """Whether a candidate is better than the baseline, or the baseline better than all."""
        worse = [n for n in self.comparisons if self._differs(n, sign=-1)]
        return bool(self.better) or (len(worse) == len(self.comparisons) and bool(worse))

    def _differs(self, number: int, sign: int) -> bool:
        """Return whether the sentence will say that the candidate is better (1) or worse (-1)."""
        difference = self.difference(number)
        return difference.verdict == "different" and sign * difference.estimate.value > 0

    @property
    def confirmed(self) -> int | None:
        """The number of the trial that is confirmed: the best of the better ones; None: none is."""
        if self.better:
            return self.better[0]
        return BASELINE if self.is_clear else None


class Confirmation:
    """Looks at the trials of one sweep."""

    def __init__(self, sweep_dir: Path, candidates: Candidates, settings: SweepSettings) -> None:
        self._sweep_dir = sweep_dir
        self._candidates = candidates
        self._settings = settings
        rounds = range(MIN_ROUNDS, settings.seeds + 1)
        error = (1 - LEVEL) / (len(candidates.params) - 1)  # Bonferroni
        levels = nominal_levels([r / settings.seeds for r in rounds], error)
        self._levels = dict(zip(rounds, levels, strict=True))

    def name(self, number: int) -> str:
        """Return how sentences call a trial."""
        params = shortened(params_text(self._candidates.params[number]), _WIDTH)
        return f"the baseline ({params})" if number == BASELINE else params

    def look(self, rounds: int, numbers: Sequence[int]) -> tuple[str | None, bool]:
        """Return a line on the first `rounds` seeds of the trials, and whether the answer is clear.

        The baseline and at least one candidate are among them.
        """
        if rounds < MIN_ROUNDS:
            return None, False
        answer = self.answer(rounds, numbers)
        leader = next(iter(answer.comparisons))
        difference = answer.difference(leader)
        low, high = difference.interval
        state = "clear" if answer.is_clear else "not clear yet"
        return (
            f"after {rounds} of {self._settings.seeds} seeds: {self.name(leader)} is "
            f"{difference.estimate.value:+.4f} from the baseline (interval of this look "
            f"{low:+.4f} to {high:+.4f}): {state}"
        ), answer.is_clear

    def answer(self, rounds: int, numbers: Sequence[int]) -> Answer:
        """Compare the first `rounds` seeds of the trials; the last look has all seeds."""
        level = 1 - self._levels[rounds]
        baseline = self._runs(BASELINE, rounds)
        comparisons = {}
        for number in numbers:
            if number == BASELINE:
                continue
            comparison = compare([*baseline, *self._runs(number, rounds)])
            comparisons[number] = self._named(comparison, number, level)
        best_first = sorted(
            comparisons.items(), key=lambda item: -item[1].differences[0].estimate.value
        )
        return Answer(rounds, level, dict(best_first))

    def _named(self, comparison: Comparison, number: int, level: float) -> Comparison:
        """Return a comparison of two sides with the candidate first, at the level of this look."""
        [difference] = comparison.differences
        sides = make_arms([*self._runs(BASELINE, 1), *self._runs(number, 1)])
        own = {run.directory for run in self._runs(number, 1)}
        [name] = [arm.name for arm in sides.arms if arm.replicates[0].runs[0].directory in own]
        is_first = difference.first == name
        estimate = difference.estimate
        if not is_first:
            estimate = replace(estimate, value=-estimate.value)
        names = {
            True: self.name(number),
            False: self.name(BASELINE),
        }
        arms = [
            replace(arm, name=names[(arm.name == difference.first) == is_first])
            for arm in comparison.arms
        ]
        named = replace(
            difference, first=names[True], second=names[False], estimate=estimate, level=level
        )
        count = len(self._candidates.params) - 1
        return replace(comparison, arms=arms, differences=[named], num_comparisons=count)

    def _runs(self, number: int, rounds: int) -> list[FinishedRun]:
        indices = range(rounds * self._settings.folds)
        places = [run_place(number, *self._settings.seed_and_fold(index)) for index in indices]
        return finished_runs(self._sweep_dir / place for place in places)

    def lines(self, answer: Answer) -> list[str]:
        """Return the answer for people: a sentence per candidate, and what was chosen on what."""
        said = [line for one in answer.comparisons.values() for line in sentences(one)]
        notes = [note for one in answer.comparisons.values() for note in one.notes]
        candidates = self._candidates
        chosen = counted(len(candidates.params) - 1, "configuration")
        seeds = counted(answer.rounds, "new seed")
        return [
            *said,
            *(f"note: {note}" for note in dict.fromkeys(notes)),
            f"selected: {chosen} of {candidates.num_searched} by the study {candidates.study}; "
            f"compared with the baseline on {seeds} that it did not use, the same for all",
        ]

    def last_lines(self, answer: Answer, scores: Sequence[float]) -> list[str]:
        """Return what is confirmed, and its scores on the test split."""
        number = answer.confirmed
        if number is None:
            return [
                "nothing is confirmed: no configuration was shown to be better than the baseline; "
                "the test split was not used"
            ]
        line = f"confirmed: {self.name(number)}, trial {number}: {self.place(number)}"
        if not scores:
            return [line, "there is no test split; the confirmation is the only unbiased figure"]
        metric = next(iter(answer.comparisons.values())).metric.replace("val/", "test/", 1)
        spread = f" +- {statistics.stdev(scores):.2g}" if len(scores) > 1 else ""
        return [
            line,
            f"{metric} {statistics.fmean(scores):.4f}{spread} (mean of "
            f"{counted(len(scores), 'run')}); the test split was used once, by this configuration, "
            "and nothing was chosen on it",
        ]

    def write(self, answer: Answer, lines: Sequence[str], scores: Sequence[float]) -> None:
        """Write the answer, into the directory of the study too.

        ``scores``: the objective on the test split of the confirmed configuration's runs.
        """
        confirmed = answer.confirmed
        record = ConfirmationRecord(
            study=os.path.abspath(self._candidates.study),
            confirmation=os.path.abspath(self._sweep_dir),
            seeds=answer.rounds,
            max_seeds=self._settings.seeds,
            error=round(1 - LEVEL, 6),
            confirmed=None if confirmed is None else self.name(confirmed),
            confirmed_trial=confirmed,
            study_trials=self._candidates.trials,
            lines=list(lines),
            comparisons=[
                {
                    "trial": number,
                    "params": self._candidates.params[number],
                    "difference": answer.difference(number).estimate.value,
                    "interval": list(answer.difference(number).interval),
                    "p_value_of_this_look": answer.difference(number).estimate.p_value(),
                }
                for number in answer.comparisons
            ],
            test=list(scores),
        )
        write_confirmation(record)

    def place(self, number: int) -> str:
        """Return the directory of a trial, as a person would type it."""
        return shown(self._sweep_dir / str(number))
