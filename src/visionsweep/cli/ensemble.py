"""`visionsweep ensemble`: finished runs become one directory that predicts."""

import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast, get_args

from visionsweep.answer.combined_run import refuse_used
from visionsweep.answer.decisions import HeldOut
from visionsweep.answer.ensemble import Choice, Method, choose_ensemble, choose_weights
from visionsweep.answer.ensemble_run import Ensemble, write_ensemble
from visionsweep.answer.keeping import missed_line, with_weights
from visionsweep.answer.members import Member, read_members
from visionsweep.answer.score import METRICS, Metric, score
from visionsweep.answer.stored_decisions import (
    TestPrior,
    Wanted,
    decide,
    parse_test_prior,
    shares,
)
from visionsweep.config.paths import shown
from visionsweep.config.schema import TrackingConfig
from visionsweep.config.verb_arguments import split_arguments
from visionsweep.errors import ConfigError, UserError
from visionsweep.machine import wait_passively
from visionsweep.masking import mask_logs
from visionsweep.program import command, fail
from visionsweep.rundir.description import read_config
from visionsweep.streams import keep_streams
from visionsweep.text import counted, did_you_mean
from visionsweep.tracking.lifecycle import Upload, store_to_resume

_METHODS: Final = ("greedy", "weights", "uniform", "soup")
_DEFAULTS: Final = {
    "out": "",
    "method": "greedy",
    "metric": "log_loss",
    "decisions": "none",
    "decisions.test_prior": "train",
}
_HELP = """\
usage: {command} DIR [DIR ...] out=outputs/NAME [key=value ...]

Combine finished runs into a run that predict takes. DIR is a sweep (multirun/STUDY), a run, or a
folder of runs; the folds of a trial count as one member, on its out-of-fold predictions.

  out=outputs/NAME       the directory to write
  method=greedy          selection with replacement; weights: convex weights with the least log
                         loss; uniform: all alike; soup: one network, the mean of the weights
  metric=log_loss        what greedy selection improves: {metrics}
  decisions=none         auto: fit temperature and class offsets for macro F1, and store them where
                         they clearly help; prior, offsets: store them in any case
  decisions.test_prior=train
                         class frequencies of the test: train, uniform, or [0.2,0.8]
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What the command asks for."""

    directories: list[Path]
    out: Path
    method: str
    metric: Metric
    decisions: Wanted
    test_prior: TestPrior


def main(argv: list[str]) -> int:
    """Make the ensemble that `argv` asks for and return the exit code."""
    keep_streams()
    mask_logs()
    if any(argument in ("-h", "--help") for argument in argv):
        metrics = ", ".join(METRICS)
        sys.stdout.write(_HELP.format(command=command("ensemble"), metrics=metrics))
        return 0
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stdout)
    wait_passively()
    try:
        request = parse(argv)
        refuse_used(request.out)
        typed = shlex.join([command("ensemble"), *argv])
        if request.method == "soup":
            from visionsweep.run.soup import write_soup  # torch takes seconds

            lines = write_soup(request.directories, request.out, typed)
        else:
            lines = make_ensemble(request, typed)
        sys.stdout.write("\n".join([*lines, f"wrote {shown(request.out)}"]) + "\n")
        tracking = read_config(request.out).get("tracking")
        if isinstance(tracking, dict) and tracking.get("enabled"):
            config = TrackingConfig(**tracking)
            config.uri = store_to_resume(request.out, config.uri)
            Upload(request.out, config).finish()
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("stopped; nothing was written\n")
        return 130
    return 0


def parse(argv: Sequence[str]) -> Request:
    """Return what `argv` asks for. Raises `ConfigError` for a mistake."""
    directories, values = split_arguments(argv, _DEFAULTS)
    if not directories:
        raise ConfigError(
            f"ensemble: expected runs or a sweep, e.g. {command('ensemble')} multirun/STUDY "
            "out=outputs/NAME"
        )
    if "out" not in values:
        raise ConfigError("out: not set; give out=outputs/NAME, the directory to write")
    return _request(directories, _DEFAULTS | values, set(values))


