"""A soup of two small networks that started from one file of weights."""

from pathlib import Path

import pytest
import torch

from tests.conftest import QUICK, CommandLine
from visionsweep.cli.ensemble import main
from visionsweep.data.digits import load_digits
from visionsweep.rundir.journal import read_journal
from visionsweep.rundir.layout import BEST
from visionsweep.rundir.predictions import read_predictions
from visionsweep.rundir.result import read_result
from visionsweep.training import checkpoint
from visionsweep.training.predictor import load_predictor

TIMM = ["model=timm", "model.name=test_resnet", "model.pretrained=start.pth"]


@pytest.mark.slow
def test_a_soup_is_the_mean_of_all_weights_and_statistics(
    tmp_path: Path, command_line: CommandLine
) -> None:
    import timm

    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "start.pth")
    for name, lr in (("a", 1e-3), ("b", 2e-3)):
        outcome = command_line(
            *QUICK, *TIMM, "trainer.epochs=1", "split.val_fraction=0.5", f"optim.lr={lr}",
            f"name={name}", "trainer.batch_size=64",
        )  # fmt: skip
        assert outcome.code == 0, outcome.text
    assert main(["outputs/a", "outputs/b", "out=outputs/soup", "method=soup"]) == 0
    one, other, soup = (
        checkpoint.load(Path("outputs", name) / BEST)["model"] for name in ("a", "b", "soup")
    )
    assert any("running_mean" in key for key in soup)
    for key, value in soup.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (one[key] + other[key]) / 2)
        else:
            assert torch.equal(value, one[key])
    assert not torch.equal(one["fc.weight"], other["fc.weight"])
    # what is stored is what the network says
    dataset, val = load_digits(), read_predictions(Path("outputs/soup")).val
    rows = [dataset.train.ids.index(name) for name in val.ids.tolist()]
    with torch.inference_mode():
        expected = load_predictor(Path("outputs/soup"))(dataset.train.images[rows])
    torch.testing.assert_close(torch.from_numpy(val.probabilities()), expected, atol=1e-5, rtol=0)
    result = read_result(Path("outputs/soup"))
    assert result is not None
    accuracy = (expected.argmax(dim=1).numpy() == val.targets).mean()
    assert result["metrics"]["val/accuracy"] == pytest.approx(accuracy)
    start = next(one for one in read_journal(Path("outputs/soup")) if one["type"] == "start")
    assert start["tags"]["run_dir"] == str(tmp_path / "outputs/soup")
    sources = [str(tmp_path / "outputs" / name) for name in ("a", "b")]
    expected_params = {"ensemble.method": "soup", **{f"member.{run}": "0.5" for run in sources}}
    assert start["params"] == expected_params
    assert result["soup"] == sources
