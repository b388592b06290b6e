"""One run: `run(cfg)` trains it, `check(cfg)` builds all of it and trains nothing."""

from visionsweep.run.train import Stopped, check, run

__all__ = ["Stopped", "check", "run"]
