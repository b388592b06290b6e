"""csv: columns by name, label order, and the line of every mistake."""

import gzip
from pathlib import Path

import pytest
from PIL import Image

from visionsweep.data.csv_file import load_csv
from visionsweep.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(6):
        Image.new("RGB", (8, 8), (index, 50, 100)).save(tmp_path / f"{index}.png")
    return tmp_path


def write(folder: Path, rows: list[str], name: str = "train.csv", encoding: str = "utf-8") -> str:
    path = folder / name
    path.write_text("\n".join(rows) + "\n", encoding=encoding)
    return str(path)


def load(path: str | None, **settings: object) -> object:
    return load_csv(path, **({"label": "class", "image_size": 8, "cache_dir": "none"} | settings))


def test_columns_by_name_whatever_their_order(folder: Path) -> None:
    rows = ["person,class,size,path", "p1,dog,3,0.png", 'p2, cat ,4,"1.png"', "p1,dog,5,2.png"]
    dataset = load(write(folder, rows, encoding="utf-8-sig"), group="person")
    assert dataset.class_names == ["cat", "dog"]
    assert dataset.train.targets.tolist() == [1, 0, 1]
    assert dataset.train.groups == ["p1", "p2", "p1"]
    assert dataset.train.ids == ["0.png", "1.png", "2.png"]
    assert dataset.train.images[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_integer_labels_are_ordered_by_value(folder: Path) -> None:
    dataset = load(write(folder, ["path,class", "0.png,10", "1.png,9", "2.png,-1"]))
    assert dataset.class_names == ["-1", "9", "10"]
    assert dataset.train.targets.tolist() == [2, 1, 0]


def test_classes_fix_the_order_or_the_number(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = write(folder, ["path,class", "0.png,new", "1.png,old"])
    assert load(words, classes=["old", "new"]).train.targets.tolist() == [1, 0]
    numbers = write(folder, ["path,class", "0.png,0", "1.png,2"])
    dataset = load(numbers, classes=4)
    assert dataset.train.targets.tolist() == [0, 2]
    assert dataset.num_classes == 4
    assert "2 of 4 classes have no image: 1, 3" in caplog.text
    with pytest.raises(
        DataError, match=r"label 2 in .*train\.csv line 3, but data\.classes=2 \(labels 0\.\.1\)"
    ):
        load(numbers, classes=2)
    words = write(folder, ["path,class", "0.png,new", "1.png,old"])
    with pytest.raises(DataError, match=r"label old in .*line 3 .*\(new, olde\).*mean olde\?$"):
        load(words, classes=["new", "olde"])
    with pytest.raises(ConfigError, match=r"data\.classes: expected distinct names"):
        load(words, classes=["old", "new", "old"])


def test_images_below_root(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "lists").mkdir()
    path = write(folder / "lists", ["path,class", "0.png,a", "1.png,b"])
    with pytest.raises(
        DataError, match=r"train\.csv: 2 of 2 images not found, e\.g\. .*lists/0\.png .*data\.root"
    ):
        load(path)
    monkeypatch.chdir(folder / "lists")
    assert len(load(path, root="..").train) == 2


def test_a_second_file_is_the_test_split(folder: Path) -> None:
    train = write(folder, ["path,class", "0.png,a", "1.png,b"])
    test = write(folder, ["class,path", "b,2.png"], "test.csv")
    dataset = load(train, test_path=test)
    assert dataset.test is not None
    assert dataset.test.targets.tolist() == [1]
    shared = write(folder, ["class,path", "b,2.png", "a,0.png"], "test.csv")
    with pytest.raises(
        DataError, match=r"data\.test_path: 1 of 2 test files are in train too, e\.g\. .*0\.png"
    ):
        load(train, test_path=shared)
    unknown = write(folder, ["class,path", "c,2.png"], "test.csv")
    with pytest.raises(
        DataError, match=r"label c in .*test\.csv line 2 is not among the labels of data\.path"
    ):
        load(train, test_path=unknown)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"label": "clas"}, r"data\.label=clas: .*train\.csv .*did you mean class\?"),
        ({"image": "file"}, r"data\.image=file: .*no such column.*: path, class, person\)$"),
        ({"label": 3}, r"data\.label=3: .*no such column"),
        ({"split_column": "fold"}, r"data\.split_column=fold: .*no such column"),
        ({"drop_labels": ["aa"]}, r"data\.drop_labels: no row has the label aa"),
        ({"group": "persn"}, r"data\.group=persn: .*did you mean person\?"),
    ],
)
def test_a_missing_column_is_named(folder: Path, setting: dict[str, str], expected: str) -> None:
    path = write(folder, ["path,class,person", "0.png,a,p", "1.png,b,q"])
    with pytest.raises(ConfigError, match=expected):
        load(path, **setting)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["0.png,a,p", "1.png,,q"], r"line 3: column class \(data\.label\) is empty"),
        (["0.png,a,p", "1.png"], r"line 3: expected 3 cells as in the header, got 1 \(separ"),
        (["0.png,a,p", "1.png,b, "], r"line 3: column person \(data\.group\) is empty"),
        (["0.png,a,p", ",b,q"], r"line 3: column path \(data\.image\) is empty"),
        (["0.png,a,p", "9.png,b,q"], r": 1 of 2 images not found, e\.g\. .*9\.png \(line 3"),
        (["0.png,a,p", "x" * 5000 + ",b,q"], r"not found, e\.g\. .* \(line 3\)"),
        (["0.png,a,p", "1.png,b,q", "0.png,a,p"], r"line 4: 0\.png is in line 2 too"),
        (["0.png,a,p", "1.png,a,q"], r"data\.label: expected at least 2 classes, got 1 \(a\)"),
        ([], r"has a header but no row"),
    ],
)
def test_an_error_names_the_line(folder: Path, rows: list[str], expected: str) -> None:
    path = write(folder, ["path,class,person", *rows])
    with pytest.raises(DataError, match=expected):
        load(path, group="person")


