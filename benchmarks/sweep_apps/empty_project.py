"""A Hydra app for `sweep_overhead.py` whose trials only compose this project's whole config."""

import math
from pathlib import Path

import hydra
from omegaconf import DictConfig

import visionsweep.config.schema  # noqa: F401 - registers the schema
from visionsweep.config.build import allowed_targets

CONF = Path(__file__).resolve().parents[2] / "conf"


@hydra.main(config_path=str(CONF), config_name="config", execution_whitelist=allowed_targets())
def main(cfg: DictConfig) -> float:
    """Return a function of the parameters immediately, without importing torch."""
    return -abs(math.log10(cfg.optim.lr) + 2) - 0.1 * len(cfg.loss) - 0.01 * cfg.trainer.accumulate


if __name__ == "__main__":
    main()
