"""Trial records and settings for tests."""

from typing import Any

from omegaconf import OmegaConf

from hydra_plugins.visionsweep_sweep.config import OptunaAsyncSweeperConf
from visionsweep.sweep.settings import SweepSettings, read_settings
from visionsweep.sweep.trial_record import TrialRecord

RANDOM = {"_target_": "optuna.samplers.RandomSampler", "seed": 0}


def record(number: int, *values: float, state: Any = "complete", **more: Any) -> TrialRecord:
    given = {"params": {}, "start": None, "end": None, "epochs": None, "directory": str(number)}
    return TrialRecord(number, state, values or None, **(given | more))  # type: ignore[arg-type]


def sweep_settings(**keys: Any) -> SweepSettings:
    """Return the defaults of `hydra/sweeper=optuna_async` with these changes."""
    node = OmegaConf.to_container(OmegaConf.structured(OptunaAsyncSweeperConf))
    assert isinstance(node, dict)
    del node["defaults"]
    given = {"sampler": RANDOM, "pruner": None, "direction": "maximize"} | keys
    return read_settings({str(k): v for k, v in node.items()} | given)
