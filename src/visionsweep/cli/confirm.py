"""`confirm=multirun/STUDY`: the overrides of the sweep that confirms a study."""

from pathlib import Path

from visionsweep.config.typed_text import quote
from visionsweep.errors import UserError
from visionsweep.program import command, fail
from visionsweep.rundir.layout import SWEEP
from visionsweep.rundir.usable import usable
from visionsweep.sweep.command_line import single_run_overrides
from visionsweep.sweep.stored import Stored, override_key, read_stored, used_seeds
from visionsweep.text import is_masked

_SUFFIX = "-confirm"
_CHOSEN_HERE = ("sweep", "study", "name")


def confirm_overrides(directory: str, given: list[str]) -> list[str]:
    """Return the overrides of the sweep that confirms the study in `directory`, without `given`.

    Its fixed config is that of the study, with a new seed. If that sweep exists, its name is
    enough. Exits with one line if there is no study.
    """
    study = _read(Path(directory), directory)
    keys = [override_key(item) for item in given]
    name = next((i.partition("=")[2] for i in given if override_key(i) == "study"), None)
    name = name or f"{Path(directory).resolve().name}{_SUFFIX}"
    target = Path("multirun") / name
    if "hydra.sweep.dir" not in keys and (target / SWEEP).is_file():
        stored = _read(target, str(target)).search.get("confirm")
        if not stored or Path(stored["study"]).resolve() != Path(directory).resolve():
            fail(
                f"confirm: {target} holds another sweep; move it away, or name the new one with "
                "study=NAME"
            )
        return [f"study={quote(name)}"]
    searched = set(study.search["space"])
    seed_key = study.search["seed_key"]
    left_out = {*_CHOSEN_HERE, *searched, seed_key, *keys}
    base = [
        *single_run_overrides(study.hydra_overrides),
        *(o for o in study.hydra_overrides if override_key(o).startswith("hydra.launcher.")),
        *study.task_overrides,
    ]
    base = [item for item in dict.fromkeys(base) if override_key(item) not in left_out]
    for item in filter(is_masked, base):
        fail(
            f"confirm: {override_key(item)} held a password, which is not stored; give it again "
            f"with {override_key(item)}=..."
        )
    folds = study.search.get("folds", 1)
    return [
        "sweep=confirm",
        *base,
        f"study={quote(name)}",
        f"{seed_key}={_new_seed(study, seed_key)}",
        f"hydra.sweeper.confirm={quote(directory)}",
        *([f"hydra.sweeper.folds={folds}"] if folds > 1 else []),
    ]


def _read(directory: Path, shown: str) -> Stored:
    try:
        with usable(directory, "confirm"):
            stored = read_stored(directory)
    except UserError as error:
        fail(str(error))
    if stored is None:
        problem = f"holds no sweep (no {SWEEP})" if directory.exists() else "does not exist"
        fail(
            f"confirm: {shown} {problem}; give the directory of a study, e.g. "
            f"{command('train')} --multirun confirm=multirun/STUDY"
        )
    return stored


def _new_seed(study: Stored, seed_key: str) -> int:
    """Return the first seed above all that the study used."""
    used = used_seeds(study)
    if not used:
        fail(f"confirm: the study's {seed_key} is no number, so no new one can follow it")
    return max(last for _, last in used) + 1
