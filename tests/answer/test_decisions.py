"""Temperature and class offsets: fitted, judged, stored."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import f1_score

from visionsweep.answer.decisions import Decisions, HeldOut, choose, default_method, fit, judge
from visionsweep.answer.score import with_prior
from visionsweep.answer.stored_decisions import (
    decide,
    parse_test_prior,
    read_decisions,
    shares,
    write_decisions,
)
from visionsweep.errors import ConfigError, DataError
from visionsweep.rundir.layout import DECISIONS

K = 4
UNIFORM = np.full(K, 1 / K)
MEANS = np.random.default_rng(0).normal(0, 1.2, (K, 3))


def draw(
    counts: list[int], seed: int, sharpness: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the true posteriors of normal classes, raised to a power; targets; log likelihoods."""
    rng = np.random.default_rng(seed)
    targets = np.repeat(np.arange(K), counts)
    points = MEANS[targets] + rng.normal(size=(len(targets), 3))
    logs = -((points[:, None] - MEANS) ** 2).sum(axis=2) / 2
    prior = np.array(counts) / sum(counts)
    return softmax(sharpness * (logs + np.log(prior)), axis=1), targets, logs


def test_the_prior_method_finds_the_temperature_and_gives_the_posterior_of_the_test() -> None:
    probabilities, targets, logs = draw([8000, 2000, 600, 300], 0, sharpness=1.7)
    decisions = fit("prior", HeldOut(probabilities, targets), UNIFORM)
    assert decisions.temperature == pytest.approx(1.7, rel=0.05)
    expected = softmax(logs, axis=1)  # Bayes with equal priors
    assert np.abs(decisions.apply(probabilities) - expected).mean() < 0.01
    assert np.abs(probabilities - expected).mean() > 0.05


def test_offsets_start_at_the_prior_and_do_better_on_what_they_were_fitted_to() -> None:
    probabilities, targets, _ = draw([400, 100, 30, 15], 1)
    data = HeldOut(probabilities, targets)

    def f1(method: str) -> float:
        preds = fit(method, data, None).apply(probabilities).argmax(axis=1)  # type: ignore[arg-type]
        return float(f1_score(targets, preds, average="macro"))

    assert f1("offsets") > f1("prior") + 0.01
    assert default_method(None) == "offsets"


def test_gains_are_those_of_a_test_with_the_other_frequencies() -> None:
    """The weighted F1 of the long-tailed images against the F1 of images drawn uniformly."""
    probabilities, targets, _ = draw([3000, 800, 240, 120], 2)
    uniform, uniform_targets, _ = draw([20000] * K, 3)
    # as the network sees them: with the prior of its training images
    prior = np.array([3000, 800, 240, 120]) / 4160
    uniform = uniform * prior
    uniform /= uniform.sum(axis=1, keepdims=True)
    gain = judge("prior", HeldOut(probabilities, targets), UNIFORM)
    plain = f1_score(uniform_targets, uniform.argmax(axis=1), average="macro")
    decided = fit("prior", HeldOut(probabilities, targets), UNIFORM).apply(uniform)
    true_gain = f1_score(uniform_targets, decided.argmax(axis=1), average="macro") - plain
    assert true_gain > 0.04
    assert gain.plain == pytest.approx(plain, abs=0.03)
    assert gain.low < true_gain < gain.high
    assert gain.low > 0


def test_auto_applies_what_is_clear_and_nothing_else() -> None:
    probabilities, targets, _ = draw([400, 100, 30, 15], 4)
    found, gain = choose(HeldOut(probabilities, targets), UNIFORM)
    assert found is not None
    assert found.method == "prior"
    assert gain.is_clear
    found, gain = choose(HeldOut(probabilities, targets), None)
    assert found is None
    assert gain.low <= 0
    stored, (line,) = decide("auto", HeldOut(probabilities, targets), "train")
    assert stored is None
    assert line.startswith("decisions=auto for a test distributed like training: none, since the ")


def test_whole_groups_are_drawn_and_left_out() -> None:
    """Every image ten times, as groups: the interval is that of the images, not ten times them."""
    probabilities, targets, _ = draw([200, 60, 20, 10], 5)
    ten, tens = np.repeat(probabilities, 10, axis=0), np.repeat(targets, 10)
    groups = np.array([f"g{index}" for index in np.repeat(np.arange(len(targets)), 10)])
    grouped = judge("prior", HeldOut(ten, tens, groups), UNIFORM)
    each = judge("prior", HeldOut(ten, tens), UNIFORM)
    single = judge("prior", HeldOut(probabilities, targets), UNIFORM)
    assert grouped.high - grouped.low == pytest.approx(single.high - single.low, rel=0.3)
    assert each.high - each.low < (grouped.high - grouped.low) / 2


def test_a_matrix_with_another_prior() -> None:
    matrix = np.array([[8.0, 2], [1, 3]])
    np.testing.assert_allclose(
        with_prior(matrix, np.array([0.5, 0.5])), [[0.4, 0.1], [0.125, 0.375]]
    )
    np.testing.assert_allclose(
        with_prior(np.array([[0.0, 0], [1, 3]]), np.array([0.5, 0.5])), [[0, 0], [0.125, 0.375]]
    )


def test_the_argmax_is_that_of_the_formula() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.0, 0.6, 0.4]])
    decisions = Decisions("offsets", 2.0, (0.0, 1.0, 0.5))
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities) / 2 + [0, 1, 0.5]
    np.testing.assert_allclose(decisions.apply(probabilities), softmax(logits, axis=1), atol=1e-12)


def test_stored_decisions_are_read_again(tmp_path: Path) -> None:
    probabilities, targets, _ = draw([400, 100, 30, 15], 4)
    stored, (line,) = decide("prior", HeldOut(probabilities, targets), [1, 1, 1, 1])
    assert stored is not None
    assert read_decisions(tmp_path, K) is None
    write_decisions(tmp_path, stored)
    again = read_decisions(tmp_path, K)
    assert again is not None
    assert again == stored
    assert again.line == line
    assert line.startswith("decisions=prior for a test of the given class shares: macro F1 +0.")
    contents = json.loads((tmp_path / DECISIONS).read_text())
    contents["decisions"]["temperature"] = 0
    (tmp_path / DECISIONS).write_text(json.dumps(contents))
    for num_classes in (K, K + 1):
        with pytest.raises(DataError, match=r"decisions\.json \(expected . offsets and a temp"):
            read_decisions(tmp_path, num_classes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("even", "expected train, uniform or shares such as"),
        ("[1,x]", "expected train, uniform or shares such as"),
        ("[1,2]", "expected 4 shares, one per class in their order, got 2"),
        ("[0,0,0,0]", "expected shares of at least 0, not all of them 0"),
        ("[1,1,1,-1]", "expected shares of at least 0, not all of them 0"),
        ("[1,1,1,nan]", "expected shares of at least 0, not all of them 0"),
    ],
)
def test_a_prior_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^decisions\.test_prior: {message}"):
        shares(parse_test_prior(text), K)


def test_priors() -> None:
    assert shares("train", K) is None
    np.testing.assert_allclose(shares("uniform", K), UNIFORM)
    np.testing.assert_allclose(shares(parse_test_prior("[2, 1,1,0]"), K), [0.5, 0.25, 0.25, 0])
    with pytest.raises(ConfigError, match=r"^decisions=prior: changes nothing"):
        decide("prior", HeldOut(np.eye(2), np.arange(2)), "train")
