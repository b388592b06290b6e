"""A sweep resumes as stored, with a later command's changes unless they alter the search."""

import shlex
import shutil
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.config_store import ConfigStore
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig

from tests.sweep.apps import App, NoCapture, plain_trials, tree
from visionsweep.errors import ConfigError
from visionsweep.rundir.layout import LOCK, SWEEP, SWEEP_LOG
from visionsweep.sweep import prepare, stored

RESUME = ("--multirun", "hydra/sweeper=optuna_async")
STARTED = ("x=interval(-5.0,5.0)", "z=a,b", "y=2", "hydra.sweeper.n_trials=3")
EXTEND = "hydra.sweeper.on_change=extend"
WARM = "hydra.sweeper.warm_start=s"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> App:
    return App(tmp_path, monkeypatch, capfd, is_quick=True)


@pytest.fixture(scope="module")
def whole(begun: Path) -> list[tuple[Any, ...]]:
    """Return the trials of the same sweep, run to 5 trials without a break."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        app = App(begun, monkeypatch, capfd=NoCapture(), is_quick=True)
        assert app.sweep(*STARTED, "hydra.sweeper.n_trials=5", to="whole").code == 0
        return plain_trials(app.study("whole"))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an app that holds a sweep `s` of 3 trials; tests copy it."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as monkeypatch:
        app = App(folder, monkeypatch, capfd=NoCapture())
        assert app.sweep(*STARTED).code == 0
    return folder


@pytest.fixture
def again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], begun: Path
) -> App:
    """Return an app whose folder holds the sweep `s` of 3 trials."""
    app = App(tmp_path, monkeypatch, capfd)
    shutil.copytree(begun / "s", app.folder / "s", symlinks=True)
    return app


def numbers(app: App) -> list[int]:
    return [job.number for job in app.jobs]


def test_the_name_alone_resumes_a_sweep(again: App) -> None:
    before = tree(again.folder / "s")
    out = again(*RESUME, "hydra.sweep.dir=s")
    assert out.code == 0
    assert again.jobs == []
    after = tree(again.folder / "s")
    assert {name for name in after if after[name] != before.get(name)} - {LOCK} == {SWEEP_LOG}
    assert "3 trials: 3 complete" in out.stdout


def test_n_trials_is_a_total_and_other_settings_are_remembered(
    again: App, whole: list[tuple[Any, ...]]
) -> None:
    out = again(*RESUME, "hydra.sweep.dir=s", "hydra.sweeper.n_trials=5")
    assert out.code == 0
    assert numbers(again) == [3, 4]
    assert all("y=2" in overrides for overrides in again.overrides)
    again(*RESUME, "hydra.sweep.dir=s")
    assert again.jobs == []
    assert plain_trials(again.study()) == whole


def test_fewer_trials_than_there_are_is_no_error(again: App) -> None:
    out = again(*RESUME, "hydra.sweep.dir=s", "hydra.sweeper.n_trials=1")
    assert (out.code, again.jobs) == (0, [])
    assert len(again.study().trials) == 3


# A command's changes, each with the line that reports it.
REFUSED = {
    "the space and the fixed config": {
        "x=interval(-1.0,5.0)": "hydra.sweeper.space.x.low: -5.0 -> -1.0",
        "z=a,c": "hydra.sweeper.space.z.choices: ['a', 'b'] -> ['a', 'c']",
        "mode=fast,slow": "hydra.sweeper.space.mode: (not set) -> {'choices': ['fast', 'slow']}",
        "y='2'": "y: 2 -> '2'",
        "+w=1": "w: (not set) -> 1",
        "~old": "old: {'a': 1} -> (not set)",
        "db=postgresql": "db.port: 3306 -> 5432",
    },
    "a searched parameter that is fixed": {"x=3": "hydra.sweeper.space.x: {'type': 'float', "},
    "another fixed value": {"y=3": "y: 2 -> 3"},
    "the settings": {
        "hydra.sweeper.direction=maximize": "hydra.sweeper.direction: ['minimize'] -> ['maximize']",
        "hydra.sweeper.sampler.seed=6": "hydra.sweeper.sampler.seed: 5 -> 6",
        "hydra/sweeper/pruner=median": "hydra.sweeper.pruner._target_: "
        "'optuna.pruners.NopPruner' -> ",
        "hydra.sweeper.seeds=2": "hydra.sweeper.seeds: 1 -> 2",
        "hydra.sweeper.enqueue=[{x: 1.0}]": "hydra.sweeper.enqueue: [] -> [{'x': 1.0}]",
    },
    "the sampler": {
        "hydra/sweeper/sampler=tpe": "hydra.sweeper.sampler._target_: "
        "'optuna.samplers.RandomSampler' -> ",
    },
}


def test_a_sweep_of_an_earlier_version_gives_all_seeds_to_every_trial(app: App) -> None:
    app.sweep("x=interval(0.0,1.0)", "hydra.sweeper.seeds=2", "hydra.sweeper.n_trials=6")
    path = app.folder / "s" / "sweep.yaml"
    stored = yaml.safe_load(path.read_text())
    assert stored["search"].pop("seeds_for") == "contenders"
    path.write_text(yaml.safe_dump(stored))
    out = app("--multirun", "hydra/sweeper=optuna_async", "hydra.sweep.dir=s",
              "hydra.sweeper.n_trials=12")  # fmt: skip
    assert out.code == 0, out.text
    assert "seeds: 2 for every trial" in out.text
    assert [job.key for job in app.jobs] == [f"{n}/seed_{i}" for n in range(6, 12) for i in (0, 1)]


@pytest.mark.parametrize("name", REFUSED)
def test_another_search_is_refused_and_shown(again: App, name: str) -> None:
    before = tree(again.folder)
    text = again(*RESUME, "hydra.sweep.dir=s", *REFUSED[name]).error()
    assert "Nothing was run" in text
    assert "hydra.sweeper.on_change=extend" in text
    for line in REFUSED[name].values():
        assert f"\n  {line}" in text, text
    assert again.jobs == []
    assert tree(again.folder) == before


def test_a_changed_config_file_is_refused_with_the_key(again: App) -> None:
    config = again.folder / "conf" / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 3", "epochs: 4"))
    text = again(*RESUME, "hydra.sweep.dir=s").error()
    assert text.splitlines()[1].strip() == "epochs: 3 -> 4"
    assert len(text.splitlines()) == 3


def test_what_does_not_change_the_search_may_change(again: App) -> None:
    settings = ("n_jobs=1", "timeout_seconds=60", "max_failure_rate=0.9", "retries=0")
    settings += ("keep_checkpoints=null", "target_value=-1", "may_change=[mode,old]")
    changes = [
        # The config already has epochs=3.
        ["epochs=3", "hydra/launcher=workers", "hydra.launcher.trial_timeout_seconds=60"],
        [*(f"hydra.sweeper.{setting}" for setting in settings), "mode=slow", "+old.b=2"],
        ["hydra.sweeper.n_trials=4"],  # shows that all changes are stored
    ]
    for change in changes:
        out = again(*RESUME, "hydra.sweep.dir=s", *change)
        assert out.code == 0, out.text
    assert again.configs[0]["mode"] == "slow"
    assert again.configs[0]["old"] == {"a": 1, "b": 2}


@pytest.mark.slow
def test_extend_resumes_with_another_range(again: App) -> None:
    out = again(
        *RESUME, "hydra.sweep.dir=s", "x=interval(8.0,9.0)", "hydra.sweeper.n_trials=5", EXTEND
    )
    assert out.code == 0, out.text
    assert "x.low: -5.0 -> 8.0" in out.stdout
    is_new = [8 <= trial.params["x"] <= 9 for trial in again.study().trials]
    assert is_new == [False] * 3 + [True] * 2
    # The change stays, but `extend` does not.
    again(*RESUME, "hydra.sweep.dir=s", "hydra.sweeper.n_trials=6")
    assert 8 <= again.study().trials[5].params["x"] <= 9
    assert "x.low: 8.0 -> 7.0" in again(*RESUME, "hydra.sweep.dir=s", "x=interval(7.0,9.0)").error()


def test_choices_cannot_be_extended(again: App) -> None:
    before = (again.folder / "s" / SWEEP).read_bytes()
    text = again(*RESUME, "hydra.sweep.dir=s", "z=a,b,c", EXTEND).error()
    assert text.startswith("z: the choices of a parameter cannot change")
    assert "hydra.sweeper.warm_start=s" in text
    assert (again.folder / "s" / SWEEP).read_bytes() == before
    # The command that the error suggests works.
    out = again.sweep(
        "x=interval(-5.0,5.0)", "z=a,b,c", "y=2", "hydra.sweeper.n_trials=1", WARM, to="t"
    )
    assert out.code == 0, out.text
    assert "warm start: 3 complete trials of s" in out.stdout


def test_the_same_command_again_changes_nothing(again: App) -> None:
    before = (again.folder / "s" / SWEEP).read_bytes()
    again.sweep(STARTED[2], STARTED[0], *STARTED[3:])
    assert (again.folder / "s" / SWEEP).read_bytes() == before


overrides = st.lists(
    st.builds(
        "{}{}={}".format, *map(st.sampled_from, (["", "+", "~"], ["a", "a.b", "c/d"], ["1", "2"]))
    )
)


@given(overrides, overrides)
def test_merging_is_idempotent_and_prefers_the_new_overrides(
    before: list[str], now: list[str]
) -> None:
    merged = stored.merge(before, now)
    assert stored.merge(merged, now) == merged
    assert stored.merge(before, []) == before
    keys = [stored.override_key(override) for override in now]
    for key in set(keys):
        assert [o for o in merged if stored.override_key(o) == key] == [
            o for o in now if stored.override_key(o) == key
        ]
    assert [o for o in merged if stored.override_key(o) not in keys] == [
        o for o in before if stored.override_key(o) not in keys
    ]


def test_only_the_keys_that_may_change_are_free() -> None:
    config = {"mode": 1, "model": 1, "old": {"a": 1}}
    sweep = stored.Stored("id", "s", [], [], search={}, config=config, seed=0, git_commit=None)
    now = {"mode": 2, "model": 2, "old": {"a": 2}}
    assert stored.differences(sweep, {}, now, ["mode", "old"]) == ["model: 1 -> 2"]


def test_a_repeated_argument_keeps_its_place() -> None:
    assert stored.merge(["a=1", "b=2", "c=3"], ["b=4", "d=5"]) == ["a=1", "b=4", "c=3", "d=5"]


def test_a_part_of_the_command_resumes_with_the_same_draws(
    again: App, whole: list[tuple[Any, ...]]
) -> None:
    """A sampler draws the dimensions in their order."""
    again.sweep(STARTED[0], "hydra.sweeper.n_trials=5")
    assert plain_trials(again.study()) == whole


def test_on_change_is_not_stored(app: App) -> None:
    app.sweep(*STARTED, EXTEND)
    kept = yaml.safe_load((app.folder / "s" / SWEEP).read_text())
    assert "hydra.sweeper.n_trials=3" in kept["hydra_overrides"]
    assert not [o for o in kept["hydra_overrides"] if "on_change" in o]


def test_another_commit_is_a_warning(again: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "git_commit", lambda: "abc")
    out = again(*RESUME, "hydra.sweep.dir=s")
    assert out.code == 0
    assert "is at abc now" in out.stdout


@pytest.mark.parametrize("text", ["", "a: [", "id: 1\n", "[]"])
def test_a_damaged_file_is_one_line(again: App, text: str) -> None:
    (again.folder / "s" / SWEEP).write_text(text)
    message = again(*RESUME, "hydra.sweep.dir=s").error()
    assert message.startswith("s/sweep.yaml: cannot be read as a stored sweep")
    assert len(message.splitlines()) == 1


@pytest.mark.slow
def test_the_apps_own_name_of_a_sweep(app: App) -> None:
    config = app.folder / "conf" / "config.yaml"
    named = """\
