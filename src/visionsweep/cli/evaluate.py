"""`visionsweep evaluate`: evaluates the test split with the best checkpoint of a finished run.

A single run does so by itself at its end. The trials of a sweep do not, since scores on the test
split invite to choose by them.
"""

import logging
import sys
from dataclasses import replace
from pathlib import Path

from visionsweep.errors import UserError
from visionsweep.machine import wait_passively
from visionsweep.masking import mask_logs
from visionsweep.program import command, fail
from visionsweep.streams import keep_streams
from visionsweep.text import did_you_mean
from visionsweep.tracking.lifecycle import Upload, store_to_resume

_HELP = """\
usage: {command} run=DIR

Evaluate the test split with the best checkpoint of a finished run, once. The scores are
printed, added to the run's result.json and predictions.npz, and sent to MLflow.

  run=outputs/NAME          a run
  run=multirun/STUDY/best   the best trial of a sweep; with seeds or folds, all of its runs
"""


def main(argv: list[str]) -> int:
    """Evaluate the run that `argv` names and return the exit code."""
    keep_streams()
    mask_logs()
    if any(argument in ("-h", "--help") for argument in argv):
        sys.stdout.write(_HELP.format(command=command("evaluate")))
        return 0
    directory = _directory(argv)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stdout)
    wait_passively()
    try:
        from visionsweep.run.evaluate import evaluate_trial  # torch takes seconds

        for changed, tracking in evaluate_trial(directory).items():
            uri = store_to_resume(changed, tracking.uri)
            Upload(changed, replace(tracking, uri=uri)).finish()
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command evaluates the run\n")
        return 130
    return 0


def _directory(argv: list[str]) -> Path:
    usage = f"expected {command('evaluate')} run=DIR, e.g. run=multirun/STUDY/best"
    for argument in argv:
        key, has_value, _ = argument.partition("=")
        if key != "run" or not has_value:
            hint = did_you_mean(key, ["run"]) if has_value else ""
            fail(f"{argument}: {usage}{hint}")
    if len(argv) != 1 or argv[0] == "run=":
        fail(f"run: {usage}")
    return Path(argv[0].removeprefix("run=")).expanduser()
