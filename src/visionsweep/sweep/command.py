"""One `--multirun` with `hydra/sweeper=optuna_async`: take up or begin a sweep, check it, run it, say what came out."""

import contextlib
import json
import logging
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf

from visionsweep.errors import ConfigError, UserError
from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.lock import locked
from visionsweep.sweep.composition import Composer, shown
from visionsweep.sweep.engines.engine import Engine
from visionsweep.sweep.settings import DEFAULT_TRIALS, Settings, read_settings
from visionsweep.sweep.space.space import SearchSpace, parse_space, warnings_of
from visionsweep.sweep.stored import (
    FILE,
    Stored,
    continue_command,
    differences,
    git_commit,
    merge,
    new_id,
    override_key,
    read_stored,
)

log = logging.getLogger(__name__)

LOG = "sweep.log"


@dataclass(frozen=True)
class Sweep:
    """What a command asks for, checked and composed; nothing has been written yet."""

    context: HydraContext
    config: DictConfig
    task_function: TaskFunction
    sweep_dir: Path
    settings: Settings
    space: SearchSpace
    composer: Composer
    n_trials: int
    grid: list[dict[str, Any]] | None
    found: Stored | None  # what is on disk; None: a new sweep
    stored: Stored  # as it will be written

    @property
    def storage_url(self) -> str:
        """The Optuna URL of the study."""
        return self.settings.storage or f"sqlite:///{self.sweep_dir / 'study.db'}"

    @property
    def study_name(self) -> str:
        """The study's name in its storage; it stays where the directory is renamed."""
        return self.settings.study_name or self.stored.study_name

    def epochs(self) -> int | None:
        """Return the epochs of a whole run; None where the app does not say, or where they are searched."""
        key = self.settings.epochs_key
        if any(dimension.key == key for dimension in self.space.dimensions):
            return None
        value = self.composer.value_of(key)
        return value if isinstance(value, int) else None

    def continue_command(self) -> str:
        """Return the command that takes up this sweep."""
        return continue_command(
            self.sweep_dir, self.stored.hydra_overrides, self.settings.study_key
        )

    def repeat_overrides(self, number: int, params: dict[str, Any], threads: int) -> list[str]:
        """Return plain overrides that give a trial's numbers again in a single run."""
        settings = self.settings
        overrides = self.composer.overrides(number, params, seed_index=0)
        left_out = {*settings.multirun_keys, settings.study_key, "hydra.sweep.subdir"}
        plain = [o for o in overrides if override_key(o) not in left_out]
        if (
            settings.threads_key is not None
            and self.composer.value_of(settings.threads_key) is None
        ):
            plain.append(f"{settings.threads_key}={threads}")
        return plain


def run_sweep(
    context: HydraContext, config: DictConfig, task_function: TaskFunction, arguments: Sequence[str]
) -> int:
    """Run a sweep, or go on with it; return the exit code: 0, 1 without a result, 130 after Ctrl-C.

    Raises `UserError` for what the user can mend, before any trial starts.
    """
    from visionsweep.sweep.plan import plan
    from visionsweep.sweep.session import run_session

    sweep = prepare(context, config, task_function, arguments)
    for line in warnings_of(sweep.space):
        log.warning(line)
    if sweep.settings.dry_run:
        for line in plan(sweep):
            print(line)  # noqa: T201 - it is what was asked for
        return 0
    sweep.sweep_dir.mkdir(parents=True, exist_ok=True)
    with (
        locked(sweep.sweep_dir),
        _log_to(sweep.sweep_dir / LOG),
        _counted_interrupts() as interrupts,
    ):
        if read_stored(sweep.sweep_dir) != sweep.found:
            raise UserError(
                f"{sweep.sweep_dir} was changed by another sweep just now; give the command again"
            )
        return run_session(sweep, lambda: len(interrupts))


