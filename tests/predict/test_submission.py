"""The rows of a submission: which image belongs to which id, what is refused, what is written."""

import csv
import io
import os
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from visionsweep.errors import ConfigError, DataError
from visionsweep.predict.images import FoundImages, ImageFile
from visionsweep.predict.infer import PredictedBatch
from visionsweep.predict.submission import Template, make_template
from visionsweep.predict.writing import Columns, Written, name_images, write_rows


def files(*names: str, is_table: bool = False) -> FoundImages:
    folder = Path("/images")
    return FoundImages([ImageFile(folder / name, name) for name in names], is_table, folder)


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    return tmp_path / "sample.csv"


def render(
    template: Template,
    labels: Sequence[str],
    *,
    bad: dict[int, str] | None = None,
    columns: Sequence[str] = (),
    probabilities: Tensor | None = None,
    skip_bad: bool = False,
) -> tuple[str, Written]:
    """Return the submission in which row i has the label i, unless there are probabilities."""
    if probabilities is None:
        probabilities = torch.eye(len(labels), dtype=torch.float64)
    batches = [PredictedBatch(probabilities, bad or {}, {})]
    stream = io.BytesIO()
    written = write_rows(
        stream, template, Columns(template.label, labels, columns), batches, skip_bad=skip_bad
    )
    return stream.getvalue().decode(), written


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_without_a_sample_rows_are_sorted_by_file_name() -> None:
    template = make_template(files("z/a.png", "b.png", "a/c.png"), None, None, None)
    assert template.header == ["id", "label"]
    assert template.ids == ["a.png", "b.png", "c.png"]
    assert [image.name for image in template.images] == ["z/a.png", "b.png", "a/c.png"]
    named = make_template(files("a.png"), None, "ImageID", "ans")
    assert (named.header, named.label) == (["ImageID", "ans"], "ans")


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (["b.png", "a.png"], ["x/b.png", "y/a.png"]),
        (["y/a.png", "x/a.png"], ["y/a.png", "x/a.png"]),
        (["b", "a"], ["x/b.png", "y/a.jpg"]),
        (["caf\u00e9.png"], ["cafe\u0301.png"]),  # one letter, or a letter and an accent
    ],
)
def test_a_sample_gives_the_order(ids: list[str], names: list[str], sample: Path) -> None:
    sample.write_text("ImageID,ans\n" + "".join(f"{name},0\n" for name in ids), encoding="utf-8")
    template = make_template(files(*sorted(names)), sample, None, None)
    assert template.ids == ids
    assert [image.name for image in template.images] == names


def test_other_columns_of_the_sample_are_kept(sample: Path) -> None:
    sample.write_text('site,ans,ImageID,note\nx,0,b.png,"a, b"\ny,0,a.png,\n')
    template = make_template(files("a.png", "b.png"), sample, "ImageID", "ans")
    text, _ = render(template, ["cat, big", "dög"])
    assert read(text) == [
        ["site", "ans", "ImageID", "note"],
        ["x", "cat, big", "b.png", "a, b"],
        ["y", "dög", "a.png", ""],
    ]
    text, _ = render(template, ["1", "0"], columns=["prob_cat", "prob_dog"])
    assert read(text) == [
        ["site", "ans", "ImageID", "note", "prob_cat", "prob_dog"],
        ["x", "1", "b.png", "a, b", "1", "0"],
        ["y", "0", "a.png", "", "0", "1"],
    ]


def test_a_written_probability_is_the_same_float32() -> None:
    values = torch.rand(50, 4, generator=torch.Generator().manual_seed(1)) ** 20
    template = make_template(files(*(f"{i:02}.png" for i in range(50))), None, None, None)
    text, _ = render(template, "abcd", columns="wxyz", probabilities=values.double())
    header, *rows = read(text)
    assert header == ["id", "label", *"wxyz"]
    assert torch.equal(torch.tensor([[float(cell) for cell in row[2:]] for row in rows]), values)
    assert [row[1] for row in rows] == ["abcd"[i] for i in values.argmax(dim=1).tolist()]


