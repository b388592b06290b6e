"""Weights of a file under timm's names: nested, prefixed, or with other names in the same order."""

import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Where training scripts put the weights within a checkpoint, averaged ones first.
_PREFERRED = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model")
_MAX_PREFIX = 3  # names before that of the layer, as in module.model.backbone.conv1.weight
_COUNTER = "num_batches_tracked"  # of BatchNorm; not every file has it
_MIN_SHARE = 0.5  # of the weights by name; with less, the names are others

Weights = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of a file, and what else of it matters."""

    weights: Weights
    change: str = ""  # how the names were changed, for the log
    # Normalization (mean, std) that the weights were trained with, if the file tells.
    normalization: tuple[list[float], list[float]] | None = None


def read_weights(path: Path) -> WeightsFile:
    """Return the tensors of a .safetensors file or a checkpoint of torch, by their names there.

    Nothing of the file is run. Raises whatever the readers raise for a file that is neither.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return WeightsFile(load_file(path))
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except (KeyError, EOFError) as error:  # what the unpickler meets in a file of another kind
        raise pickle.UnpicklingError("damaged") from error
    return WeightsFile(_find_weights(contents), normalization=_normalization(contents))


def _find_weights(contents: Any) -> Weights:
    """Return the mapping with the weights: of several, the preferred or the largest one."""
    if not isinstance(contents, Mapping):
        return {}
    for key in _PREFERRED:
        if found := _find_weights(contents.get(key)):
            return found
    direct = {str(key): value for key, value in contents.items() if isinstance(value, Tensor)}
    return max((direct, *map(_find_weights, contents.values())), key=_num_values)


def _normalization(contents: Any) -> tuple[list[float], list[float]] | None:
    """Return what a checkpoint of visionsweep says of its images."""
    inference = contents.get("inference") if isinstance(contents, Mapping) else None
    if not isinstance(inference, Mapping) or not {"mean", "std"} <= inference.keys():
        return None
    return list(inference["mean"]), list(inference["std"])


def rename(file: WeightsFile, shapes: Shapes, classifier: Iterable[str]) -> WeightsFile:
    """Return the weights by the names of a model.

    ``shapes``: of the tensors of the model as its weights were published; ``classifier``: names of
    its last layers. A prefix is removed if that makes more names fit. If few fit, tensors are taken
    by their order, provided that it has the same shapes up to the last layers. Otherwise the
    weights are returned as they are.
    """
    weights = file.weights
    prefix = max(_prefixes(weights), key=lambda p: (_fitting(weights, shapes, p), -len(p)))
    if prefix:
        weights = {
            name.removeprefix(prefix): tensor
            for name, tensor in weights.items()
            if name.startswith(prefix)
        }
    total = sum(torch.Size(shape).numel() for shape in shapes.values())
    if _fitting(weights, shapes) < _MIN_SHARE * total:
        ordered = _by_order(weights, shapes, tuple(classifier))
        if ordered is not None:
            return WeightsFile(
                ordered, "by order and shape: its names are others", file.normalization
            )
    change = f"without the prefix {prefix[:-1]}" if prefix else ""
    return WeightsFile(weights, change, file.normalization)


def _prefixes(names: Iterable[str]) -> set[str]:
    found = {""}
    for name in names:
        parts = name.split(".")[:-1]
        found |= {".".join(parts[: k + 1]) + "." for k in range(min(len(parts), _MAX_PREFIX))}
    return found


def _fitting(weights: Weights, shapes: Shapes, prefix: str = "") -> int:
    """Return how many numbers have name and shape of the model if `prefix` is removed."""
    found = ((shape, weights.get(f"{prefix}{name}")) for name, shape in shapes.items())
    return sum(
        tensor.numel() for shape, tensor in found if tensor is not None and tensor.shape == shape
    )


def _by_order(weights: Weights, shapes: Shapes, classifier: tuple[str, ...]) -> Weights | None:
    is_head = re.compile("|".join(rf"{re.escape(name)}\." for name in classifier) or "$^").match
    wanted = [name for name in shapes if not name.endswith(_COUNTER) and not is_head(name)]
    head = [name for name in shapes if is_head(name)]
    given = [tensor for name, tensor in weights.items() if not name.endswith(_COUNTER)]
    if len(given) not in (len(wanted), len(wanted) + len(head)):
        return None
    if any(tensor.shape != shapes[name] for name, tensor in zip(wanted, given, strict=False)):
        return None
    return dict(zip([*wanted, *head], given, strict=False))


def _num_values(weights: Weights) -> int:
    return sum(tensor.numel() for tensor in weights.values())
