"""One run: `run(cfg)` trains it, `check(cfg)` builds its parts and writes nothing."""

from visionsweep.run.train import Stopped, check, run

__all__ = ["Stopped", "check", "run"]
