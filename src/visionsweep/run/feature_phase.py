"""The phase in which the last layer trains on cached features of a frozen backbone."""

import logging
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from visionsweep.config.schema import Config
from visionsweep.data.augment.pipeline import Pipeline
from visionsweep.data.augment.views import PickView
from visionsweep.data.batches import (
    Augment,
    Batches,
    EvalBatches,
    Placement,
    TrainBatches,
    move_if_it_fits,
)
from visionsweep.data.paths import absolute, default_cache_dir
from visionsweep.data.streamed import Images as Pixels
from visionsweep.errors import ConfigError
from visionsweep.models.freezing import find_classifier
from visionsweep.run.phase import Images, Phase, eval_batch_size, starter
from visionsweep.run.transfer import Transfer
from visionsweep.training.feature_head import FeatureHead
from visionsweep.training.features import FeatureExtractor, Views, weights_digest
from visionsweep.training.state import FitSettings

log = logging.getLogger(__name__)


def feature_phase(
    config: Config,
    transfer: Transfer,
    images: Images,
    model: nn.Module,
    of_images: TrainBatches,
    placement: Placement,
    settings: FitSettings,
    span: tuple[int, int],
) -> Phase:
    """Return the phase of the epochs in `span`; computes the features, or opens them.

    Raises `ConfigError` for a model or an augmentation whose features cannot be cached.
    """
    dataset, size = images.dataset, eval_batch_size(config)
    name, classifier = find_classifier(model)
    if not isinstance(classifier, nn.Linear):
        raise ConfigError(
            f"model.cache_features: the last layer of this model is a {type(classifier).__name__}, "
            "not a Linear; set model.cache_features=false"
        )
    extractor = _extractor(config, model, name, placement, settings)
    views = _views(config, transfer, of_images.augment, flips=dataset.flips)
    rows_of_features = Placement(None, placement.device, placement.memory_format)

    def features(pixels: Pixels, targets: Tensor, views: Views | None = None) -> Tensor:
        rows = torch.arange(len(pixels))
        found = extractor.features(Batches(pixels, targets, size, placement, indices=rows), views)
        return move_if_it_fits(found, placement.device)

    targets = dataset.train.targets
    plain = features(dataset.train.images, targets)
    # The augmentation may crop larger images than the model sees.
    viewed = plain if views is None else features(of_images.images, targets, views)
    train = TrainBatches(
        viewed,
        targets,
        config.trainer.batch_size,
        rows_of_features,
        indices=of_images.indices,
        augment=Pipeline({}) if views is None else PickView(),
        seed=config.seed,
        balanced=config.trainer.sampler == "balanced",
        accumulate=config.trainer.accumulate,
    )

    def test() -> EvalBatches | None:
        if dataset.test is None:
            return None
        found = features(dataset.test.images, dataset.test.targets)
        rows = images.test_rows()
        return EvalBatches(found, dataset.test.targets, size, rows_of_features, indices=rows)

    val = EvalBatches(plain, targets, size, rows_of_features, indices=images.val_rows)
    head = FeatureHead(name, classifier, float(config.model.get("drop_rate", 0.0)))
    if transfer.standardize:
        head.standardize(plain, of_images.indices)
    optim = {key: value for key, value in config.optim.items() if key != "layer_decay"}
    start = starter(
        *(config, transfer, head, train.num_updates, optim, span, []),
        whole=model,
        frozen_digest=weights_digest(model, name),
    )
    return Phase(span[1], train, val, test, start)


def _extractor(
    config: Config, model: nn.Module, name: str, placement: Placement, settings: FitSettings
) -> FeatureExtractor:
    cache_dir = config.data.get("cache_dir")
    folder: Path | None = default_cache_dir()
    if cache_dir is not None:
        folder = None if cache_dir == "none" else absolute("data.cache_dir", cache_dir)
    assert placement.normalization is not None
    described = {
        "normalization": asdict(placement.normalization),
        "precision": settings.precision,
        "model": type(model).__name__,
    }
    return FeatureExtractor(model, name, settings.autocast, described, folder)


def _views(config: Config, transfer: Transfer, augment: Augment, *, flips: bool) -> Views | None:
    """Return the augmented views of the training images; None for the images as they are."""
    if isinstance(augment, Pipeline) and not augment.steps:
        return None
    if transfer.feature_views == 0:
        log.info("features: of the images as they are, without augment (model.feature_views=0)")
        return None
    if getattr(augment, "num_sources", 1) > 1:
        raise ConfigError(
            "augment: mixup and cutmix mix pixels, so features of mixed images cannot be cached; "
            "choose augment=basic, or model.feature_views=0 (the head trains without augment), or "
            "model.cache_features=false (slow)"
        )
    described = {"augment": config.augment, "flips": flips}
    return Views(transfer.feature_views, augment, described)
