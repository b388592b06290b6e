"""Any model of timm, by its name; common mistakes are refused in one line."""

from pathlib import Path
from typing import Any

from torch import nn

from visionsweep.errors import ConfigError
from visionsweep.text import did_you_mean, first_line


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
        model: nn.Module = timm.create_model(name, pretrained=bool(pretrained), **kwargs)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise ConfigError(
            f"model.pretrained: cannot load weights of {name} ({first_line(error)}); "
            "set model.pretrained=false, or to a file of weights"
        ) from error
    return model