study: ${now:%H-%M-%S-%f}
hydra:
  sweep: {dir: 'multirun/${study}'}
  sweeper: {study_key: study}
"""
    asynchronous = "{override hydra/sweeper: optuna_async}, _self_]"
    app.write("config.yaml", config.read_text().replace("_self_]", asynchronous) + named)
    arguments = (
        "hydra/sweeper/sampler=random",
        "hydra.sweeper.n_trials=1",
        "x=interval(0.0,1.0)",
        "hydra.sweeper.study_name=other",
    )
    out = app("--multirun", "study=faces", *arguments)
    assert out.code == 0, out.text
    assert "new study faces" in out.stdout
    assert out.stdout.splitlines()[-1].endswith("resume with: python app.py --multirun study=faces")
    assert len(app.study("other", folder="multirun/faces").trials) == 1
    out = app("--multirun", "study=faces", "hydra.sweeper.n_trials=2")
    assert numbers(app) == [1]
    # A name made from the time works too.
    out = app("--multirun", *arguments)
    name = out.stdout.splitlines()[-1].rpartition("study=")[2]
    assert (app.folder / "multirun" / name / "0").is_dir()
    out = app("--multirun", f"study={name}", "hydra.sweeper.n_trials=2")
    assert numbers(app) == [1], out.text


def test_a_renamed_directory_is_still_the_sweep(again: App) -> None:
    (again.folder / "s").rename(again.folder / "t")
    out = again(*RESUME, "hydra.sweep.dir=t", "hydra.sweeper.n_trials=4")
    assert out.code == 0, out.text
    assert numbers(again) == [3]
    assert "resuming study s: 3 of 4 trials have ended\n" in out.stdout
    assert len(again.study("s", folder="t").trials) == 4
    out = again(*RESUME, "hydra.sweep.dir=t")
    done = "4 of 4 trials have ended; nothing left to do. For more, set hydra.sweeper.n_trials=8\n"
    assert done in out.stdout
    assert out.stdout.splitlines()[-1].endswith("hydra.sweep.dir=t")


def test_time_and_environment_are_no_change(
    app: App, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    app.extend(stamp="${now:%H-%M-%S-%f}", job="${oc.env:JOB_ID}", copy="${job}")
    for job in (1, 2):
        monkeypatch.setenv("JOB_ID", str(job))
        out = app.sweep("x=interval(0.0,1.0)", f"hydra.sweeper.n_trials={job}")
        assert (out.code, numbers(app)) == (0, [job - 1]), out.text
    app.extend(stamp="${now:%H-%M}")
    text = app.sweep("x=interval(0.0,1.0)").error()
    assert "\n  stamp: '${now:%H-%M-%S-%f}' -> '${now:%H-%M}'\n" in text


def test_a_sweep_of_an_earlier_version_has_resolved_values(app: App) -> None:
    app.extend(link="${x}", text="${y}-${mode}")
    assert app.sweep("z=1,2", "hydra.sweeper.n_trials=1").code == 0
    path = app.folder / "s" / SWEEP
    kept = yaml.safe_load(path.read_text())
    kept["config"] |= {"link": 1.0, "text": "0-fast"}
    path.write_text(yaml.safe_dump(kept))
    assert app.sweep("z=1,2", "hydra.sweeper.n_trials=2").code == 0
    assert "link: 1.0 -> '${x}'" in app.sweep("z=1,2", "x=2").error()


def test_the_resume_command_has_the_group_that_chooses_the_sweeper(app: App) -> None:
    app.extend(defaults=[{"db": "mysql"}, "_self_", {"search": None}])
    app.write(
        "search/mine.yaml",
        """\
        # @package _global_
        defaults: [{override /hydra/sweeper: optuna_async}]
        hydra: {sweeper: {n_trials: 1, params: {x: 'interval(0.0,1.0)'}}}
        """,
    )
    paths = ("hydra.searchpath=[pkg://tests]", "hydra.sweep.dir=s/${now:%S}")
    out = app("--multirun", "search=mine", "db=sqlite", *paths)
    assert out.code == 0, out.text
    [folder] = (app.folder / "s").iterdir()
    resume = out.stdout.splitlines()[-1].partition("resume with: ")[2]
    assert resume == (
        "python app.py --multirun search=mine db=sqlite 'hydra.searchpath=[pkg://tests]' "
        f"hydra.sweep.dir=s/{folder.name}"
    )
    out = app(*shlex.split(resume)[2:], "hydra.sweeper.n_trials=2")
    assert (out.code, numbers(app)) == (0, [1]), out.text
    repeat = out.stdout.rpartition("repeat trial ")[2].partition("with: ")[2].splitlines()[0]
    assert app(*shlex.split(repeat)[2:]).code == 0
    assert app.configs[0]["x"] < 1
    assert app.configs[0]["db"]["name"] == "sqlite"


def digest(config: DictConfig) -> dict[str, str]:
    return {"data": Path(f"{config.db.name}.txt").read_text()}


def test_data_that_changed_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    app = App(tmp_path, monkeypatch, capfd)
    for name in ("mysql", "postgresql"):
        (app.folder / f"{name}.txt").write_text(f"{name} before")
    check = f"hydra.sweeper.check={__name__}.digest"
    assert app.sweep("db=mysql,postgresql", check, "hydra.sweeper.n_trials=1").code == 0
    more = (*RESUME, "hydra.sweep.dir=s", "hydra.sweeper.n_trials=3")
    (app.folder / "postgresql.txt").write_text("after")
    text = app(*more).error()
    assert "\n  db=postgresql: data postgresql before -> after\n" in text
    assert "mysql:" not in text
    (app.folder / "postgresql.txt").write_text("postgresql before")
    assert app(*more, "hydra.sweeper.n_trials=2").code == 0
    (app.folder / "postgresql.txt").write_text("after")
    out = app(*more, EXTEND)
    assert out.code == 0, out.text
    assert "was started with other data" in out.stdout
    assert app(*more, "hydra.sweeper.n_trials=4").code == 0


SECRET = "hunter2"


@pytest.mark.parametrize("is_typed", [True, False])
def test_no_file_holds_the_storages_password(
    app: App, monkeypatch: pytest.MonkeyPatch, is_typed: bool
) -> None:
    url = f"postgresql://me:{SECRET}@lab/db"
    monkeypatch.setenv("STUDY_URL", url)
    given = "hydra.sweeper.storage=" + (f"'{url}'" if is_typed else "${oc.env:STUDY_URL}")
    app.extend(db_url="${oc.env:STUDY_URL}")
    out = app.sweep("x=interval(0.0,1.0)", "hydra.sweeper.n_trials=1", given)
    assert out.code == 0, out.text
    assert SECRET not in out.text
    assert not [name for name, text in tree(app.folder).items() if SECRET.encode() in text]
    kept = yaml.safe_load((app.folder / "s" / SWEEP).read_text())
    more = ("hydra.sweep.dir=s", "hydra.sweeper.n_trials=2")
    if is_typed:
        assert kept["search"]["storage"] == "postgresql://me:***@lab/db"
        text = app(*RESUME, *more).error()
        assert text.startswith(
            "hydra.sweeper.storage: the password in 'postgresql://me:***@lab/db'"
        )
        assert len(text.splitlines()) == 1
        more += (given,)
    else:
        assert given in kept["hydra_overrides"]
        assert kept["search"]["storage"] == "${oc.env:STUDY_URL}"
    out = app(*RESUME, *more)
    assert (out.code, numbers(app)) == (0, [1]), out.text


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags", [["--config-name", "other"], ["--config-name=other"], ["-cn", "other"]]
)
def test_the_resume_command_names_another_primary_config(app: App, flags: list[str]) -> None:
    app.write("other.yaml", "x: 2.0\ny: 1\n")
    out = app.sweep(*flags, "x=interval(0.0,1.0)", "hydra.sweeper.n_trials=1")
    last = out.stdout.splitlines()[-1].partition("resume with: ")[2]
    resume = "--multirun hydra/sweeper=optuna_async hydra.sweep.dir=s"
    assert last == f"python app.py {' '.join(flags)} {resume}"
    out = app(*shlex.split(last)[2:], "hydra.sweeper.n_trials=2")
    assert (out.code, numbers(app)) == (0, [1]), out.text


def test_any_value_of_a_config_is_stored_and_compared(app: App) -> None:
    app.extend(
        nothing=None,
        nan=float("nan"),
        text="1e3 or so: #1",
        table={1: [{"a": []}, None]},
        link="${x}",
        late="${hydra:job.num}",
    )
    app.extend(env="${oc.env:NO_SUCH_VARIABLE}", missing="???")
    before: Any = None
    for trials in (1, 2):
        out = app.sweep("x=interval(-5.0,5.0)", f"hydra.sweeper.n_trials={trials}")
        assert out.code == 0, out.text
        kept = yaml.safe_load((app.folder / "s" / SWEEP).read_text())["config"]
        assert before is None or repr(kept) == repr(before)
        before = kept
    assert kept["text"] == "1e3 or so: #1"
    assert kept["table"] == {1: [{"a": []}, None]}


class Colour(Enum):
    RED = 1


@dataclass
class Typed:
    x: float = 1.0
    y: float = 0.0
    root: Path = Path("/data/x")
    colour: Colour = Colour.RED
    key: bytes = b"\x00\xff"
    by_colour: dict[Colour, int] = field(default_factory=lambda: {Colour.RED: 3})


@pytest.mark.slow
def test_a_typed_config_is_stored_and_compared(app: App) -> None:
    ConfigStore.instance().store(name="typed", node=Typed)
    app.write("config.yaml", "defaults: [typed]\n")
    app.sweep("x=interval(-5.0,5.0)", "hydra.sweeper.n_trials=1")
    out = app.sweep("x=interval(-5.0,5.0)", "hydra.sweeper.n_trials=2")
    assert (out.code, numbers(app)) == (0, [1]), out.text
    text = app.sweep("x=interval(-5.0,5.0)", "root=/data/y").error()
    assert "root: '/data/x' -> '/data/y'" in text


@pytest.mark.parametrize("content", [b"", b"\xff\x00[1]\n", b"{}", b"[1]", b"a: [", b"1"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sweep.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"sweep\.yaml: cannot be read as a stored sweep \("):
        stored.read_stored(tmp_path)
