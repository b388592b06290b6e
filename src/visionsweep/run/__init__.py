"""One run: `run(cfg)` trains it, `check(cfg)` builds its parts and writes nothing."""

from visionsweep.run.stopped import Stopped
from visionsweep.run.train import check, run

__all__ = ["Stopped", "check", "run"]
