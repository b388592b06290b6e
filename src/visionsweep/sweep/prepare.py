"""From a command to a `Sweep`: merge it onto the stored sweep, compose it, refuse changes.

Writes nothing.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from visionsweep.config.hydra_errors import one_line
from visionsweep.errors import ConfigError, UserError
from visionsweep.rundir.usable import usable
from visionsweep.sweep.budget import NO_LIMIT, within_budget
from visionsweep.sweep.command_line import resume_overrides
from visionsweep.sweep.composition import Composer, as_written, resolve
from visionsweep.sweep.confirm import check_confirm, choose, listed_space, stored_candidates
from visionsweep.sweep.definition import Sweep
from visionsweep.sweep.portfolio import first_configurations
from visionsweep.sweep.samplers import build_pruner, sampler_factory
from visionsweep.sweep.settings import DEFAULT_TRIALS, SweepSettings, read_settings
from visionsweep.sweep.space.space import SearchSpace, parse_space
from visionsweep.sweep.stored import (
    Stored,
    continued,
    differences,
    git_commit,
    new_id,
    override_key,
    read_stored,
    typed_overrides,
    written_as,
)
from visionsweep.text import mask_passwords, masked

log = logging.getLogger(__name__)

_FOR_ONE_COMMAND = (
    *("hydra.sweeper.dry_run", "hydra.sweeper.on_change", "hydra.sweeper.rerun_failed"),
    "hydra.mode",
)


def prepare(
    context: HydraContext, config: DictConfig, task_function: TaskFunction, arguments: Sequence[str]
) -> Sweep:
    """Return the sweep of a command. Raises `UserError` for what the user can fix."""
    try:
        return _prepare(context, config, task_function, arguments)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(one_line(error)) from error


def _prepare(
    context: HydraContext, config: DictConfig, task_function: TaskFunction, arguments: Sequence[str]
) -> Sweep:
    sweep_dir = _sweep_dir(config)
    with usable(sweep_dir, "hydra.sweep.dir"):
        previous = read_stored(sweep_dir)
    task = [str(argument) for argument in arguments]
    if previous is not None:
        config, task = _merged(context, config, task, previous)
    node: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=True, enum_to_str=True)
    hydra, _ = typed_overrides(config)
    settings = within_budget(read_settings(node), map(override_key, hydra))
    if (
        previous is not None
        and settings.seeds_for is None
        and previous.search["seeds"] > 1
        and "seeds_for" not in previous.search
    ):  # an earlier version gave all seeds to every trial
        settings = replace(settings, seeds_for="all")
    space = parse_space(
        settings.params, settings.default_params, task, config_loader=context.config_loader
    )
    composer = Composer(context, config, space, settings)
    _require_epochs(settings, space, composer)
    candidates = None
    if settings.confirm is not None:
        check_confirm(settings, space)
        candidates = stored_candidates(previous) or choose(composer, settings)
        space = listed_space(candidates, space)
        composer = Composer(context, config, space, settings)
    enqueue = [
        space.check_params(item, f"hydra.sweeper.enqueue[{i}]")
        for i, item in enumerate(settings.enqueue)
    ]
    settings = replace(settings, enqueue=enqueue)
    composer.require_directories_below()
    # Fixed overrides count as what they make of the config, however they are written.
    search = {"space": space.fingerprint()["searched"], **settings.identity()}
    search["storage"] = _stored_url(config)
    if settings.portfolio != "none":
        is_typed = "hydra.sweeper.portfolio" in map(override_key, hydra)
        portfolio = _portfolio(settings, space, composer, previous, is_typed=is_typed)
        if portfolio is not None:
            search["portfolio"] = portfolio
    if candidates is not None:
        search["confirm"] = {**candidates.as_plain(settings), "study": settings.confirm}
    written = as_written(composer.fixed_config())
    if previous is not None:  # an earlier version stored what interpolations gave
        written = written_as(previous.config, written, resolve(composer.fixed_config()))
        search = written_as(previous.search, search, search | {"storage": masked(settings.storage)})
    current = Stored(
        id=new_id(),
        study_name=sweep_dir.name,
        task_overrides=masked(task),
        hydra_overrides=masked([o for o in hydra if override_key(o) not in _FOR_ONE_COMMAND]),
        search=search,
        config=masked(written),
        seed=settings.sampler_seed(None if previous is None else previous.seed),
        git_commit=git_commit(),
    )
    if previous is None:
        log.info("new study %s", sweep_dir.name)
    else:
        current = _continued(sweep_dir, previous, current, settings)
    build_pruner(settings.pruner)
    sampler_factory(settings.sampler, current.seed)(0)
    grid = space.grid() if settings.is_grid else None
    n_trials = _total(settings, grid)
    resume = resume_overrides(
        sweep_dir,
        current.hydra_overrides,
        [o for o in current.task_overrides if composer.is_group(override_key(o))],
        settings.study_key,
        lambda overrides: _leads_here(context, config, overrides),
    )
    return Sweep(
        *(context, config, task_function, sweep_dir, settings, space, composer, n_trials, grid),
        *(previous, current, resume, candidates),
    )


def _require_epochs(settings: SweepSettings, space: SearchSpace, composer: Composer) -> None:
    """Raise `ConfigError` if a budget has no number of epochs to plan with."""
    key = settings.epochs_key
    is_searched = key in space.searched_keys
    if settings.budget_minutes is None or (
        not is_searched and isinstance(composer.value_of(key), int)
    ):
        return
    remedy = f"give {key} a single value"
    if key is None:
        remedy = "set hydra.sweeper.epochs_key to the key of this app that has it"
    raise ConfigError(
        "hydra.sweeper.budget_minutes: needs one number of epochs for all trials, to tell what can "
        f"be finished in time; {remedy}"
    )


def _sweep_dir(config: DictConfig) -> Path:
    directory = config.hydra.sweep.dir
    if not directory:
        raise ConfigError(f"hydra.sweep.dir: expected a directory, got {directory!r}")
    return Path(str(directory))


def _portfolio(
    settings: SweepSettings,
    space: SearchSpace,
    composer: Composer,
    previous: Stored | None,
    *,
    is_typed: bool,
) -> list[dict[str, Any]] | None:
    """Return what a sweep tries first; None if it was started without a portfolio.

    That is decided once: n_trials may change, and so may the portfolio of a later version.
    """
    if previous is None:
        return first_configurations(settings, space, composer.value_of)
    if "portfolio" in previous.search:
        stored: list[dict[str, Any]] = previous.search["portfolio"]
        return stored
    return [] if is_typed else None  # an earlier version stored none


def _stored_url(config: DictConfig) -> str | None:
    """Return the storage as files hold it: interpolations as typed, a typed password masked."""
    typed: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=False)
    url: str | None = typed["storage"]
    if masked(url) != url:
        log.warning(
            "hydra.sweeper.storage: other users of this machine can read a password in the list "
            "of processes; keep it in the environment: 'hydra.sweeper.storage=${oc.env:NAME}'"
        )
    return None if url is None else mask_passwords(url)


def _merged(
    context: HydraContext, config: DictConfig, task: list[str], previous: Stored
) -> tuple[DictConfig, list[str]]:
    """Return config and task overrides of the stored sweep with this command's changes."""
    given, _ = typed_overrides(config)
    hydra_merged, task_merged = continued(previous, given, task)
    if (task_merged, hydra_merged) == (task, given):
        return config, task
    target, sweep_dir = config.hydra.sweeper._target_, config.hydra.sweep.dir
    config = context.config_loader.load_configuration(
        config.hydra.job.config_name, [*hydra_merged, *task_merged], run_mode=RunMode.MULTIRUN
    )
    if config.hydra.sweeper._target_ != target:
        raise ConfigError(
            f"hydra/sweeper: this sweep was started with {config.hydra.sweeper._target_}, "
            f"not {target}"
        )
    if config.hydra.sweep.dir != sweep_dir:  # a name made from the time
        config.hydra.sweep.dir = sweep_dir
    config.hydra.mode = RunMode.MULTIRUN
    HydraConfig.instance().set_config(config)
    return config, task_merged


