"""Composition root of one experiment: seed, build, fit, record, return the objective.

`run(cfg)` is what `train.py` calls for every job; it also works in a notebook after `hydra.compose`.
"""

import contextlib
import json
import logging
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import visionsweep.config  # noqa: F401 - registers the schema, also for a notebook
from visionsweep.assembly import Experiment, assemble
from visionsweep.atomic import locked, write_text
from visionsweep.console import progress_bar
from visionsweep.data.splits import read_split, split_rows, write_split
from visionsweep.errors import ConfigError, UserError
from visionsweep.paths import absolute, resolve_paths
from visionsweep.recording import BEST, Best, Recorder
from visionsweep.report.figures import confusion_matrix_png, curves_png
from visionsweep.reproducibility import environment
from visionsweep.results import result_of, write_result
from visionsweep.signals import stop_on_signal
from visionsweep.tracking.journal import Journal
from visionsweep.training import Interrupted, evaluate, fit

log = logging.getLogger(__name__)

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
SPLIT = "split.csv"
COMPONENT_GROUPS = ("model", "loss", "optim", "scheduler", "data", "augment")


class Stopped(Exception):  # noqa: N818 - the user's wish, not an error
    """The user ended the run; its directory can be resumed."""

    def __init__(self, run_dir: Path, signal_number: int) -> None:
        super().__init__(f"stopped; go on with: python train.py resume={shown(run_dir)}")
        self.signal_number = signal_number


def resolved_config(cfg: DictConfig) -> dict[str, Any]:
    """Return the config as plain containers: interpolations resolved, paths absolute, without `hydra` and `resume`."""
    directory = Path(HydraConfig.get().runtime.cwd) if HydraConfig.initialized() else Path.cwd()
    keys = [str(key) for key in cfg if key not in ("hydra", "resume")]
    try:
        config: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
            OmegaConf.masked_copy(cfg, keys), resolve=True, throw_on_missing=True
        )
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).strip().splitlines()[0]}") from error
    resolve_paths(config, directory)
    return config


def shown(path: Path) -> str:
    """Return `path` as a person would type it: relative below the current directory."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def run(cfg: DictConfig) -> float:
    """Train one experiment; return its best objective.

    The record goes to Hydra's output directory, or to `outputs/NAME` outside of a Hydra job. Raises `UserError`
    for what the user can mend (`result.json` then says `failed`) and `Stopped` after Ctrl-C.
    """
    config = resolved_config(cfg)
    if HydraConfig.initialized():
        run_dir = Path(HydraConfig.get().runtime.output_dir)
    else:
        run_dir = Path(absolute(f"outputs/{config['name']}", Path.cwd()))
        if run_dir.exists() and cfg.resume is None:
            raise UserError(f"{shown(run_dir)} exists already; give the run another name")
        run_dir.mkdir(parents=True, exist_ok=True)
    is_resumed = cfg.resume is not None
    with locked(run_dir):
        try:
            experiment = _prepare(config, run_dir, is_resumed=is_resumed)
        except Exception as error:
            if not is_resumed:  # a run that went before keeps its result
                write_result(run_dir, result_of(config, "failed", error=_reason(error)))
            raise
        return _train(config, run_dir, experiment, is_resumed=is_resumed)


def _prepare(config: dict[str, Any], run_dir: Path, *, is_resumed: bool) -> Experiment:
    """Build everything, then write what the run is. Nothing is written for a setting that cannot be honoured."""
    experiment = assemble(config)
    split = (experiment.dataset, experiment.train_indices, experiment.val_indices)
    split_path = run_dir / SPLIT
    if not is_resumed or not split_path.exists():
        write_split(split_path, *split)
    elif read_split(split_path) != split_rows(*split):
        raise UserError(
            f"{shown(split_path)}: the data has changed since the run started, so it cannot go on exactly; "
            "bring back the same files, or start a new run"
        )
    write_text(run_dir / CONFIG, OmegaConf.to_yaml(OmegaConf.create(config)))
    record = environment(Path.cwd()) | {"overrides": _overrides()}
    write_text(run_dir / ENVIRONMENT, json.dumps(record, indent=2) + "\n")
    return experiment


def _train(config: dict[str, Any], run_dir: Path, experiment: Experiment, *, is_resumed: bool) -> float:
    journal = Journal(run_dir)
    objective, early_stopping = config["objective"], config["trainer"]["early_stopping"]
    recorder = Recorder(
        run_dir,
        experiment.state,
        Best(objective["direction"], early_stopping["patience"], early_stopping["min_delta"]),
        journal,
        epochs=config["trainer"]["epochs"],
        inference=experiment.inference,
    )
    try:
        _start_journal(config, run_dir, experiment, journal)
        if is_resumed:
            recorder.resume()
        with stop_on_signal() as received, progress_bar() as progress:
            reason = fit(
                experiment.state,
                experiment.train,
                experiment.val,
                experiment.settings,
                on_epoch_end=recorder,
                should_stop=lambda: bool(received),
                progress=progress,
            )
        if reason is not None:
            log.info("ended early: %s", reason)
        return _finish(config, run_dir, experiment, recorder)
    except Interrupted:
        recorder.save_last()
        write_result(run_dir, result_of(config, "stopped", recorder))
        journal.end("stopped")
        raise Stopped(run_dir, _signal_of(received)) from None
    except Exception as error:
        write_result(run_dir, result_of(config, "failed", recorder, error=_reason(error)))
        journal.end("failed")
        raise
    finally:
        journal.close()


def _signal_of(received: list[int]) -> int:
    return received[0]


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def _overrides() -> list[str]:
    """Return the overrides that compose this config again: the job's own, and where else Hydra looks for YAML."""
    if not HydraConfig.initialized():
        return []
    hydra = HydraConfig.get().overrides
    return [*hydra.task, *(o for o in hydra.hydra if o.lstrip("+").startswith("hydra.searchpath"))]


