"""The trained networks of a run or an ensemble, with their pre-processing inside."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from visionsweep.answer.members import ENSEMBLE
from visionsweep.config.build import build
from visionsweep.data.batches import Normalization
from visionsweep.data.dataset import Preprocessing
from visionsweep.data.preprocessing import from_plain
from visionsweep.errors import ConfigError, DataError, UserError
from visionsweep.models.freezing import TRANSFER_KEYS
from visionsweep.rundir.layout import BEST, BEST_TRIAL, CONFIG, is_inside, runs_of_trial
from visionsweep.training import checkpoint


class Predictor(nn.Module):
    """Takes (N, C, H, W) uint8 images and returns (N, K) float32 probabilities (softmax).

    ``class_names``: (K); ``preprocessing``: of an image file; ``flips``: whether a mirrored image
    keeps its label; ``class_counts``: (K) training images per class, None if unknown.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        model: nn.Module,
        normalization: Normalization,
        *,
        class_names: list[str],
        preprocessing: Preprocessing,
        flips: bool,
        class_counts: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.class_names = class_names
        self.preprocessing = preprocessing
        self.flips = flips
        self.class_counts = class_counts
        scale, shift = normalization.affine(torch.device("cpu"))
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return (self.preprocessing.channels, *self.preprocessing.image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Return the probabilities of the classes."""
        logits: Tensor = self.model(images.to(torch.float32).mul(self.scale).add(self.shift))
        return logits.float().softmax(dim=1)


class EnsemblePredictor(nn.Module):
    """The weighted mean of several predictors' probabilities, as one module.

    Raises `DataError` unless all of them read image files alike, since it takes one kind of images.
    """

    def __init__(self, members: Sequence["WeightedPredictor"]) -> None:
        super().__init__()
        first = members[0].predictor
        if any(member.predictor.preprocessing != first.preprocessing for member in members):
            raise DataError(
                "the members of the ensemble take images of different sizes or settings, so they "
                "are not one model; predict.py uses them together"
            )
        self.members = nn.ModuleList(member.predictor for member in members)
        self.weights = [member.weight for member in members]
        self.image_shape = first.image_shape

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, K) float32 probabilities of (N, C, H, W) uint8 images."""
        parts = [w * member(images) for w, member in zip(self.weights, self.members, strict=True)]
        return torch.stack(parts).sum(dim=0)


@dataclass(frozen=True)
class WeightedPredictor:
    """A network, its share of the mean, and the directory that it comes from."""

    predictor: Predictor
    weight: float
    directory: Path


def load_model(run_dir: Path, device: str = "cpu") -> Predictor | EnsemblePredictor:
    """Return the network of a run, or those of an ensemble as one module."""
    members = load_predictors(run_dir, device)
    return members[0].predictor if len(members) == 1 else EnsemblePredictor(members).eval()


def load_predictors(run_dir: Path, device: str = "cpu") -> list[WeightedPredictor]:
    """Return the networks of a run, of an ensemble, or of a trial's seeds and folds.

    Their weights add up to 1: those of the ensemble, else equal ones. Raises `UserError` if
    something is missing or damaged.
    """
    runs = runs_of_trial(run_dir)
    if runs != [run_dir]:
        return [WeightedPredictor(load_predictor(run, device), 1 / len(runs), run) for run in runs]
    node = _config(run_dir).get(ENSEMBLE)
    if node is None:
        return [WeightedPredictor(load_predictor(run_dir, device), 1.0, run_dir)]
    path = run_dir / CONFIG
    try:
        entries = [(str(entry["directory"]), float(entry["weight"])) for entry in node["members"]]
        total = sum(weight for _, weight in entries)
        if not (math.isfinite(total) and total > 0 and all(weight > 0 for _, weight in entries)):
            raise ValueError("expected weights above 0")
        # The directory may come from a stranger.
        for place, _ in entries:
            if not is_inside(run_dir, f"{place}/{BEST}"):
                raise ValueError(f"{place} lies outside of the ensemble's directory")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: is not the config of an ensemble ({error}); make the ensemble again"
        ) from error
    return [
        WeightedPredictor(load_predictor(run_dir / place, device), weight / total, run_dir / place)
        for place, weight in entries
    ]


def load_predictor(run_dir: Path, device: str = "cpu") -> Predictor:
    """Return the best checkpoint of a run in evaluation mode on `device`.

    Reads only the config and the checkpoint. Raises `UserError` if one is missing or damaged.
    """
    node = _model_node(run_dir)
    path = run_dir / BEST
    contents = checkpoint.load(path)
    try:
        inference = contents["inference"]
        class_names = list(inference["class_names"])
        preprocessing = from_plain(inference)
        normalization = Normalization(tuple(inference["mean"]), tuple(inference["std"]))
        flips, weights = bool(inference["flips"]), contents["model"]
        class_counts = inference.get("class_counts")  # missing in runs of earlier versions
    except (KeyError, TypeError, ConfigError) as error:
        raise DataError(
            f"{path}: cannot be used for prediction ({error}); was it written by visionsweep?"
        ) from error
    try:
        model = build(
            node,
            "model",
            num_classes=len(class_names),
            in_channels=preprocessing.channels,
            in_chans=preprocessing.channels,
            image_size=preprocessing.image_size,
        )
    except ConfigError as error:
        raise ConfigError(f"{run_dir / CONFIG}: {error}") from error
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path}: does not fit the model of {run_dir / CONFIG} ({reason:.200})"
        ) from error
    predictor = Predictor(
        model,
        normalization,
        class_names=class_names,
        preprocessing=preprocessing,
        flips=flips,
        class_counts=class_counts,
    )
    return predictor.to(device).eval()


def _model_node(run_dir: Path) -> Any:
    """Return the model's config without pretrained weights: the checkpoint replaces them."""
    return _without_pretrained(_config(run_dir).get("model"))


def _config(run_dir: Path) -> dict[str, Any]:
    """Return the config of a run; an empty one if the file holds something else."""
    if not run_dir.is_dir():
        several = ", or of several runs run=[A,B]" if "," in str(run_dir) else ""
        raise UserError(
            f"run: {run_dir} does not exist; expected the directory of a run, e.g. "
            f"run=outputs/NAME{several}"
        )
    path = run_dir / CONFIG
    if not path.is_file():
        is_sweep = (run_dir / BEST_TRIAL).exists()
        hint = f"run={run_dir / BEST_TRIAL}" if is_sweep else "run=outputs/NAME"
        raise UserError(
            f"run: {run_dir} holds no {CONFIG}; expected the directory of a run, e.g. {hint}"
        )
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: is not valid YAML ({' '.join(str(error).split())})") from error
    return config if isinstance(config, dict) else {}


def _without_pretrained(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    return {
        key: False if key == "pretrained" else _without_pretrained(value)
        for key, value in node.items()
        if key not in TRANSFER_KEYS
    }
