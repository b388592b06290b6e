"""The trained network of a run as an MLflow model: raw uint8 images in, probabilities out."""

import importlib.metadata
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from visionsweep.errors import DataError
from visionsweep.rundir.journal import Record
from visionsweep.rundir.layout import BEST, is_inside
from visionsweep.text import first_line
from visionsweep.tracking.store import Store, patient_requests

CHECKPOINT_TAG = "visionsweep.training.checkpoint"
CHAMPION = "champion"


def export_model(store: Store, run_id: str, run_dir: Path, record: Record) -> None:
    """Log the model of `record["checkpoint"]` to the run, unless an earlier attempt did.

    The model is a torch.export program of `load_model(run_dir)`, with pre-processing inside:
    (N, C, H, W) uint8 -> (N, K) float32. Any N works since the example has a batch of 2; a batch
    of 1 would be frozen into the program.
    """
    client = store.client
    run = client.get_run(run_id)
    mark = f"{record['checkpoint']}@{record['time']}"
    earlier = client.search_logged_models(
        experiment_ids=[run.info.experiment_id], filter_string=f"tags.`{CHECKPOINT_TAG}` = '{mark}'"
    )
    earlier = [model for model in earlier if model.source_run_id == run_id]
    ready = [model for model in earlier if model.status == "READY"]
    if ready:
        _register(store, run_id, ready[0].model_id, record)
        return
    for model in earlier:
        client.delete_logged_model(model.model_id)
    predictor = _load(run_dir)
    model = client.create_logged_model(
        run.info.experiment_id,
        name="model",
        source_run_id=run_id,
        tags={CHECKPOINT_TAG: mark},
        params=run.data.params,
        model_type="classifier",
    )
    mlflow.set_tracking_uri(store.uri)
    log_model: Any = mlflow.pytorch.log_model
    with patient_requests():
        log_model(
            predictor,
            name="model",
            model_id=model.model_id,
            run_id=run_id,
            step=record["step"],
            **_how_to_save(predictor),
        )
    _register(store, run_id, model.model_id, record)


def _register(store: Store, run_id: str, model_id: str, record: Record) -> None:
    """Make the model the newest version of the requested registered model, and its champion."""
    name, client = record.get("register"), store.client
    if name is None:
        return
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"models:/{model_id}"
    versions = client.search_model_versions(f"name = '{name}'")
    found = [
        version for version in versions if version.source == source or version.model_id == model_id
    ]
    version = (
        found[0]
        if found
        else client.create_model_version(name, source, run_id=run_id, model_id=model_id)
    )
    if not found or max(int(v.version) for v in versions) == int(version.version):
        client.set_registered_model_alias(name, CHAMPION, version.version)


def why_not_exported(run_dir: Path) -> str | None:
    """Return why the model cannot be saved here either; None if it can: the store is at fault."""
    save_model: Any = mlflow.pytorch.save_model
    try:
        predictor = _load(run_dir)
        with tempfile.TemporaryDirectory() as directory:
            save_model(predictor, f"{directory}/model", **_how_to_save(predictor))
    except Exception as error:
        return first_line(error)
    return None


def _load(run_dir: Path) -> Any:
    from visionsweep.training.predictor import load_model  # torch, which few uploads need

    if not is_inside(run_dir, BEST):
        raise DataError(f"{BEST} lies outside of the run's directory")
    return load_model(run_dir, device="cpu").eval()


def _how_to_save(predictor: Any) -> dict[str, Any]:
    channels, height, width = predictor.image_shape
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, channels, height, width))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1))]),
    )
    return {
        "serialization_format": "pt2",
        "input_example": np.zeros((2, channels, height, width), dtype=np.uint8),
        "signature": signature,
        # Inferring them takes a subprocess and 6 s.
        "pip_requirements": [f"{name}=={_release(name)}" for name in ("mlflow", "torch", "numpy")],
    }


def _release(package: str) -> str:
    # "2.9.1+cpu" is on no public index.
    return importlib.metadata.version(package).partition("+")[0]
