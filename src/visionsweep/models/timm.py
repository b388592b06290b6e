"""Any model of timm, by its name; common mistakes are refused in one line."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from visionsweep.errors import ConfigError
from visionsweep.text import did_you_mean, first_line

_SECONDS_TO_ANSWER = 5.0  # of the server with the weights
# Shares of a model's weights that are in a file; a new head and other channels are not.
_WHOLE, _HALF = 0.9, 0.5

log = logging.getLogger(__name__)


def create_model(
    name: str,
    pretrained: bool | str = False,
    drop_rate: float = 0.0,
    *,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
) -> nn.Module:
    """Return the timm model `name` with a new head of ``num_classes``.

    ``pretrained``: true downloads timm's weights; a string is a file of weights by timm's names
    (the head is replaced if the number of classes differs). The first layer is adapted to
    ``in_channels``. Raises ConfigError for an unknown name and for weights that do not load.
    """
    import timm

    if not timm.is_model(name):
        listing = "; python -c 'import timm; print(timm.list_models())' lists them"
        hint = did_you_mean(name, timm.list_models()) or listing
        raise ConfigError(f"model.name: timm has no model '{name}'{hint}")
    kwargs: dict[str, Any] = {
        "num_classes": num_classes,
        "in_chans": in_channels,
        "drop_rate": drop_rate,
    }
    pretrained_cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if pretrained_cfg is not None and pretrained_cfg.fixed_input_size:
        kwargs["img_size"] = image_size
    if isinstance(pretrained, str):
        path = Path(pretrained).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"model.pretrained: expected true, false or a file of weights, got {pretrained}, "
                "which is not a file"
            )
        kwargs["pretrained_cfg_overlay"] = {"file": str(path)}
    try:
        with _cache_only_without_server() if pretrained is True else contextlib.nullcontext():
            model: nn.Module = timm.create_model(name, pretrained=bool(pretrained), **kwargs)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise ConfigError(
            f"model.pretrained: cannot load weights of {name} ({first_line(error)}); "
            "set model.pretrained=false, or to a file of weights"
        ) from error
    if isinstance(pretrained, str) and Path(pretrained).suffix not in (".npz", ".npy"):
        _require_fit(model, path, name)
    return model


def _require_fit(model: nn.Module, path: Path, name: str) -> None:
    """Raise `ConfigError` if most of the weights are not those of the file.

    timm accepts a file of any model if the number of classes differs. Values are compared, since
    names in the file may be others.
    """
    from timm.models import load_state_dict

    given: dict[int, list[torch.Tensor]] = {}
    for tensor in load_state_dict(str(path)).values():
        given.setdefault(tensor.numel(), []).append(tensor.flatten())
    weights = [weight.detach().flatten() for weight in model.parameters()]
    found = sum(
        weight.numel()
        for weight in weights
        if any(torch.equal(weight, other.to(weight)) for other in given.get(weight.numel(), ()))
    )
    share = found / sum(weight.numel() for weight in weights)
    if _HALF <= share < _WHOLE:
        log.warning(
            "model.pretrained: %s has %.0f %% of the weights of %s; the others start at random",
            *(path, 100 * share, name),
        )
    if share < _HALF:
        raise ConfigError(
            f"model.pretrained: {path} has {share:.0%} of the weights of {name}; expected a file "
            "of weights of the same model"
        )


@contextlib.contextmanager
def _cache_only_without_server() -> Iterator[None]:
    """Have Hugging Face use its cache alone if its server does not answer: it retries for long."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(url: str) -> bool:
    from huggingface_hub import get_session

    answers = []

    def ask() -> None:
        with contextlib.suppress(Exception):  # whatever it is, the server was not reached
            answers.append(get_session().head(url, timeout=_SECONDS_TO_ANSWER))

    # A thread, since no timeout bounds the look-up of a name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_SECONDS_TO_ANSWER)
    return bool(answers)