def _start_journal(config: dict[str, Any], run_dir: Path, experiment: Experiment, journal: Journal) -> None:
    record = json.loads((run_dir / ENVIRONMENT).read_text())
    params = flatten({key: value for key, value in config.items() if key not in ("name", "study", "tracking")})
    trainer = config["trainer"]
    if HydraConfig.initialized():  # what was typed: loss=focal says more than its class path
        choices = HydraConfig.get().runtime.choices
        params = {group: choices[group] for group in COMPONENT_GROUPS} | params
    params["effective_batch_size"] = trainer["batch_size"] * trainer["accumulate"]
    params["num_parameters"] = sum(p.numel() for p in experiment.state.model.parameters())
    tags = {
        "git.commit": record["git"]["commit"] or "not in git",
        "git.dirty": {True: "true", False: "false", None: "not in git"}[record["git"]["dirty"]],
        "command": " ".join(record["command"]),
        # what MLflow's own table shows in its column Source
        "mlflow.source.name": record["command"][0],
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": record["git"]["commit"] or "",
        "run_dir": str(run_dir),
        "dataset": experiment.dataset.name,
    }
    name = f"{config['study']}/{run_dir.name}" if _is_multirun() else run_dir.name
    journal.start(name, config["tracking"]["experiment"], params, tags)
    for name in (CONFIG, ENVIRONMENT, SPLIT):
        journal.artifact(name)


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, object]:
    """Return ``{"optim.lr": 0.001, ...}`` of nested mappings."""
    flat: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _finish(config: dict[str, Any], run_dir: Path, experiment: Experiment, recorder: Recorder) -> float:
    """Test the best checkpoint once, draw the pictures, write the result, and say where all of it lies."""
    best = recorder.best_checkpoint()
    value = recorder.best.value
    assert value is not None  # best.pt exists
    state, settings, journal = experiment.state, experiment.settings, recorder.journal
    test = None
    if experiment.test is not None:
        model = state.evaluated_model()
        model.load_state_dict(best["model"])
        test = evaluate(model, state.loss, experiment.test, settings).metrics(settings, "test")

    (run_dir / "figures").mkdir(exist_ok=True)
    confusion_matrix_png(best["matrix"].numpy(), settings.class_names, run_dir / "figures/confusion_matrix.png")
    history = [entry["metrics"] for entry in recorder.history]
    curves_png(history, run_dir / "figures/curves.png", best_epoch=recorder.best.epoch)

    summary = {f"best/{name.removeprefix('val/')}": v for name, v in best["metrics"].items() if name in _SUMMARY}
    summary[f"best/{settings.objective.removeprefix('val/')}"] = value
    summary["best/epoch"] = recorder.best.epoch
    journal.metrics(len(history), summary | {k: v for k, v in (test or {}).items() if "/f1_class/" not in k})
    for picture in ("figures/confusion_matrix.png", "figures/curves.png"):
        journal.artifact(picture, "figures")
    _record_checkpoints(config, journal)

    write_result(run_dir, result_of(config, "finished", recorder, test=test))
    journal.artifact("result.json")
    if not _is_multirun():
        journal.model(BEST, step=recorder.best.epoch)
    journal.end("finished")
    log.info(
        "best epoch %d: %s %.4f%s  (%.1f s)",
        recorder.best.epoch,
        settings.objective,
        value,
        "" if test is None else f", test/f1_macro {test['test/f1_macro']:.4f}",
        recorder.seconds(),
    )
    log.info("run: %s", shown(run_dir))
    return value


_SUMMARY = ("val/f1_macro", "val/accuracy", "val/loss")


def _record_checkpoints(config: dict[str, Any], journal: Journal) -> None:
    wanted = config["tracking"]["checkpoints"]
    names = {"none": (), "best": ("best",), "all": ("best", "last")}[wanted]
    for name in names:
        journal.artifact(f"checkpoints/{name}.pt", "checkpoints")


def _is_multirun() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
