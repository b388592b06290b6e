"""One experiment, or with `--multirun` a sweep: `python train.py loss=focal optim=adamp`. See README.md."""

import hydra
from omegaconf import DictConfig

from visionsweep import cli
from visionsweep.config.build import allowed_targets


@hydra.main(config_path="conf", config_name="config", execution_whitelist=allowed_targets())
def main(cfg: DictConfig) -> float | tuple[float, ...]:
    """Run one experiment and return its objective, or objectives."""
    return cli.run_experiment(cfg)


if __name__ == "__main__":
    cli.start(main)
