"""Every YAML of every group composes, builds and trains."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.conftest import ROOT, Compose
from tests.images import make_csv, make_folder
from visionsweep.config.typed_text import quote
from visionsweep.errors import DataError
from visionsweep.run.assemble import RunParts, assemble
from visionsweep.run.description import resolved_config
from visionsweep.sweep.space.space import parse_space
from visionsweep.training.accumulation import backward
from visionsweep.training.loop import update

CONF = ROOT / "conf"


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def train_one_step(compose: Compose, *overrides: str) -> RunParts:
    size = ["trainer.batch_size=8", "trainer.accumulate=2"]
    parts = assemble(resolved_config(compose(*size, *overrides)))
    state = parts.state
    before = [parameter.detach().clone() for parameter in state.model.parameters()]
    batches = next(parts.train.updates(0))
    statistics = backward(
        state.model.train(), state.loss, batches, parts.settings.autocast, state.scaler.scale
    )
    update(state, parts.settings.clip_norm)
    assert torch.isfinite(state.loss.value(statistics))
    after = list(state.model.parameters())
    assert all(torch.isfinite(parameter).all() for parameter in after)
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    return parts


GROUPS = ("loss", "optim", "scheduler", "augment", "model")
# Composing takes longest, so each case tries one choice of every group.
NUM_CASES = max(len(choices(group)) for group in GROUPS)


@pytest.mark.parametrize("case", range(NUM_CASES))
def test_every_choice_trains(case: int, compose: Compose) -> None:
    overrides = [f"{group}={choices(group)[case % len(choices(group))]}" for group in GROUPS[:-1]]
    model = choices("model")[case] if case < len(choices("model")) else "cnn"
    train_one_step(compose, *overrides, f"model={model}")


@pytest.mark.slow
@pytest.mark.parametrize("augment", choices("augment"))
def test_every_loss_trains_with_every_augmentation(augment: str, compose: Compose) -> None:
    for loss in choices("loss"):
        train_one_step(compose, f"loss={loss}", f"augment={augment}")


def write_fashion_mnist(root: Path) -> None:
    generator = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 20)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape)
            (root / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))


def fashion_mnist(folder: Path) -> list[str]:
    write_fashion_mnist(folder)
    return [f"data.root={folder}"]


# Data sets that need files: writes them into the folder and returns the overrides.
FILES_OF: dict[str, Callable[[Path], list[str]]] = {
    "cifar10": lambda folder: [f"data.root={folder}"],
    "csv": lambda folder: [
        *(f"data.path={make_csv(folder)}", "data.label=class", "data.group=person")
    ],
    "fashion_mnist": fashion_mnist,
    "image_folder": lambda folder: [
        *(f"data.root={make_folder(folder / 'photos')}", "data.image_size=16")
    ],
}


@pytest.mark.parametrize("choice", choices("data"))
def test_every_data_set_trains(
    choice: str, compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    overrides = [f"data={choice}", *FILES_OF.get(choice, lambda _: [])(tmp_path)]
    if choice == "cifar10":  # its files need a download; tests/data reads generated ones
        with pytest.raises(DataError, match=r"data\.download=true"):
            train_one_step(compose, *overrides)
        return
    parts = train_one_step(compose, *overrides)
    if parts.dataset.train.groups is not None:
        groups = np.array(parts.dataset.train.groups)
        assert not set(groups[parts.train_indices]) & set(groups[parts.val_indices])


@pytest.mark.parametrize("model", choices("model"))
@pytest.mark.parametrize(("channels", "size"), [(1, "8"), (3, "[20,33]")])
def test_models_take_grey_and_colour_images_of_any_size(
    model: str, channels: int, size: str, compose: Compose, tmp_path: Path
) -> None:
    root = quote(str(make_folder(tmp_path / "photos")))
    data = ["data=image_folder", f"data.root={root}", "data.cache_dir=none"]
    shape = [f"data.channels={channels}", f"data.image_size={size}"]
    parts = train_one_step(compose, f"model={model}", *data, *shape)
    assert parts.inference["channels"] == channels


@pytest.mark.parametrize(
    ("precision", "optim", "memory_format"),
    [
        ("fp32", "sgd", "contiguous"),
        ("bf16", "adamw", "channels_last"),
        ("fp16", "adamp", "channels_last"),
    ],
)
def test_every_precision_and_memory_format_trains(
    precision: str, optim: str, memory_format: str, compose: Compose
) -> None:
    trainer = [f"trainer.precision={precision}", f"trainer.memory_format={memory_format}"]
    train_one_step(compose, *trainer, f"optim={optim}", "trainer.clip_norm=1")


def test_layer_wise_lr_decay_reaches_the_optimizer(compose: Compose) -> None:
    overrides = ["model=timm", "optim=adamp", "optim.layer_decay=0.5", "optim.lr=0.01"]
    parts = train_one_step(compose, *overrides)
    initial = {group["initial_lr"] for group in parts.state.optimizer.param_groups}
    assert max(initial) == pytest.approx(0.01)
    assert min(initial) < 0.005


def test_flips_follow_the_data_set(compose: Compose, caplog: pytest.LogCaptureFixture) -> None:
    flip = ["augment=basic", "~augment.steps.crop", "augment.steps.flip.probability=1"]
    with caplog.at_level("INFO"):
        digits = assemble(resolved_config(compose(*flip)))
    assert "no flip" in caplog.text
    rows = digits.train.order(0)[:32]
    (batch,) = next(digits.train.updates(0))
    assert torch.equal(batch.images, digits.train.normalize(digits.train.images[rows]))
    allowed = assemble(resolved_config(compose(*flip, "data.flips=true")))
    (mirrored,) = next(allowed.train.updates(0))
    assert torch.equal(mirrored.images, digits.train.normalize(digits.train.images[rows].flip(3)))


def test_presets_compose_and_name_their_command(compose: Compose) -> None:
    for path in (CONF / "experiment").glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# @package _global_\n"), path
        assert f"python train.py experiment={path.stem}" in text, path
        preset = yaml.safe_load(text)
        cfg = compose(f"experiment={path.stem}")
        for key, value in preset.get("trainer", {}).items():
            if key not in ("epochs", "threads"):  # the test's own settings come after the preset
                assert cfg.trainer[key] == value


@pytest.mark.parametrize("sweeper", choices("hydra/sweeper"))
def test_every_sweeper_minimizes_if_the_objective_does(sweeper: str, compose: Compose) -> None:
    minimize = ["objective.metric=val/loss", "objective.direction=minimize"]
    overrides = ["study=faces", f"hydra/sweeper={sweeper}", *minimize]
    cfg = compose(*overrides, return_hydra_config=True)
    assert cfg.hydra.sweeper.direction == "minimize"
    assert cfg.hydra.sweeper.storage is None  # study.db in the sweep's directory
    assert cfg.hydra.sweep.dir == "multirun/faces"


@pytest.mark.parametrize(
    ("sweeper", "overrides", "sizes", "augment"),
    [
        ("default", (), ["16", "32"], ["none", "basic"]),
        ("default", ("data=fashion_mnist", "trainer.batch_size=1"), ["1"], ["none", "basic"]),
        ("boring", ("trainer.batch_size=100",), ["25", "50", "100"], ["none", "basic"]),
        ("boring", ("data=image_folder",), ["8", "16", "32"], ["none", "basic", "photo"]),
        ("boring", ("data=csv", "data.channels=1"), ["8", "16", "32"], ["none", "basic"]),
    ],
)
def test_presets_search_what_memory_and_images_allow(
    sweeper: str, overrides: tuple[str, ...], sizes: list[str], augment: list[str], compose: Compose
) -> None:
    cfg = compose(f"hydra/sweeper={sweeper}", *overrides, return_hydra_config=True)
    params = cfg.hydra.sweeper.default_params
    found = parse_space(
        {"size": params["trainer.batch_size"], "augment": params.augment}, None, []
    ).dimensions
    values = [[str(choice) for choice in d.distribution.choices] for d in found]  # type: ignore[attr-defined]
    assert values == [sizes, augment]


@pytest.mark.parametrize("sweeper", ["optuna", "basic"])
def test_sweepers_of_hydra_compose(sweeper: str, compose: Compose) -> None:
    cfg = compose(f"hydra/sweeper={sweeper}", return_hydra_config=True)
    assert not cfg.hydra.sweeper._target_.startswith("hydra_plugins.visionsweep")
