"""The phases of a run: one, or two if a frozen part of the model trains from some epoch on.

While the backbone is frozen, only the last layer trains, on cached features of the images.
"""

import logging
from collections.abc import Callable

from torch import nn

from visionsweep.config.schema import Config
from visionsweep.data.batches import EvalBatches, Placement, TrainBatches, move_if_it_fits
from visionsweep.errors import ConfigError
from visionsweep.models.freezing import freeze
from visionsweep.run.phase import Images, Phase, eval_batch_size, starter
from visionsweep.run.transfer import Transfer
from visionsweep.training.state import FitSettings, Trained

log = logging.getLogger(__name__)


def build_phases(
    config: Config,
    transfer: Transfer,
    images: Images,
    model: nn.Module,
    train: TrainBatches,
    placement: Placement,
    settings: FitSettings,
) -> list[Phase]:
    """Return the phases in order; freezes what the first one does not train."""
    epochs, frozen_epochs = settings.epochs, transfer.frozen_epochs(settings.epochs)
    phases = []
    if frozen_epochs < epochs:
        # Before anything is frozen: its groups hold all parameters.
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optim = dict(config.optim)
        if transfer.unfreeze_lr is not None:
            optim["lr"] = transfer.unfreeze_lr
        start = starter(
            config, transfer, model, train.num_updates, optim, (frozen_epochs, epochs), trainable
        )
        phases.append(_image_phase(epochs, images, train, placement, config, start))
    elif transfer.wants_features and config.trainer.image_sizes is not None:
        raise ConfigError(
            "trainer.image_sizes: cached features are those of one size; set it to null, or "
            "model.cache_features=false"
        )
    if not transfer.is_frozen:
        return phases
    log.info("model.freeze: %s", freeze(model, transfer.freeze))
    if not config.model.get("pretrained"):
        log.warning(
            "model.freeze=%s, but the weights are random ones: set model.pretrained",
            transfer.freeze,
        )
    span = (0, frozen_epochs)
    if transfer.wants_features:
        # It imports Pillow, which other runs may not need.
        from visionsweep.run.feature_phase import feature_phase

        head = feature_phase(config, transfer, images, model, train, placement, settings, span)
        return [head, *phases]
    start = starter(config, transfer, model, train.num_updates, dict(config.optim), span, [])
    return [_image_phase(frozen_epochs, images, train, placement, config, start), *phases]


def _image_phase(
    last_epoch: int,
    images: Images,
    train: TrainBatches,
    placement: Placement,
    config: Config,
    start: Callable[[], Trained],
) -> Phase:
    dataset, size = images.dataset, eval_batch_size(config)

    def test() -> EvalBatches | None:
        if dataset.test is None:
            return None
        pixels = move_if_it_fits(dataset.test.images, placement.device)
        rows = images.test_rows()
        return EvalBatches(pixels, dataset.test.targets, size, placement, indices=rows)

    pixels = move_if_it_fits(dataset.train.images, placement.device)
    val = EvalBatches(pixels, dataset.train.targets, size, placement, indices=images.val_rows)
    return Phase(last_epoch, train, val, test, start)
