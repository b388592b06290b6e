"""Every YAML of every group composes, builds and trains; every loss goes with every augmentation."""

import gzip
import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.conftest import ROOT, CommandLine, Compose
from tests.images import make_csv, make_folder
from visionsweep.config.paths import quote
from visionsweep.errors import DataError
from visionsweep.run.assemble import RunParts, assemble
from visionsweep.run.description import resolved_config
from visionsweep.training.accumulation import backward
from visionsweep.training.loop import update

CONF = ROOT / "conf"


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def train_one_step(compose: Compose, *overrides: str) -> RunParts:
    experiment = assemble(resolved_config(compose("trainer.batch_size=8", *overrides)))
    state = experiment.state
    before = [parameter.detach().clone() for parameter in state.model.parameters()]
    batches = list(itertools.islice(experiment.train.epoch(0), 2))
    statistics = backward(
        state.model.train(), state.loss, batches, experiment.settings.autocast, state.scaler.scale
    )
    update(state, experiment.settings.clip_norm)
    assert torch.isfinite(state.loss.value(statistics))
    after = list(state.model.parameters())
    assert all(torch.isfinite(parameter).all() for parameter in after)
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    return experiment


@pytest.mark.parametrize("group", ["model", "loss", "optim", "scheduler", "augment"])
def test_every_choice_trains(group: str, compose: Compose) -> None:
    for choice in choices(group):
        train_one_step(compose, f"{group}={choice}")


def write_fashion_mnist(root: Path) -> None:
    generator = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 20)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape)
            (root / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))


@pytest.mark.parametrize("choice", choices("data"))
def test_every_data_set_trains(
    choice: str, compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    overrides = [f"data={choice}"]
    if choice == "fashion_mnist":
        write_fashion_mnist(tmp_path)
        overrides += [f"data.root={tmp_path}"]
    elif choice == "image_folder":
        overrides += [f"data.root={make_folder(tmp_path / 'photos')}", "data.image_size=16"]
    elif choice == "csv":
        overrides += [f"data.path={make_csv(tmp_path)}", "data.label=class", "data.group=person"]
    elif choice == "cifar10":
        # Its files cannot be had without a download; tests/data reads generated ones.
        with pytest.raises(DataError, match=r"data\.download=true"):
            train_one_step(compose, *overrides, f"data.root={tmp_path}")
        return
    experiment = train_one_step(compose, *overrides)
    if experiment.dataset.train.groups is not None:
        groups = np.array(experiment.dataset.train.groups)
        assert not set(groups[experiment.train_indices]) & set(groups[experiment.val_indices])


@pytest.mark.parametrize(
    ("loss", "augment"), list(itertools.product(choices("loss"), choices("augment")))
)
def test_every_loss_goes_with_every_augmentation(loss: str, augment: str, compose: Compose) -> None:
    train_one_step(compose, f"loss={loss}", f"augment={augment}")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("model", ["cnn", "timm"])
def test_models_take_grey_and_colour_images_of_any_size(
    model: str, channels: int, compose: Compose, tmp_path: Path
) -> None:
    root = quote(str(make_folder(tmp_path / "photos")))
    data = [
        "data=image_folder",
        f"data.root={root}",
        f"data.channels={channels}",
        "data.cache_dir=none",
    ]
    for size in ("8", "[20,33]"):
        experiment = train_one_step(compose, f"model={model}", *data, f"data.image_size={size}")
        assert experiment.inference["channels"] == channels


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("optim", ["sgd", "adamw", "adamp"])
def test_every_precision_trains(precision: str, optim: str, compose: Compose) -> None:
    train_one_step(
        compose, f"trainer.precision={precision}", f"optim={optim}", "trainer.clip_norm=1"
    )


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_every_memory_format_trains(memory_format: str, compose: Compose) -> None:
    train_one_step(compose, f"trainer.memory_format={memory_format}", "optim=adamp", "model=timm")


def test_layer_wise_lr_decay_reaches_the_optimizer(compose: Compose) -> None:
    experiment = train_one_step(compose, "model=timm", "optim.layer_decay=0.5", "optim.lr=0.01")
    initial = {group["initial_lr"] for group in experiment.state.optimizer.param_groups}
    assert max(initial) == pytest.approx(0.01)
    assert min(initial) < 0.005


def test_what_the_data_set_does_not_allow_is_left_out_and_said(
    compose: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    """A mirrored digit is another sign; a mirrored shoe is a shoe."""
    flip = ["augment=basic", "~augment.steps.crop", "augment.steps.flip.probability=1"]
    with caplog.at_level("INFO"):
        digits = assemble(resolved_config(compose(*flip)))
    assert "flip left out" in caplog.text
    rows = digits.train.order(0)[:32]
    batch = next(digits.train.epoch(0))
    assert torch.equal(batch.images, digits.train.normalize(digits.train.images[rows]))
    allowed = assemble(resolved_config(compose(*flip, "data.flips=true")))
    mirrored = next(allowed.train.epoch(0)).images
    assert torch.equal(mirrored, digits.train.normalize(digits.train.images[rows].flip(3)))


def test_a_balanced_sampler_draws_each_class_equally_often(compose: Compose) -> None:
    experiment = assemble(resolved_config(compose("trainer.sampler=balanced")))
    train = experiment.train
    # Make one class rare; over many epochs every class must still come up about equally often.
    rare = train.targets[train.indices] == 3
    keep = torch.cat([train.indices[~rare], train.indices[rare][:5]])
    train.indices = keep
    train._weights = 1.0 / torch.bincount(train.targets[keep])[train.targets[keep]].double()
    drawn = torch.cat([train.targets[train.order(epoch)] for epoch in range(40)])
    shares = torch.bincount(drawn) / len(drawn)
    assert shares.min() > 0.09
    assert shares.max() < 0.11


def test_presets_compose_and_say_how_to_run_them(compose: Compose) -> None:
    for path in (CONF / "experiment").glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# @package _global_\n"), path
        assert f"python train.py experiment={path.stem}" in text, path
        preset = yaml.safe_load(text)
        cfg = compose(f"experiment={path.stem}")
        for key, value in preset.get("trainer", {}).items():
            if key not in ("epochs", "threads"):  # the test's own settings come after the preset
                assert cfg.trainer[key] == value


@pytest.mark.parametrize("sweeper", ["default", "optuna", "basic"])
def test_every_sweeper_composes(sweeper: str, command_line: CommandLine) -> None:
    outcome = command_line("--cfg", "hydra", f"hydra/sweeper={sweeper}")
    assert outcome.code == 0, outcome.text
    assert "sweeper:" in outcome.stdout


def test_the_sweep_asks_for_the_objective_of_the_config(compose: Compose) -> None:
    minimize = ["objective.metric=val/loss", "objective.direction=minimize"]
    cfg = compose("study=faces", *minimize, return_hydra_config=True)
    assert cfg.hydra.sweeper.direction == "minimize"
    assert cfg.hydra.sweeper.storage is None  # study.db in the sweep's directory
    assert cfg.hydra.sweep.dir == "multirun/faces"