def _leads_here(context: HydraContext, config: DictConfig, overrides: Sequence[str]) -> bool:
    """Return whether a command with these overrides finds this sweeper."""
    try:
        found = context.config_loader.load_configuration(
            config.hydra.job.config_name, list(overrides), run_mode=RunMode.MULTIRUN
        )
    except (HydraException, OmegaConfBaseException):
        return False
    return bool(found.hydra.sweeper._target_ == config.hydra.sweeper._target_)


def _continued(
    sweep_dir: Path, previous: Stored, current: Stored, settings: SweepSettings
) -> Stored:
    """Return `current` as the continuation of `previous`; refuse another search."""
    is_same = _is_same_search(sweep_dir, previous, current, settings)
    if current.git_commit != previous.git_commit:
        log.warning(
            "the code was at commit %s when this sweep started, and is at %s now",
            *(previous.git_commit, current.git_commit),
        )
    return replace(
        current,
        id=previous.id,
        study_name=previous.study_name,
        git_commit=previous.git_commit,
        seed=previous.seed if is_same else current.seed,
        valid_from=previous.valid_from,
        is_checked=previous.is_checked and is_same,
        data=previous.data if is_same else [],
    )


def _is_same_search(
    sweep_dir: Path, previous: Stored, current: Stored, settings: SweepSettings
) -> bool:
    lines = differences(previous, current.search, current.config, settings.free_keys)
    if not lines:
        return True
    listed = "\n".join(f"  {line}" for line in lines)
    if settings.on_change == "refuse":
        raise ConfigError(
            f"{sweep_dir} was started with another search (stored -> now). Nothing was run:\n"
            f"{listed}\n  Undo the change, choose another study, or add "
            "hydra.sweeper.on_change=extend to resume with it."
        )
    for name in ("enqueue", "portfolio"):
        if current.search.get(name) != previous.search.get(name):
            raise ConfigError(
                f"hydra.sweeper.{name}: runs first in a sweep, and this one has started already; "
                "undo the change"
            )
    log.warning("%s is resumed with another search (stored -> now):\n%s", sweep_dir, listed)
    return False


def _total(settings: SweepSettings, grid: list[dict[str, Any]] | None) -> int:
    if grid is None:
        default = DEFAULT_TRIALS if settings.budget_minutes is None else NO_LIMIT
        return default if settings.n_trials is None else settings.n_trials
    if not grid:
        raise UserError("hydra.sweeper: the grid is empty; name the parameters to search")
    if settings.n_trials is None or settings.n_trials >= len(grid):
        return len(grid)
    log.warning(
        "hydra.sweeper.n_trials=%d runs only a part of the grid of %d configurations",
        *(settings.n_trials, len(grid)),
    )
    return settings.n_trials
