"""Automatic choices of the machine's resources."""

import pytest

from visionsweep.errors import ConfigError
from visionsweep.machine import count_cores
from visionsweep.training.devices import choose_device, choose_threads


def test_a_worker_uses_its_share_unless_a_number_is_set() -> None:
    assert choose_threads(None, 3) == (3, "the worker's share")
    assert choose_threads(2, 3) == (2, "trainer.threads")
    assert choose_threads(None) == (count_cores(), "all cores")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("gpu", r"trainer\.device: expected auto, cpu, cuda, cuda:N or mps, got 'gpu'"),
        ("cuda:99", r"trainer\.device: this machine has no 'cuda:99' \(\d+ cuda devices\)"),
    ],
)
def test_a_missing_device_is_named(wanted: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_device(wanted)
