"""One run: `run(cfg)` trains it, `check(cfg)` builds its parts and writes nothing.

`evaluate_test(cfg)` scores a finished one on the test split.
"""

from visionsweep.run.evaluate import evaluate_test
from visionsweep.run.stopped import Stopped
from visionsweep.run.train import check, run

__all__ = ["Stopped", "check", "evaluate_test", "run"]