def test_an_unreadable_image_is_named_and_has_a_row_unless_skipped(sample: Path) -> None:
    sample.write_text("id,label\n1.png,\n2.png,\n3.png,\n")
    template = make_template(files("1.png", "2.png", "3.png"), sample, None, None)
    for skip_bad, rows in ((False, ["1.png", "2.png", "3.png"]), (True, ["1.png", "3.png"])):
        text, written = render(template, "abc", bad={1: "truncated"}, skip_bad=skip_bad)
        assert [row[0] for row in read(text)[1:]] == rows
        assert written.counts.total() == len(rows)
        assert name_images(written.bad, 3, "gone") == "1 of 3 images gone: 2.png (truncated)"
    many = Written(bad=[f"{i}.png (x)" for i in range(7)])
    assert name_images(many.bad, 9, "gone").endswith(
        "gone: 0.png (x), 1.png (x), 2.png (x), 3.png (x), 4.png (x) and 2 more"
    )


def test_a_sample_that_changes_meanwhile_is_refused(sample: Path) -> None:
    sample.write_text("id,label\n1.png,\n2.png,\n")
    template = make_template(files("1.png", "2.png"), sample, None, None)
    for content in ("id,label\n2.png,\n1.png,\n", "id,label\n1.png,\n2.png,\n3.png,\n"):
        sample.write_text(content)
        with pytest.raises(DataError, match=r"^sample: .* has changed since it was read"):
            render(template, "ab")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(sample: Path) -> None:
    """A sample with a column per class; as lists of cells it would take 600 MB."""
    num_images, num_classes = 10_000, 1_000
    names = [f"{i}.png" for i in range(num_images)]
    columns = [f"c{i}" for i in range(num_classes)]
    with sample.open("w") as stream:
        stream.write(",".join(["id", *columns]) + "\n")
        stream.writelines(f"{name}{',0.001' * num_classes}\n" for name in names)
    probabilities = torch.rand(100, num_classes, dtype=torch.float64)
    batches = (PredictedBatch(probabilities, {}, {}) for _ in range(num_images // 100))
    tracemalloc.start()
    template = make_template(files(*names), sample, None, None)
    with open(os.devnull, "wb") as stream:
        written = write_rows(
            stream, template, Columns(None, columns, columns), batches, skip_bad=False
        )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert written.counts.total() == num_images
    assert peak < 20e6


@pytest.mark.parametrize(
    ("header", "id_column", "label_column", "expected"),
    [
        ("a,b", None, None, "ab"),
        ("a,Target,c", None, None, ["a", "Target"]),
        (",b,label", None, None, ["b", "label"]),  # saved with its index
        ("a,b,c", None, None, ["a", None]),
        ("a,b,c", None, "a", "ba"),
        ("a,b,c", "c", "b", "cb"),
        ("a", None, None, ["a", "label"]),  # ids alone: the label is a new column
        ("a", None, "ans", ["a", "ans"]),
    ],
)
def test_columns(
    header: str, id_column: str | None, label_column: str | None, expected: str, sample: Path
) -> None:
    names = header.split(",")
    row = ["1.png" if name == expected[0] else "x" for name in names]
    sample.write_text(f"{header}\n{','.join(row)}\n")
    template = make_template(files("1.png"), sample, id_column, label_column)
    assert template.label == expected[1]
    assert template.header == (names if len(names) > 1 else expected)


@pytest.mark.parametrize(
    ("content", "names", "message"),
    [
        (
            "id,label\na.png,0\nb.png,0\nc.png,0\n",
            ["a.png"],
            r"2 of 3 ids of .*, e\.g\. 'b\.png', 'c\.png' \(compared by",
        ),
        ("id,label\na.png,0\na.png,1\n", ["a.png"], r"1 id not unique, e\.g\. 'a\.png'"),
        (
            "id,label\na.png,0\n",
            ["a.png", "b.png", "c.png"],
            r"has 1 row for 3 images: 2 without a row, e\.g\. 'b\.png', 'c\.png'",
        ),
        ("id,label\na,0\n", ["a.png", "a.jpg"], r"e\.g\. 'a' fits a\.png and a\.jpg"),
        ("id,label\na.png,0\n", ["x/a.png", "y/a.png"], r"'a\.png' fits x/a\.png and y/a\.png"),
        ("id,label\n", ["a.png"], "a header but no row"),
    ],
)
def test_ids_that_do_not_fit(content: str, names: list[str], message: str, sample: Path) -> None:
    sample.write_text(content)
    with pytest.raises(DataError, match=f"^sample: .*{message}") as caught:
        make_template(files(*names), sample, None, None)
    assert "\n" not in str(caught.value)


def test_repeated_file_names_make_ids_of_relative_paths() -> None:
    template = make_template(files("x/a.png", "y/a.png", "b.png"), None, None, None)
    assert template.ids == ["b.png", "x/a.png", "y/a.png"]


def test_a_csv_file_keeps_its_order_and_its_cells() -> None:
    names = ["./z/9.png", "a/1.png", "5"]
    template = make_template(files(*names, is_table=True), None, None, None)
    assert template.ids == names
    with pytest.raises(DataError, match=r"^data\.predict: 1 id not unique, e\.g\. 'a\.png'"):
        make_template(files("a.png", "a.png", is_table=True), None, None, None)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("id,dog,cat", ["cat", "dog"]),
        ("id,DOG,Cat", ["Cat", "DOG"]),
        (",id,cat,dog", ["cat", "dog"]),
        ("id,label", []),
        ("id,usage,label", []),
    ],
)
def test_columns_of_classes(header: str, expected: list[str], sample: Path) -> None:
    names = header.split(",")
    sample.write_text(f"{header}\n{','.join('1.png' if n == 'id' else '0' for n in names)}\n")
    template = make_template(files("1.png"), sample, None, None)
    assert template.class_columns(["cat", "dog"]) == expected


