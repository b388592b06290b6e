"""How a run ends that the user stopped."""

from pathlib import Path

from visionsweep.config.paths import shown
from visionsweep.program import command
from visionsweep.sweep.trial import TrialStopped


class Stopped(TrialStopped):
    """The user stopped the run; it can be resumed."""

    def __init__(self, run_dir: Path, signal_number: int) -> None:
        super().__init__(f"stopped; resume with: {command('train')} resume={shown(run_dir)}")
        self.signal_number = signal_number
