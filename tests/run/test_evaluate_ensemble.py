"""`visionsweep evaluate` of an ensemble: the test images again, through every network."""

import json
from pathlib import Path

import pytest

from tests.conftest import QUICK, CommandLine
from tests.images import make_folder, make_image
from visionsweep.cli.ensemble import main
from visionsweep.errors import UserError
from visionsweep.run.evaluate import evaluate_trial
from visionsweep.rundir.layout import RESULT

FOLDER = ["data=image_folder", "data.root=photos", "data.image_size=16", "model.widths=[4]"]


@pytest.mark.slow
def test_the_scores_are_those_of_the_members_own_test_predictions(
    tmp_path: Path, command_line: CommandLine
) -> None:
    make_folder(tmp_path / "photos/train")
    for index, name in enumerate(("cat", "dog", "fox")):
        (tmp_path / "photos/test" / name).mkdir(parents=True)
        for number in range(7):
            make_image(index, 200 + number).save(tmp_path / f"photos/test/{name}/{number}.png")
    for name in ("a", "b"):  # single runs, which evaluate the test split by themselves
        lr = "optim.lr=0.01" if name == "a" else "optim.lr=0.003"
        outcome = command_line(*QUICK, *FOLDER, lr, "trainer.batch_size=8", f"name={name}")
        assert outcome.code == 0, outcome.text
    assert main(["outputs/a", "outputs/b", "out=e", "method=uniform"]) == 0
    path = Path("e", RESULT)
    result = json.loads(path.read_text())
    expected = result["test"]
    assert 0 < expected["test/log_loss"] < 5
    path.write_text(json.dumps({**result, "test": None}))
    assert evaluate_trial(Path("e")) == {}  # tracking=none
    assert json.loads(path.read_text())["test"] == pytest.approx(expected, abs=1e-5)
    path.unlink()
    with pytest.raises(UserError, match=r"^run: e has no result\.json; make the ensemble again"):
        evaluate_trial(Path("e"))
