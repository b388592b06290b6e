"""Class weights against their formulas and timm's; wrong settings."""

import inspect

import pytest
import torch
import yaml
from hydra.utils import get_class
from timm.loss.class_weights import compute_class_weights as timm_class_weights

from tests.conftest import ROOT
from visionsweep.errors import ConfigError
from visionsweep.losses.class_weights import compute_class_weights
from visionsweep.losses.cross_entropy import CrossEntropyLoss

COUNTS = torch.tensor([100, 10, 40])


def test_balanced_is_one_over_the_count_with_mean_one():
    weights = compute_class_weights("balanced", COUNTS, beta=0.999)
    # 1/100 : 1/10 : 1/40 = 2 : 20 : 5, and 27 / 3 = 9.
    torch.testing.assert_close(weights, torch.tensor([2 / 9, 20 / 9, 5 / 9]))


def test_effective_number_follows_the_paper():
    weights = compute_class_weights("effective", COUNTS, beta=0.9)
    # The effective number of n samples is 1 + beta + ... + beta^(n-1).
    inverse = [1 / sum(0.9**i for i in range(n)) for n in COUNTS.tolist()]
    torch.testing.assert_close(weights, torch.tensor([3 * w / sum(inverse) for w in inverse]))


@pytest.mark.parametrize(
    ("spec", "method"), [("balanced", "inv_freq"), ("effective", "effective_num")]
)
def test_weights_are_those_of_timm(spec, method):
    _, expected = timm_class_weights(COUNTS, num_samples=150, method=method, beta=0.99)
    torch.testing.assert_close(compute_class_weights(spec, COUNTS, beta=0.99), expected)


def test_effective_number_runs_from_none_to_balanced():
    torch.testing.assert_close(compute_class_weights("effective", COUNTS, beta=0.0), torch.ones(3))
    balanced = compute_class_weights("balanced", COUNTS, beta=0.0)
    almost = compute_class_weights("effective", COUNTS, beta=1 - 1e-7)
    torch.testing.assert_close(almost, balanced, rtol=1e-4, atol=0)


@pytest.mark.parametrize("spec", ["balanced", "effective"])
def test_an_empty_class_changes_nothing_for_the_others(spec):
    with_empty = compute_class_weights(spec, torch.tensor([100, 0, 10, 40]), beta=0.99)
    torch.testing.assert_close(
        with_empty[[0, 2, 3]], compute_class_weights(spec, COUNTS, beta=0.99)
    )
    assert with_empty[1] == 1


def test_a_list_is_used_as_given_and_none_returns_none():
    assert compute_class_weights([1, 2.5, 3], COUNTS, beta=0.9).tolist() == [1, 2.5, 3]
    assert compute_class_weights("none", COUNTS, beta=0.9) is None


@pytest.mark.parametrize(
    ("spec", "beta", "message"),
    [
        ("balancd", 0.9, r"class_weights: expected none, balanced, effective or .*got 'balancd'"),
        ([1.0, 2.0], 0.9, r"class_weights: expected 3 numbers, .*got 2"),
        ([1.0, 0.0, 2.0], 0.9, r"class_weights: expected numbers above 0, got 0\.0"),
        ([1.0, float("nan"), 2.0], 0.9, r"class_weights: .*got nan"),
        ([1.0, "x", 2.0], 0.9, r"class_weights: .*got 'x'"),
        ("effective", 1.0, r"beta: expected a number in \[0, 1\), .*got 1\.0"),
        ("none", -0.5, r"beta: .*got -0\.5"),
    ],
)
def test_wrong_settings_are_refused(spec, beta, message):
    with pytest.raises(ConfigError, match=rf"^loss\.{message}"):
        compute_class_weights(spec, COUNTS, beta)


def test_a_loss_takes_weights_from_the_training_counts():
    loss = CrossEntropyLoss("balanced", class_counts=COUNTS)
    targets = torch.tensor([1, 1, 0])
    torch.testing.assert_close(loss.sample_weights(targets), torch.tensor([20 / 9, 20 / 9, 2 / 9]))
    with pytest.raises(ValueError, match="need class_counts"):
        CrossEntropyLoss("balanced")


def test_every_yaml_lists_the_class_weights_that_its_loss_takes():
    for path in (ROOT / "conf/loss").glob("*.yaml"):
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
        parameters = inspect.signature(get_class(node["_target_"])).parameters
        for key in ("class_weights", "beta"):
            assert (key in parameters) == (key in node), path
