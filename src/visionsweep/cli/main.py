"""The command `visionsweep VERB`. Each verb imports only what it needs."""

import os
import sys
from collections.abc import Callable
from importlib import import_module, metadata

from visionsweep.program import fail, start_verb
from visionsweep.streams import keep_streams
from visionsweep.text import did_you_mean

_VERBS = {
    "train": ("visionsweep.cli.train", "train a model; with --multirun, search for a better one"),
    "predict": ("visionsweep.predict.command", "predict images with trained runs"),
    "evaluate": ("visionsweep.cli.evaluate", "evaluate the test split with a sweep's best run"),
    "ensemble": ("visionsweep.cli.ensemble", "combine finished runs into one that predicts"),
    "sync": ("visionsweep.tracking.sync", "send runs that MLflow does not have yet"),
    "compare": (
        "visionsweep.answer.command",
        "tell whether one setting beats another",
    ),
    "report": ("visionsweep.report.command", "draw the pictures of a run, the page of a sweep"),
}
# What people take for a verb.
_ELSEWHERE = {
    "resume": "train resume=outputs/NAME",
    "sweep": "train --multirun",
}
_HELP = """\
usage: visionsweep VERB [...]

{verbs}

visionsweep VERB --help has more. Without data: visionsweep train
Configs of your own go into conf/, e.g. conf/loss/mine.yaml, and are found before visionsweep's."""


def main() -> int:
    """Run the verb in ``sys.argv`` and return its exit code."""
    keep_streams()
    script, *arguments = sys.argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        verbs = "\n".join(f"  {verb:<9}{meaning}" for verb, (_, meaning) in _VERBS.items())
        print(_HELP.format(verbs=verbs))  # noqa: T201
        return 0 if arguments else 1
    verb, *arguments = arguments
    if verb == "--version":
        print(f"visionsweep {metadata.version('visionsweep')}")  # noqa: T201
        return 0
    if verb in _ELSEWHERE:
        fail(f"{verb}: expected {', '.join(_VERBS)}; that is visionsweep {_ELSEWHERE[verb]}")
    if verb not in _VERBS:
        fail(f"{verb}: expected {', '.join(_VERBS)}{did_you_mean(verb, _VERBS)}")
    # So that modules of the user's own are found, e.g. the class that conf/loss/mine.yaml names.
    sys.path.append(os.getcwd())
    start_verb(script, verb, arguments)
    run_verb: Callable[[list[str]], int] = import_module(_VERBS[verb][0]).main
    return run_verb(arguments)
