"""The trial of a worker's job: what may be reported, and which answer counts."""

import math
import multiprocessing
import queue
from typing import Any

import numpy as np
import pytest

from visionsweep.sweep.engines.engine import Job
from visionsweep.sweep.engines.local.process import WorkerTrial


class FakeChannel:
    """Answers each report, first to an earlier job that did not wait for its answer."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.answers: queue.SimpleQueue[tuple[str, bool, bool]] = queue.SimpleQueue()

    def send(self, *message: Any) -> None:
        self.sent.append(message)
        self.answers.put(("earlier", False, False))
        self.answers.put(("now", True, False))


@pytest.fixture
def trial() -> WorkerTrial:
    return WorkerTrial(FakeChannel(), Job("now", 0, ()), 1)  # type: ignore[arg-type]


def test_only_the_answer_to_the_own_report_counts(trial: WorkerTrial) -> None:
    assert trial.report(0.5, 1) is True
    assert trial._channel.sent == [("report", "now", 1, 0.5, ())]  # type: ignore[attr-defined]


def test_a_report_may_have_several_values(trial: WorkerTrial) -> None:
    trial.report((np.float32(0.5), 3, float("nan")), 1)
    [(*_, first, others)] = trial._channel.sent  # type: ignore[attr-defined]
    assert (first, others[0], math.isnan(others[1])) == (0.5, 3.0, True)
    assert {type(value) for value in (first, *others)} == {float}


@pytest.mark.parametrize(
    ("value", "step", "error", "message"),
    [
        ([], 3, TypeError, r"expected a number at step 3, got \[\]"),
        ([0.5, None], 3, TypeError, "expected a number at step 3, got None"),
        ([float("nan"), 1.0], 3, ValueError, "the objective is nan at step 3"),
        (None, 3, TypeError, "expected a number at step 3, got None"),
        ("0.5", 3, TypeError, "expected a number at step 3, got '0.5'"),
        (float("nan"), 3, ValueError, "the objective is nan at step 3; expected a finite number"),
        (0.5, 1.5, TypeError, "expected an integer as step .*, got 1.5"),
        (0.5, -1, ValueError, "expected a step from 0 to 2147483647, got -1"),
        (0.5, 2**31, ValueError, "expected a step from 0 to 2147483647, got 2147483648"),
    ],
)
def test_a_report_must_be_a_finite_number_at_a_step(
    trial: WorkerTrial, value: Any, step: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=rf"^trial\.report: {message}"):
        trial.report(value, step)


class Scalar:
    """Stands for one of NumPy or torch."""

    def item(self) -> float:
        return 0.5


def test_attributes_are_values_of_json(trial: WorkerTrial) -> None:
    trial.set(size=3, shape=(1, 2), score=Scalar())
    sent = ("attributes", "now", {"size": 3, "shape": [1, 2], "score": 0.5})
    assert trial._channel.sent == [sent]  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"^trial\.set: model: expected a number.* got a object"):
        trial.set(model=object())


def test_a_child_process_of_the_job_cannot_report(trial: WorkerTrial) -> None:
    """It would mix its bytes into the worker's messages."""
    child = multiprocessing.get_context("fork").Process(target=trial.report, args=(0.5, 1))
    child.start()
    child.join()
    assert child.exitcode == 1
