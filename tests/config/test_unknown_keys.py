"""A key that nothing reads is an error, however it was added, and the advice can be followed."""

from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException

from tests.conftest import Compose
from visionsweep.config.hydra_errors import one_line
from visionsweep.config.unknown_keys import refuse_unknown_keys
from visionsweep.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+lr=0.001", "lr: no such key; did you mean optim.lr?"),
        ("++epochs=5", "epochs: no such key; did you mean trainer.epochs?"),
        ("+trainer.lr=1", "trainer.lr: no such key; did you mean optim.lr?"),
        ("+tracking.zzz={a: 1}", "tracking.zzz: no such key; tracking has enabled, uri, "),
        ("+split.stratify=true", "split.stratify: no such key; split has val_fraction, "),
        (
            "+trainer.early_stopping.patienc=1",
            "trainer.early_stopping.patienc: no such key; "
            "did you mean trainer.early_stopping.patience?",
        ),
        ("+hydra.sweeper.n_trialz=3", "hydra.sweeper.n_trialz: no such key; did you mean "),
        ("+hydra.launcher.jobs=3", "hydra.launcher.jobs: no such key; did you mean "),
    ],
)
def test_an_added_key_that_nothing_reads_is_refused(
    override: str, message: str, compose: Compose
) -> None:
    with pytest.raises(ConfigError) as error:
        refuse_unknown_keys(compose(override, return_hydra_config=True))
    assert str(error.value).startswith(message)


def test_the_keys_of_components_and_dictionaries_are_free(compose: Compose) -> None:
    added = ["+loss.anything=1", "objective.others={val/loss: minimize}", "+hydra.job.foo=1"]
    refuse_unknown_keys(compose(*added, return_hydra_config=True))


@pytest.mark.parametrize(
    ("override", "advice"),
    [
        ("optim.momentum=0.9", False),  # AdamW has none
        ("optim.amsgrad=true", True),
        ("trainer.zzz=1", False),
        ("augment.steps.mine=1", True),
    ],
)
def test_a_key_is_added_only_where_it_is_read(
    override: str, advice: bool, compose: Compose
) -> None:
    with pytest.raises(ConfigCompositionException) as error:
        compose(override)
    assert (f"(add a new key with +{override})" in one_line(error.value)) is advice


def test_a_config_file_with_an_unknown_key_is_named(compose: Compose) -> None:
    folder = Path("theirs/experiment")
    folder.mkdir(parents=True)
    (folder / "bad.yaml").write_text("# @package _global_\ntrainer: {epoch: 3}\n")
    with pytest.raises(ConfigCompositionException) as error:
        compose(f"hydra.searchpath=[file://{folder.parent.absolute()}]", "experiment=bad")
    assert one_line(error.value) == "In 'experiment/bad': trainer.epoch: no such key"