def _request(directories: list[Path], values: dict[str, str], given: set[str]) -> Request:
    allowed = {"method": _METHODS, "metric": METRICS, "decisions": get_args(Wanted)}
    for key, options in allowed.items():
        if values[key] not in options:
            hint = did_you_mean(values[key], options)
            raise ConfigError(f"{key}: expected {', '.join(options)}, got '{values[key]}'{hint}")
    method = values["method"]
    if "metric" in given and method in ("weights", "soup") and values["metric"] != "log_loss":
        least = "have the least log loss" if method == "weights" else "are chosen by nothing"
        raise ConfigError(
            f"metric={values['metric']}: is for method=greedy; the weights of method={method} "
            f"{least}; leave it out"
        )
    test_prior = parse_test_prior(values["decisions.test_prior"])
    if test_prior != "train" and values["decisions"] == "none":
        raise ConfigError(
            f"decisions.test_prior={values['decisions.test_prior']}: is read where decisions are "
            "fitted; set decisions=auto"
        )
    if method == "soup" and values["decisions"] != "none":
        raise ConfigError(
            "decisions: a soup is one network; give them to predict: "
            f"predict.py run={values['out']} decisions={values['decisions']}"
        )
    return Request(
        directories,
        Path(values["out"]).expanduser(),
        method,
        cast(Metric, values["metric"]),
        cast(Wanted, values["decisions"]),
        test_prior,
    )


def make_ensemble(request: Request, typed: str) -> list[str]:
    """Choose and write the ensemble; return the lines that tell about it."""
    found = read_members(request.directories)
    shares(request.test_prior, len(found.class_names))  # fails before anything is computed
    method, metric = cast(Method, request.method), request.metric
    kept = with_weights(found.members)
    members = [found.members[index] for index in kept]
    probabilities = found.probabilities()
    lines = [f"left out: {line}" for line in found.left_out]
    if len(kept) < len(found.members):
        lines.append(
            f"{len(kept)} of {counted(len(found.members), 'member')} have their weights "
            "(a sweep keeps those of its best trials: hydra.sweeper.keep_checkpoints)"
        )
        if method != "uniform":
            wanted = choose_weights(method, metric, probabilities, found.targets)
            missed = missed_line(found.members, wanted)
            lines += [] if missed is None else [missed]
    choice = choose_ensemble(method, metric, probabilities[kept], found.targets, found.groups)
    data = HeldOut(choice.predicted, found.targets, found.groups)
    decisions, reasons = decide(request.decisions, data, request.test_prior)
    ensemble = Ensemble(method, metric, members, choice, decisions)
    write_ensemble(request.out, ensemble, typed)
    return [*lines, *_table(members, choice, metric), *_scores(ensemble, data), *reasons]


def _table(members: Sequence[Member], choice: Choice, metric: Metric) -> list[str]:
    lines = [f"weight  val/{metric}  member"]
    for index in choice.used:
        member = members[index]
        value = score(metric, member.val.probabilities(), member.val.targets)
        folds = f" ({len(member.runs)} folds)" if member.is_folds else ""
        lines.append(
            f"{choice.weights[index]:6.3f}  {value:{4 + len(metric)}.4f}  {member.name}{folds}"
        )
    return lines


def _scores(ensemble: Ensemble, data: HeldOut) -> list[str]:
    choice, metric = ensemble.choice, ensemble.metric
    count = f"{len(choice.used)} of {counted(len(ensemble.members), 'member')}"
    single = ensemble.members[choice.best].name
    lines = [
        f"ensemble of {count}: val/{metric} {choice.score:.4f} cross-fitted "
        f"({choice.raw_score:.4f} on the images that it was chosen on)",
    ]
    if len(ensemble.members) > 1 and choice.used == [choice.best]:
        lines.append("no other member makes the best single one better")
    elif len(ensemble.members) > 1:
        lines += [
            f"best single member: val/{metric} {choice.best_score:.4f} cross-fitted "
            f"({choice.best_raw_score:.4f}), {single}",
            f"gain of the ensemble: {choice.gain:+.4f} (95 %: {choice.low:+.4f} to "
            f"{choice.high:+.4f}, positive is better)",
        ]
    if metric != "f1_macro":
        f1 = score("f1_macro", data.probabilities, data.targets)
        lines.append(f"its val/f1_macro: {f1:.4f} cross-fitted")
    return lines
