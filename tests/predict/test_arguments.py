"""The arguments of `predict`, and the line for each mistake."""

from pathlib import Path

import pytest

from visionsweep.errors import ConfigError
from visionsweep.predict.arguments import (
    VIEW_NAMES,
    Arguments,
    DataArguments,
    DecisionArguments,
    describe_arguments,
    parse_arguments,
)
from visionsweep.predict.views import VIEWS

REQUIRED = ["run=outputs/a", "data.predict=new"]
ALL = (
    "run=/a data.predict=/list.csv data.image=file data.root=/images out=/o.csv sample=/s.csv "
    "id_column=ImageID label_column=007 labels=indices probabilities=true top_k=2 decisions=auto "
    "decisions.test_prior=uniform tta=flip on_bad_image=skip batch_size=7 device=cuda:1"
)


def test_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = Arguments(run=[tmp_path / "outputs/a"], data=DataArguments(tmp_path / "new"))
    assert parse_arguments(REQUIRED) == expected
    assert parse_arguments([*REQUIRED, "sample=null"]) == expected


def test_every_key_is_read() -> None:
    assert parse_arguments(ALL.split()) == Arguments(
        run=[Path("/a")],
        data=DataArguments(Path("/list.csv"), "file", Path("/images")),
        out=Path("/o.csv"),
        sample=Path("/s.csv"),
        id_column="ImageID",
        label_column="007",
        labels="indices",
        probabilities=True,
        top_k=2,
        decisions=DecisionArguments("auto", "uniform"),
        tta=["none", "flip"],
        on_bad_image="skip",
        batch_size=7,
        device="cuda:1",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[/a,/b]", ["/a", "/b"]),
        ("[ /a , /b ]", ["/a", "/b"]),
        ('["/a,b",/c]', ["/a,b", "/c"]),
        ("/a,b", ["/a,b"]),
        ("[~/a,~/b]", ["/home/me/a", "/home/me/b"]),
        ("[it's,b]", ["{cwd}/it's", "{cwd}/b"]),
        ("[a folder]", ["{cwd}/[a folder]"]),
    ],
)
def test_several_runs(
    text: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[a folder]").mkdir()
    runs = parse_arguments([f"run={text}", "data.predict=new"]).run
    assert runs == [Path(path.format(cwd=tmp_path)) for path in expected]


@pytest.mark.parametrize(
    "name",
    ["my photos (old), 2", "Fotos/Käse=1", "사진", "it's", "'quoted'", "[a: b]", "#1", "1e3"],
)
def test_a_path_may_hold_any_character(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    arguments = parse_arguments(["run=a", f"data.predict=~/{name}", f"id_column={name}"])
    assert arguments.data.predict == Path("/home/me") / name
    assert arguments.id_column == name


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "datta.predict=x",
            "datta.predict: no such key; did you mean data.predict? (keys: run, data.predict, ",
        ),
        ("xyzzy=1", "xyzzy: no such key (keys: run, "),
        ("data=x", "data: no such key"),
        ("outputs/a", "outputs/a: expected key=value"),
        ("--verbose", "--verbose: expected key=value"),
        ("batch_size=0", "batch_size: expected at least 1, got 0"),
        ("top_k=0", "top_k: expected at least 1, got 0"),
        (
            "tta=crob",
            "tta: expected views (none, flip, crop, corners), got 'crob'; did you mean crop?",
        ),
        ("tta=[flip,flip]", "tta: flip is given twice"),
        ("decisions=best", "decisions=best: Invalid value 'best', expected one of ['stored', "),
        ("batch_size=1.5", "batch_size=1.5: Value '1.5' of type 'str' could not be converted"),
        ("batch_size=null", "batch_size=null: "),
        ("probabilities=maybe", "probabilities=maybe: Value 'maybe' is not a valid bool"),
        ("labels=name", "labels=name: Invalid value 'name', expected one of ['names', 'indices']"),
        ("id_column=${nope}", "id_column=${nope}: Interpolation key 'nope' not found"),
        ("out=", "out: got nothing after '='"),
        ("run=b", "run: given twice"),
        ("sample=~nobody_of_this_name/x", "sample: cannot expand"),
    ],
)
def test_mistakes(argument: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_arguments([*REQUIRED, argument])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "[a,,b]", "[ ]"])
def test_a_list_with_gaps_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="run: expected a list without gaps"):
        parse_arguments([f"run={text}", "data.predict=new"])


@pytest.mark.parametrize(
    ("given", "missing"), [("run=a", "data.predict"), ("data.predict=a", "run")]
)
def test_a_missing_key_is_named(given: str, missing: str) -> None:
    with pytest.raises(ConfigError, match=f"^{missing}: not set; give {missing}="):
        parse_arguments([given])


def test_help_has_one_line_per_key() -> None:
    usage, _, *lines = describe_arguments().splitlines()
    assert usage.startswith("usage: visionsweep predict run=")
    assert [line.split()[0] for line in lines] == [text.split("=")[0] for text in ALL.split()]
    assert [line for line in lines if line.endswith("(required)")] == lines[:2]


@pytest.mark.parametrize(
    ("text", "views"),
    [
        ("none", ["none"]),
        ("crop", ["none", "crop"]),
        ("[flip]", ["flip"]),
        ("[none, flip, corners]", ["none", "flip", "corners"]),
    ],
)
def test_one_view_is_added_to_the_image_and_a_list_is_all_of_them(
    text: str, views: list[str]
) -> None:
    assert parse_arguments([*REQUIRED, f"tta={text}"]).tta == views


def test_the_views_that_the_arguments_know_are_there() -> None:
    assert tuple(VIEWS) == VIEW_NAMES
