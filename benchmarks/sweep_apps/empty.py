"""A Hydra app for `sweep_overhead.py` whose trials do nothing; its config holds only parameters."""

import hydra
from omegaconf import DictConfig


@hydra.main(config_path=None, config_name=None)
def main(cfg: DictConfig) -> float:
    """Return a function of the parameters immediately."""
    return float((cfg.a - 1) ** 2 + cfg.b + (cfg.c == "left") + 0.1 * cfg.d)


if __name__ == "__main__":
    main()