def prepare(
    context: HydraContext, config: DictConfig, task_function: TaskFunction, arguments: Sequence[str]
) -> Sweep:
    """Merge the command onto the stored sweep if there is one, compose it, and refuse what must not differ."""
    sweep_dir = Path(str(config.hydra.sweep.dir))
    stored = read_stored(sweep_dir)
    task = [str(a) for a in arguments]
    if stored is not None:
        config, task = _merged(context, config, task, stored)
    hydra = [str(o) for o in config.hydra.overrides.hydra]
    node = OmegaConf.to_container(config.hydra.sweeper, resolve=True, enum_to_str=True)
    assert isinstance(node, dict)
    settings = read_settings({str(key): value for key, value in node.items()})
    space = parse_space(
        settings.params, settings.default_params, task, config_loader=context.config_loader
    )
    composer = Composer(context, config, space, settings)
    enqueue = [
        space.check_params(item, f"hydra.sweeper.enqueue[{i}]")
        for i, item in enumerate(settings.enqueue)
    ]
    settings = replace(settings, enqueue=enqueue)
    fixed = composer.fixed_config()
    # What is fixed counts as what it makes of the config, however it is said.
    search = {"space": space.fingerprint()["searched"], **settings.identity()}
    free = [*settings.may_change, *([settings.study_key] if settings.study_key else [])]
    if stored is None:
        log.info("new study %s", sweep_dir.name)
        mine = Stored(
            id=new_id(),
            study_name=sweep_dir.name,
            task_overrides=task,
            hydra_overrides=_lasting(hydra),
            search=search,
            config=fixed,
            seed=settings.sampler_seed(),
            git_commit=git_commit(),
        )
    else:
        is_same = _is_same(sweep_dir, stored, search, fixed, free, settings)
        mine = replace(
            stored,
            task_overrides=task,
            hydra_overrides=_lasting(hydra),
            search=search,
            config=fixed,
            seed=stored.seed if is_same else settings.sampler_seed(stored.seed),
            is_checked=stored.is_checked and is_same,
        )
        commit = git_commit()
        if commit != stored.git_commit:
            log.warning(
                "the code was at commit %s when this sweep began, and is at %s now",
                stored.git_commit,
                commit,
            )
    grid = space.grid() if settings.is_grid else None
    n_trials = _total(settings, grid)
    return Sweep(
        context,
        config,
        task_function,
        sweep_dir,
        settings,
        space,
        composer,
        n_trials,
        grid,
        stored,
        mine,
    )


def _merged(
    context: HydraContext, config: DictConfig, task: list[str], stored: Stored
) -> tuple[DictConfig, list[str]]:
    given = [str(o) for o in config.hydra.overrides.hydra]
    task_merged, hydra_merged = (
        merge(stored.task_overrides, task),
        merge(stored.hydra_overrides, given),
    )
    if (task_merged, hydra_merged) == (task, given):
        return config, task
    target, sweep_dir = config.hydra.sweeper._target_, config.hydra.sweep.dir
    config = context.config_loader.load_configuration(
        config.hydra.job.config_name, [*hydra_merged, *task_merged], run_mode=RunMode.MULTIRUN
    )
    if config.hydra.sweeper._target_ != target:
        raise ConfigError(
            f"hydra/sweeper: this sweep was started with {config.hydra.sweeper._target_}, not {target}"
        )
    if config.hydra.sweep.dir != sweep_dir:  # a name made from the time
        config.hydra.sweep.dir = sweep_dir
    config.hydra.mode = RunMode.MULTIRUN
    HydraConfig.instance().set_config(config)
    return config, task_merged


def _lasting(hydra_overrides: Sequence[str]) -> list[str]:
    """Leave out what was meant for one command only."""
    passing = ("hydra.sweeper.dry_run", "hydra.sweeper.on_change", "hydra.mode")
    return [override for override in hydra_overrides if override_key(override) not in passing]


def _is_same(
    sweep_dir: Path,
    stored: Stored,
    search: dict[str, Any],
    fixed: dict[str, Any],
    free: list[str],
    settings: Settings,
) -> bool:
    """Return whether a command asks for the stored search; raise `ConfigError` if not, unless it is to be extended."""
    lines = differences(stored, search, fixed, free)
    if not lines:
        return True
    listed = "\n".join(f"  {line}" for line in lines)
    if settings.on_change == "refuse":
        raise ConfigError(
            f"{sweep_dir} was started with another search (stored -> now); nothing was run:\n{listed}\n"
            "  Take the change back, choose another study, or add hydra.sweeper.on_change=extend to go on with it."
        )
    if settings.enqueue != stored.search["enqueue"]:
        raise ConfigError(
            "hydra.sweeper.enqueue: comes first in a sweep, which began already; take the change back"
        )
    log.warning("%s goes on with a changed search (stored -> now):\n%s", sweep_dir, listed)
    return False