@pytest.mark.parametrize("header", ["id,P_cat,P_dog", "id,one,two", "id,cat,dog,extra"])
def test_a_label_column_that_cannot_be_told(header: str, sample: Path) -> None:
    sample.write_text(f"{header}\n1.png{',0' * header.count(',')}\n")
    template = make_template(files("1.png"), sample, None, None)
    with pytest.raises(ConfigError, match=r"^label_column: the sample has the columns id, "):
        template.class_columns(["cat", "dog"])


def test_a_sample_keeps_its_separator(sample: Path) -> None:
    sample.write_text("id;label\n1.png;x\n")
    template = make_template(files("1.png"), sample, None, None)
    assert render(template, ["cat"])[0] == "id;label\n1.png;cat\n"


@pytest.mark.parametrize(
    ("id_column", "label_column", "message"),
    [
        (
            "ImageId",
            None,
            r"id_column=ImageId: .*no such column; did you mean ImageID\?",
        ),
        (None, "answr", r"label_column=answr: .*no such column; did you mean answer\?"),
        ("answer", "answer", r"label_column: expected a different column from id_column"),
    ],
)
def test_a_missing_column_is_named(
    id_column: str | None, label_column: str | None, message: str, sample: Path
) -> None:
    sample.write_text("ImageID,answer\na.png,0\n")
    with pytest.raises(ConfigError, match=f"^{message}"):
        make_template(files("a.png"), sample, id_column, label_column)


def test_a_missing_sample(sample: Path) -> None:
    with pytest.raises(DataError, match=r"^sample: .*sample\.csv does not exist"):
        make_template(files("a.png"), sample, None, None)


def test_a_probability_column_of_the_sample_is_not_overwritten(sample: Path) -> None:
    sample.write_text("id,label,prob_cat\na.png,0,0\n")
    template = make_template(files("a.png"), sample, None, None)
    template.check_new_columns(["prob_dog"])
    with pytest.raises(ConfigError, match=r"^probabilities: .* 'prob_cat'"):
        template.check_new_columns(["prob_dog", "prob_cat"])


def test_summary_counts_images_and_classes() -> None:
    assert Written(Counter(["dog", "cat", "dog"])).summary() == "3 images (dog: 2, cat: 1)"
    many = Written(Counter(str(i) for i in range(12)))
    assert many.summary().endswith("9: 1, 2 more classes)")
