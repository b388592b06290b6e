"""Any model of timm, by its name; common mistakes are refused in one line."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from visionsweep.errors import ConfigError
from visionsweep.models.pretrained import cannot_load, load_from_file
from visionsweep.text import did_you_mean

_SECONDS_TO_ANSWER = 5.0  # of the server with the weights

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

    ``pretrained``: true downloads timm's weights; a string is a file of weights, read as
    ``models.weights_file`` says (the head is replaced if the number of classes differs). The first
    layer is adapted to ``in_channels``. Raises ConfigError for an unknown name and for weights that
    do not load.
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
        model: nn.Module = load_from_file(name, Path(pretrained).expanduser(), kwargs)
        return model
    try:
        with _cache_only_without_server() if pretrained else contextlib.nullcontext():
            model = timm.create_model(name, pretrained=pretrained, **kwargs)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise cannot_load(name, error) from error
    if pretrained:
        log.info("model.pretrained: weights %s of timm", _source(model))
    return model


def _source(model: nn.Module) -> str:
    found: dict[str, Any] = getattr(model, "pretrained_cfg", {})
    return ".".join(str(found[key]) for key in ("architecture", "tag") if found.get(key))


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