def _total(settings: Settings, grid: list[dict[str, Any]] | None) -> int:
    if grid is None:
        return DEFAULT_TRIALS if settings.n_trials is None else settings.n_trials
    if settings.n_trials is None or settings.n_trials >= len(grid):
        return len(grid)
    log.warning(
        "hydra.sweeper.n_trials=%d runs a part of the grid of %d configurations only",
        settings.n_trials,
        len(grid),
    )
    return settings.n_trials


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Have every log line of this process in a file as well."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(levelname)s] %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


@contextlib.contextmanager
def _counted_interrupts() -> Iterator[list[int]]:
    """Give a list that grows with each Ctrl-C or SIGTERM."""
    received: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    try:
        for wanted in (signal.SIGINT, signal.SIGTERM):
            previous[wanted] = signal.signal(wanted, note)
    except ValueError:  # not the main thread: whoever started it decides how it ends
        previous.clear()
    try:
        yield received
    finally:
        for changed, old in previous.items():
            signal.signal(changed, old)


def create_engine(sweep: Sweep, log_path: Path) -> Engine:
    """Return the engine that `hydra/launcher` names. Raises `ConfigError` for one that cannot run single trials."""
    from hydra.core.plugins import Plugins

    launcher: Any = Plugins.instance().instantiate_launcher(
        hydra_context=sweep.context, task_function=sweep.task_function, config=sweep.config
    )
    name = type(launcher).__name__
    if name == "BasicLauncher":  # Hydra's default, which means that none was chosen
        from hydra_plugins.visionsweep_sweep.launcher import WorkersLauncher

        launcher = WorkersLauncher()
        launcher.setup(
            hydra_context=sweep.context, task_function=sweep.task_function, config=sweep.config
        )
    elif not hasattr(launcher, "create_engine"):
        raise ConfigError(
            f"hydra/launcher: {name} takes a batch of jobs and returns when all are done, so it can neither start the "
            "next trial at once nor stop one; set hydra/launcher=workers, or use hydra/sweeper=optuna with it"
        )
    engine: Engine = launcher.create_engine(n_jobs=sweep.settings.n_jobs, log_path=log_path)
    return engine


def load_history(sweep: Sweep) -> list[tuple[dict[str, Any], list[float]]]:
    """Return parameters and values of the sweep named by `hydra.sweeper.warm_start`.

    They are written down in this sweep's directory, since the other one may grow while this one lives.
    """
    source = sweep.settings.warm_start
    if source is None:
        return []
    snapshot = sweep.sweep_dir / "warm_start.json"
    kept = json.loads(snapshot.read_text(encoding="utf-8")) if snapshot.exists() else None
    if (
        kept is None or kept["warm_start"] != source
    ):  # another one before the sweep began, or since it is extended
        kept = {"warm_start": source, "trials": _read_history(sweep, Path(source))}
        write_text(snapshot, json.dumps(kept))
    return [(dict(params), list(values)) for params, values in kept["trials"]]


def _read_history(sweep: Sweep, directory: Path) -> list[tuple[dict[str, Any], list[float]]]:
    from optuna.trial import TrialState

    from visionsweep.sweep.study import open_storage

    stored = read_stored(directory)
    if stored is None:
        raise ConfigError(
            f"hydra.sweeper.warm_start: {directory} holds no sweep (no {FILE}); give multirun/STUDY"
        )
    if stored.search["direction"] != list(sweep.settings.directions):
        raise ConfigError(
            f"hydra.sweeper.warm_start: {directory} has another direction {stored.search['direction']}"
        )
    storage = open_storage(stored.search["storage"] or f"sqlite:///{directory / 'study.db'}")
    name = stored.search["study_name"] or stored.study_name
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        raise ConfigError(
            f"hydra.sweeper.warm_start: {directory} has lost its study '{name}'; restore its storage, or set it to null"
        ) from None
    trials = storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.COMPLETE,))
    found = [(trial.params, list(trial.values)) for trial in trials]
    log.info("warm start: %d complete trials of %s", len(found), shown([str(directory)]))
    return found
