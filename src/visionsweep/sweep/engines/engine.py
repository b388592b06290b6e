"""What an engine offers to the controller: slots that run jobs, and events about them.

The words are those of Hydra's design note on asynchronous sweeps (issue #3201). `local` has the
engine of this machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

State = Literal[
    "completed",
    "pruned",
    "stopped",
    "failed",
    "timed_out",
    "out_of_memory",
    "out_of_space",
    "lost",
]
RETRIED = ("out_of_memory", "lost")  # states that say nothing about the configuration


@dataclass(frozen=True)
class Check:
    """A function that workers call with a config."""

    function: str  # its dotted name
    key: str = "hydra.sweeper.check"  # the setting that names it
    is_called: bool = True  # False: it is only imported

    def __str__(self) -> str:
        """Return the setting, as it is typed."""
        return f"{self.key}={self.function}"


@dataclass(frozen=True)
class Job:
    """One run of the task function."""

    key: str  # unique among running jobs, and the run's place below the sweep's directory
    number: int  # hydra.job.num: the trial's number
    overrides: tuple[str, ...]  # complete, as `config_loader.load_sweep_config` takes them
    params: Mapping[str, Any] = field(default_factory=dict)  # the searched ones, in order
    attempt: int = 0  # number of earlier starts
    check: Check | None = None  # call this function instead, with the config; nothing is written
    config: Any = None  # the composed DictConfig; None: the worker composes it


@dataclass(frozen=True)
class Started:
    """A worker started a job."""

    key: str
    slot: int
    time: float  # time.time()


@dataclass(frozen=True)
class Reported:
    """A job reported, and waits for `Engine.answer`."""

    key: str
    step: int
    value: float
    others: tuple[float, ...] = ()  # further objectives, if it reported them; NaN: unknown


@dataclass(frozen=True)
class AttributesSet:
    """A job attached values to its trial."""

    key: str
    attributes: Mapping[str, Any]  # values of JSON


@dataclass(frozen=True)
class Ended:
    """A job ended; its slot is free again."""

    key: str
    state: State
    value: Any = None  # what the task function returned, if completed
    error: str | None = None  # one line: "ValueError: ...", "killed by signal 9 (SIGKILL)"
    traceback: str | None = None  # of an exception of the task function
    started: float = 0.0  # time.time()
    ended: float = 0.0
    job_return: Any = None  # hydra.core.utils.JobReturn, for Hydra's launcher interface


Event = Started | Reported | AttributesSet | Ended


class Engine(Protocol):
    """Slots that run one job each."""

    @property
    def num_slots(self) -> int:
        """Number of jobs that run at once."""

    @property
    def num_free(self) -> int:
        """Number of jobs that `submit` accepts now."""

    @property
    def num_cores(self) -> int:
        """CPU cores of the machine that the slots share."""

    @property
    def threads(self) -> int:
        """CPU threads of one slot."""

    def submit(self, job: Job) -> None:
        """Give a job to a free slot; returns at once."""

    def poll(self, timeout_seconds: float) -> list[Event]:
        """Return the events since the last call; waits for a first one until the timeout."""

    def answer(self, key: str, *, prune: bool, pause: bool = False) -> None:
        """Answer a report. ``pause``: the job ends as `stopped`, at its checkpoint."""

    def stop(self) -> None:
        """Ask every job to end at its next checkpoint (`Trial.should_stop`)."""

    def close(self) -> None:
        """Kill every worker. No process is left when this returns."""
