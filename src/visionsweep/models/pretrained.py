"""timm's models with the weights of a file, and the line that says what was loaded."""

import contextlib
import logging
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from visionsweep.errors import ConfigError
from visionsweep.models.weights_file import Weights, WeightsFile, read_weights, rename
from visionsweep.text import first_line

# Shares of a model's weights that are in a file; a new head and other channels are not.
_WHOLE, _HALF = 0.9, 0.5
_MAX_LISTED = 4  # names in a line

log = logging.getLogger(__name__)


def load_from_file(name: str, path: Path, kwargs: dict[str, Any]) -> Any:
    """Return the timm model `name` with the weights of a file, and log one line of what was loaded.

    ``kwargs``: of ``timm.create_model``. Raises ConfigError for a file that is missing, damaged, or
    of another model.
    """
    import timm

    if not path.is_file():
        raise ConfigError(
            f"model.pretrained: expected true, false or a file of weights, got {path}, "
            "which is not a file"
        )
    if path.suffix in (".npz", ".npy"):  # of JAX, which the model's own code reads
        try:
            overlay = {"file": str(path), "custom_load": True}
            model: Any = timm.create_model(name, True, pretrained_cfg_overlay=overlay, **kwargs)
        except Exception as error:  # every model reads its own layout
            raise cannot_load(name, error) from error
        log.info("model.pretrained: %s loaded by the reader of %s", path, name)
        return model
    try:
        file = _renamed(read_weights(path), name)
        if not file.weights:
            raise ValueError("it holds no tensor")
        # No model has -1 classes: timm leaves the last layer to us.
        overlay = {"state_dict": file.weights, "num_classes": -1}
        with _timm_silenced():  # it would list every name that does not fit; `_report` counts them
            model = timm.create_model(name, True, pretrained_cfg_overlay=overlay, **kwargs)
    except Exception as error:  # many kinds for a damaged file or another model
        raise cannot_load(name, error) from error
    model.pretrained_cfg.pop("state_dict", None)
    if file.normalization is not None:
        model.pretrained_cfg["mean"], model.pretrained_cfg["std"] = file.normalization
    _load_classifier(model, file.weights)
    _report(model, path, name, file)
    return model


def cannot_load(name: str, error: Exception) -> ConfigError:
    """Return the error for weights that do not load."""
    if isinstance(error, pickle.UnpicklingError):  # torch's line tells how to run what it holds
        reason = "the file holds more than tensors, or is damaged; save model.state_dict()"
    else:
        reason = first_line(error) or type(error).__name__
    return ConfigError(
        f"model.pretrained: cannot load weights of {name} ({reason}); "
        "set model.pretrained=false, or to a file of weights"
    )


@contextlib.contextmanager
def _timm_silenced() -> Iterator[None]:
    logger = logging.getLogger("timm")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _renamed(file: WeightsFile, name: str) -> WeightsFile:
    """Return the weights by the names of the model as timm publishes it."""
    import timm

    with torch.device("meta"):  # shapes without memory or time
        published = timm.create_model(name)
    shapes = {key: tuple(tensor.shape) for key, tensor in published.state_dict().items()}
    return rename(file, shapes, _classifier_names(published))


def _classifier_names(model: nn.Module) -> tuple[str, ...]:
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


@torch.no_grad()
def _load_classifier(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Load the last layer too if it has the same classes, or as many."""
    names = _classifier_names(model)
    parameters = {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.rpartition(".")[0] in names
    }
    found = {name: weights.get(name) for name in parameters}
    if all(
        tensor is not None and tensor.shape == parameters[name].shape
        for name, tensor in found.items()
    ):
        for name, parameter in parameters.items():
            parameter.copy_(found[name])  # type: ignore[arg-type]


def _report(model: nn.Module, path: Path, name: str, file: WeightsFile) -> None:
    """Log what was loaded. Raises `ConfigError` if most of the weights are not those of the file.

    timm accepts a file of any model.
    """
    parameters = dict(model.named_parameters())
    missing = [key for key, is_loaded in _loaded(parameters, file.weights).items() if not is_loaded]
    total = sum(parameter.numel() for parameter in parameters.values())
    share = 1 - sum(parameters[key].numel() for key in missing) / total
    if share < _HALF:
        raise ConfigError(
            f"model.pretrained: {path} has {share:.0%} of the weights of {name}; expected a file "
            "of weights of the same model"
        )
    unused = sorted(file.weights.keys() - model.state_dict().keys())
    # Values differ for a name of the file if timm adapted it: to other channels or another size.
    heads = _classifier_names(model)
    new = [key for key in missing if key not in file.weights or key.rpartition(".")[0] in heads]
    adapted = [key for key in missing if key not in new]
    parts = [
        f"{len(parameters) - len(missing)} of {len(parameters)} weights of {name} loaded",
        file.change,
        f"adapted: {_listed(adapted)}" if adapted else "",
        f"new, at random: {_listed(new)}" if new else "",
        f"not used: {_listed(unused)}" if unused else "",
    ]
    log.info("model.pretrained: %s: %s", path.name, "; ".join(part for part in parts if part))
    if share < _WHOLE:
        log.warning(
            "model.pretrained: %s has %.0f %% of the weights of %s; the others start at random",
            *(path, 100 * share, name),
        )


def _loaded(parameters: Mapping[str, torch.Tensor], given: Weights) -> dict[str, bool]:
    """Return for each parameter whether it is one of the file: timm renames some weights itself."""
    by_size: dict[int, list[torch.Tensor]] = {}
    for tensor in given.values():
        by_size.setdefault(tensor.numel(), []).append(tensor.flatten())

    def is_given(key: str, values: torch.Tensor) -> bool:
        others = [given[key].flatten()] if key in given else by_size.get(values.numel(), [])
        return any(
            other.shape == values.shape and torch.equal(values, other.to(values))
            for other in others
        )

    return {key: is_given(key, value.detach().flatten()) for key, value in parameters.items()}


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names)})" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more
