"""The direction that a sweeper takes from the objective."""

from omegaconf import open_dict

from tests.conftest import Compose
from visionsweep.config.schema import directions


def test_the_resolver_gives_what_a_sweeper_takes(compose: Compose) -> None:
    assert directions("maximize", {}) == "maximize"
    assert directions("maximize", {"a": "minimize", "b": "maximize"}) == [
        "maximize",
        "minimize",
        "maximize",
    ]
    reference = "${visionsweep.directions:${objective.direction},${objective.others}}"
    for others, expected in (
        ("{}", "maximize"),
        ("{num_parameters: minimize}", ["maximize", "minimize"]),
    ):
        cfg = compose(f"objective.others={others}")
        with open_dict(cfg):
            cfg.direction = reference
        assert cfg.direction == expected
