"""How much each parameter mattered: PED-ANOVA, through Optuna.

Watanabe et al., PED-ANOVA (IJCAI 2023, arXiv 2304.10255), and its form for conditional parameters
(arXiv 2601.20800): how far a parameter's values among the best trials differ from its values among
all of them. Preferred to fANOVA, which leaves out each parameter that some trial does not have,
needs scikit-learn and takes longer.

Unlike in Optuna's own figure, pruned trials count too, as not among the best. Without them only
survivors are compared, and a learning rate that had all others pruned hardly shows. In 16 made-up
sweeps of 60 and 300 trials (benchmarks/sweep_page.py) with one parameter that matters most, it
came first in all with pruned trials, and in 11 without.
"""

import math

from visionsweep.report.sweep.linked import merged
from visionsweep.report.sweep.optuna_study import (
    make_distributions,
    make_study,
    make_trial,
    quiet_optuna,
)
from visionsweep.report.sweep.record import SweepRecord, SweptTrial

MIN_TRIALS = 8  # complete ones; with fewer, chance decides
_MIN_BEST = 5  # what PED-ANOVA's authors ask for at least
_BEST_SHARE = 0.1  # Optuna's default


def importances(record: SweepRecord) -> dict[str, float]:
    """Return each searched parameter's share in the first objective, the largest first.

    The shares add up to 1. Empty with fewer than 8 complete trials, if all have the same value, or
    if no parameter varied. Trials that took another's value count once. A conditional parameter is
    judged among the trials that have it, weighed by how often the best ones do. It is left out if
    fewer than half of the best trials, and fewer than 5, have it: Optuna gives such a parameter
    nearly the whole importance for a single good trial. Parameters that move together are judged
    as one, under the name of the first.
    """
    import optuna

    record = merged(record)
    complete, pruned = _judged(record)
    if len(complete) < MIN_TRIALS or len({trial.value for trial in complete}) == 1:
        return {}
    worst = complete[-1].values[0]
    with quiet_optuna():
        distributions = make_distributions(record.space)
        frozen = [make_trial(t, distributions, "COMPLETE", t.values[:1]) for t in complete]
        frozen += [make_trial(t, distributions, "COMPLETE", [worst]) for t in pruned]
        quantile = (num_best(record) - 0.5) / len(frozen)  # Optuna rounds up
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)
        found = optuna.importance.get_param_importances(
            make_study(record.directions[:1], frozen), evaluator=evaluator, normalize=False
        )
    best = complete[: num_best(record)]
    judged = {key: sum(key in trial.params for trial in best) for key in found}
    found = {
        key: found[key] for key, num in judged.items() if num >= _MIN_BEST or 2 * num >= len(best)
    }
    total = sum(found.values())
    if not math.isfinite(total) or total <= 0:
        return {}
    # Optuna leaves the order of equal ones open
    order = {key: position for position, key in enumerate(record.space)}
    ordered = sorted(found, key=lambda key: (-found[key], order[key]))
    return {key: found[key] / total for key in ordered}


def num_best(record: SweepRecord) -> int:
    """Return how many trials count as the best: a tenth, but 5 or more, and half or fewer."""
    complete, pruned = _judged(record)
    return min(
        max(_MIN_BEST, round(_BEST_SHARE * (len(complete) + len(pruned)))), len(complete) // 2
    )


def num_judged(record: SweepRecord) -> int:
    """Return the number of trials that the best ones are compared with, themselves included."""
    return sum(map(len, _judged(record)))


def _judged(record: SweepRecord) -> tuple[list[SweptTrial], list[SweptTrial]]:
    """Return the complete trials, best in the first objective first, and the pruned ones."""
    own = [trial for trial in record.trials if trial.duplicate_of is None]
    ranked = {trial.number for trial in record.ranked()}
    complete = [
        (record.cost(t.value), t) for t in own if t.number in ranked and t.value is not None
    ]
    complete.sort(key=lambda pair: (pair[0], pair[1].number))
    return [trial for _, trial in complete], [trial for trial in own if trial.state == "pruned"]
