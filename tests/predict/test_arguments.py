"""The arguments of predict.py: what they become, and the line for each mistake."""

from pathlib import Path

import pytest

from visionsweep.errors import ConfigError
from visionsweep.predict.arguments import Arguments, describe_arguments, parse_arguments

REQUIRED = ["run=outputs/a", "data.predict=new"]


def test_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_arguments(REQUIRED) == Arguments(
        runs=(tmp_path / "outputs/a",),
        images=tmp_path / "new",
        image_column=None,
        root=None,
        out=Path("submission.csv"),
        sample=None,
        id_column=None,
        label_column=None,
        labels="names",
        probabilities=False,
        tta="none",
        batch_size=128,
        device="auto",
    )


def test_every_key_is_read() -> None:
    arguments = parse_arguments(
        [
            "run=/a",
            "data.predict=/list.csv",
            "data.image=file",
            "data.root=/images",
            "out=/o.csv",
            "sample=/s.csv",
            "id_column=ImageID",
            "label_column=ans",
            "labels=indices",
            "probabilities=true",
            "tta=flip",
            "batch_size=7",
            "device=cuda:1",
        ]
    )
    assert arguments == Arguments(
        runs=(Path("/a"),),
        images=Path("/list.csv"),
        image_column="file",
        root=Path("/images"),
        out=Path("/o.csv"),
        sample=Path("/s.csv"),
        id_column="ImageID",
        label_column="ans",
        labels="indices",
        probabilities=True,
        tta="flip",
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
        ("[~/a,~/b]", ["HOME/a", "HOME/b"]),
    ],
)
def test_several_runs(text: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    runs = parse_arguments([f"run={text}", "data.predict=new"]).runs
    assert runs == tuple(Path(path.replace("HOME", "/home/me")) for path in expected)


def test_a_folder_in_brackets_is_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[a,b]").mkdir()
    assert parse_arguments(["run=[a,b]", "data.predict=new"]).runs == (tmp_path / "[a,b]",)


@pytest.mark.parametrize("name", ["my photos (old), 2", "Fotos/Käse=1", "사진", "it's"])
def test_paths_are_taken_as_they_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert parse_arguments(["run=a", f"data.predict=~/{name}"]).images == Path("/home/me") / name


def test_null_is_the_default_of_what_is_optional() -> None:
    assert parse_arguments([*REQUIRED, "sample=null"]).sample is None


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "datta.predict=x",
            r"datta\.predict: unknown; did you mean data\.predict\? \(keys: run, data\.predict, ",
        ),
        ("xyzzy=1", r"xyzzy: unknown; \(keys: run, "),
        ("outputs/a", r"outputs/a: expected key=value"),
        ("--verbose", r"--verbose: expected key=value"),
        ("batch_size=0", r"batch_size: expected a whole number from 1 up, got '0'"),
        ("batch_size=1.5", r"batch_size: expected a whole number from 1 up, got '1\.5'"),
        ("probabilities=yes", r"probabilities: expected true or false, got 'yes'"),
        ("labels=name", r"labels: expected names or indices, got 'name'"),
        ("tta=flips", r"tta: expected none or flip, got 'flips'"),
        ("out=", r"out: got nothing after '='"),
        ("run=b", r"run: given twice"),
        ("sample=~nobody_of_this_name/x", r"sample: cannot expand"),
    ],
)
def test_mistakes(argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        parse_arguments([*REQUIRED, argument])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "[a,,b]", "[ ]"])
def test_list_with_gaps(text: str) -> None:
    with pytest.raises(ConfigError, match="run: expected a list without gaps"):
        parse_arguments([f"run={text}", "data.predict=new"])


@pytest.mark.parametrize(
    ("given", "missing"), [("run=a", "data.predict"), ("data.predict=a", "run")]
)
def test_missing(given: str, missing: str) -> None:
    with pytest.raises(ConfigError, match=f"^{missing}: not set; expected {missing}=") as caught:
        parse_arguments([given])
    assert "\n" not in str(caught.value)


def test_help_has_one_line_for_each_key() -> None:
    keys = "run data.predict data.image data.root out sample id_column label_column labels probabilities tta batch_size"
    lines = [line.split()[0] for line in describe_arguments().splitlines()[2:]]
    assert lines == [*keys.split(), "device"]
