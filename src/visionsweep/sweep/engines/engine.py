"""What runs jobs: submit, poll, cancel. The local one is `workers`; a cluster's would stand beside it.

The words are those of Hydra's design note on asynchronous sweeps (issue #3201): a job is submitted, reports, and ends
with an outcome; the engine supervises it in between.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

State = Literal["completed", "pruned", "stopped", "failed", "timed_out", "out_of_memory", "lost"]
RETRIED = ("out_of_memory", "lost")  # states that say nothing about the configuration


@dataclass(frozen=True)
class Job:
    """One run of the task function."""

    key: str  # unique among the jobs that run, and the job's directory below the sweep's: "7", or "7/seed_0"
    number: int  # hydra.job.num: the trial's number
    overrides: tuple[str, ...]  # complete, as `config_loader.load_sweep_config` takes them
    params: Mapping[str, Any] = field(default_factory=dict)  # the searched ones, in order
    attempt: int = 0  # how often it was started before
    check: str | None = (
        None  # call this function with the config instead: nothing is written, its value comes back
    )
    config: Any = (
        None  # the composed DictConfig where the controller had the time; None: the worker composes
    )


@dataclass(frozen=True)
class Started:
    """A worker began with a job."""

    key: str
    slot: int
    time: float  # time.time()


@dataclass(frozen=True)
class Reported:
    """A job reported; it waits until `Engine.answer` is called."""

    key: str
    step: int
    value: float


@dataclass(frozen=True)
class Ended:
    """A job ended; its slot is free again."""

    key: str
    state: State
    value: Any = None  # what the task function returned, where it completed
    error: str | None = (
        None  # one line: "ValueError: ...", "killed by signal 9", "no answer within 60 s"
    )
    traceback: str | None = None  # of an exception of the task function
    started: float = 0.0  # time.time()
    ended: float = 0.0
    job_return: Any = None  # hydra.core.utils.JobReturn, for Hydra's own launcher interface


Event = Started | Reported | Ended


class Engine(Protocol):
    """Slots that run one job each."""

    @property
    def num_slots(self) -> int:
        """How many jobs run at once."""

    @property
    def num_free(self) -> int:
        """How many more jobs `submit` takes now."""

    @property
    def num_cores(self) -> int:
        """CPU cores of the machine that the slots share."""

    @property
    def threads(self) -> int:
        """CPU threads of one slot."""

    def submit(self, job: Job) -> None:
        """Hand out a job to a free slot; returns at once."""

    def poll(self, timeout_seconds: float) -> list[Event]:
        """Return what happened since the last call; waits at most so long for a first event."""

    def answer(self, key: str, *, prune: bool) -> None:
        """Answer a report."""

    def cancel(self, key: str, reason: str) -> None:
        """End a job at once, its process included; it ends as `stopped` with the reason as its error."""

    def stop(self) -> None:
        """Ask every job to end at its next checkpoint (`Trial.should_stop`)."""

    def close(self) -> None:
        """End every worker at once. No process is left when this returns."""