def test_wrong_files_are_refused(folder: Path) -> None:
    (folder / "latin.csv").write_bytes("path,class\n0.png,caf\xe9\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.csv is not UTF-8 text"):
        load(str(folder / "latin.csv"))
    (folder / "empty.csv").write_text("")
    with pytest.raises(DataError, match=r"empty\.csv has nothing in it"):
        load(str(folder / "empty.csv"))
    (folder / "train.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"train\.xlsx is a ZIP archive"):
        load(str(folder / "train.xlsx"))
    with pytest.raises(ConfigError, match=r"data\.image=path: .* has 2 columns of that name"):
        load(write(folder, ["path,path,class", "0.png,1.png,a"]))


def test_unset_and_missing_settings(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.path is not set: set it to the CSV file"):
        load(None)
    with pytest.raises(ConfigError, match=r"data\.label is not set: give the name of the column"):
        load(write(folder, ["path,class", "0.png,a"]), label=None)
    with pytest.raises(
        DataError, match=r"data\.path: .*none\.csv does not exist \(current directory: "
    ):
        load(str(folder / "none.csv"))


def test_skipped_images_drop_their_rows(folder: Path) -> None:
    (folder / "1.png").write_text("broken")
    path = write(folder, ["path,class,person", "0.png,a,p", "1.png,b,q", "2.png,b,r"])
    dataset = load(path, group="person", on_bad_image="skip")
    assert dataset.train.ids == ["0.png", "2.png"]
    assert dataset.train.groups == ["p", "r"]
    assert dataset.train.targets.tolist() == [0, 1]
    assert dataset.bad_images == [str(folder / "1.png")]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_are_detected(folder: Path, separator: str) -> None:
    rows = [["path", "class"], ["0.png", "a"], ["1.png", "b, c"]]
    lines = [separator.join(f'"{cell}"' for cell in row) for row in rows]
    assert load(write(folder, lines)).class_names == ["a", "b, c"]


def test_compressed_and_utf16_files_and_columns_by_number(folder: Path) -> None:
    text = "0,1\r\n0.png,a\r\n1.png,caf\u00e9\r\n"
    (folder / "train.csv.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "excel.csv").write_bytes(text.encode("utf-16"))
    for name in ("train.csv.gz", "excel.csv"):
        dataset = load(str(folder / name), image=0, label=1)
        assert (dataset.class_names, len(dataset.train)) == (["a", "caf\u00e9"], 2)
    assert load(write(folder, ["path,class", "0.png,a", "1.png,b"]), image=0, label=1)


def test_names_without_suffix_with_backslashes_and_in_another_unicode_form(folder: Path) -> None:
    (folder / "x").mkdir()
    for name in ("x/7.jpg", "x/cafe\u0301.png"):
        Image.new("RGB", (8, 8), (len(name), 1, 2)).save(folder / name)
    path = write(folder, ["path,class", "0,a", "x\\7.jpg,b", "x/caf\u00e9.png,a"])
    assert load(path).train.ids == ["0", "x\\7.jpg", "x/caf\u00e9.png"]
    path = write(folder, ["path,class", "0,a", "1,b"])
    assert len(load(path, suffix=".png").train) == 2
    with pytest.raises(DataError, match=r"2 of 2 images not found, e\.g\. .*0\.jpg"):
        load(path, suffix=".jpg")


def test_missing_images_are_left_out_by_skip(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(folder, ["path,class", "0.png,a", "8.png,b", "1.png,b", "9.png,a"])
    dataset = load(path, on_bad_image="skip")
    assert dataset.train.ids == ["0.png", "1.png"]
    assert dataset.bad_images == [str(folder / "8.png"), str(folder / "9.png")]
    assert "2 of 4 images not found, e.g." in caplog.text


def test_one_column_per_class(folder: Path) -> None:
    path = write(folder, ["path,dog,cat", "0.png,1,0", "1.png,0.0,1.0"])
    dataset = load(path, label=["dog", "cat"])
    assert (dataset.class_names, dataset.train.targets.tolist()) == (["cat", "dog"], [1, 0])
    for cells in ("1,1", "0,0", "1,2", "1,"):
        path = write(folder, ["path,dog,cat", "0.png,1,0", f"1.png,{cells}"])
        with pytest.raises(DataError, match=r"line 3: expected 1 in one of the columns"):
            load(path, label=["dog", "cat"])


@pytest.mark.parametrize(
    ("column", "cells", "folds", "num_test"),
    [
        ("split", ["train", "Train", "VAL", "valid", "test", "testing"], [-1, -1, 0, 0], 2),
        ("fold", ["0", "1", "2", "-1", "0", "1"], [0, 1, 2, -1, 0, 1], 0),
        ("is_valid", ["False", "True", "true", "false", "False", "False"], None, 0),
        ("is_test", ["false", "false", "true", "false", "true", "false"], None, 2),
        ("part", ["0", "1", "0", "1", "test", "test"], [0, 1, 0, 1], 2),
    ],
)
def test_a_column_says_the_split(
    folder: Path, column: str, cells: list[str], folds: list[int] | None, num_test: int
) -> None:
    if column == "is_valid":
        folds = [-1, 0, 0, -1, -1, -1]
    rows = [f"{index}.png,{'ab'[index % 2]},{cell}" for index, cell in enumerate(cells)]
    dataset = load(write(folder, [f"path,class,{column}", *rows]), split_column=column)
    assert dataset.train.folds == folds
    assert (0 if dataset.test is None else len(dataset.test)) == num_test


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["train", "vall"], r"line 3: split=vall \(data\.split_column\): expected train, valid"),
        (["train", "true"], r"line 3: split=true"),
        (["val", "1"], r"mixes the word for validation with numbers of folds"),
        (["test", "test"], r"leaves no row for training"),
    ],
)
def test_a_column_that_says_no_split(folder: Path, cells: list[str], expected: str) -> None:
    rows = [f"{index}.png,{'ab'[index]},{cell}" for index, cell in enumerate(cells)]
    with pytest.raises(DataError, match=expected):
        load(write(folder, ["path,class,split", *rows]), split_column="split")


def test_rows_are_chosen_by_label(folder: Path) -> None:
    path = write(folder, ["path,class", "0.png,a", "1.png,b", "2.png,Skip", "3.png,1"])
    assert load(path, drop_labels=["Skip", 1]).class_names == ["a", "b"]
    assert load(path, keep_labels=["b", "Skip"]).train.ids == ["1.png", "2.png"]


def test_a_group_in_training_and_test_is_refused(folder: Path) -> None:
    train = write(folder, ["path,class,person", "0.png,a,p", "1.png,b,q"])
    test = write(folder, ["path,class,person", "2.png,a,q", "3.png,b,r"], "test.csv")
    with pytest.raises(DataError, match=r"1 group of data\.group in training and test, e\.g\. q"):
        load(train, group="person", test_path=test)


def test_labels_made_of_other_labels(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = ["0.png,cat", "1.png,dog", "2.png,cat dog", "3.png,cat|dog", "4.png,hot dog"]
    load(write(folder, ["path,class", *rows]))
    assert "2 labels are made of other labels, e.g. 'cat dog'" in caplog.text
