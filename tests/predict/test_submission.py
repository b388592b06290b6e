"""Rows of a submission: which image belongs to which id, what is refused, and the text that is written."""

import csv
import io
from pathlib import Path

import pytest
import torch

from visionsweep.errors import ConfigError, DataError
from visionsweep.predict.images import ImageFile
from visionsweep.predict.submission import make_template, render, summarize


def files(*names: str) -> list[ImageFile]:
    return [ImageFile(Path("/images") / name, name) for name in names]


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    return tmp_path / "sample.csv"


def test_without_a_sample_rows_are_sorted_by_file_name() -> None:
    template = make_template(files("z/a.png", "b.png", "a/c.png"), None, None, None)
    assert template.header == ["id", "label"]
    assert [row[0] for row in template.rows] == ["a.png", "b.png", "c.png"]
    assert [image.name for image in template.images] == ["z/a.png", "b.png", "a/c.png"]
    named = make_template(files("a.png"), None, "ImageID", "ans")
    assert named.header == ["ImageID", "ans"]


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
    assert [row[0] for row in template.rows] == ids
    assert [image.name for image in template.images] == names


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_other_columns_of_the_sample_are_kept(sample: Path) -> None:
    sample.write_text('site,ans,ImageID,note\nx,0,b.png,"a, b"\ny,0,a.png,\n')
    template = make_template(files("a.png", "b.png"), sample, "ImageID", "ans")
    probabilities = torch.tensor([[0.25, 0.75], [1.0, 0.0]], dtype=torch.float64)
    assert read(render(template, ["cat, big", "dög"], [], probabilities)) == [
        ["site", "ans", "ImageID", "note"],
        ["x", "cat, big", "b.png", "a, b"],
        ["y", "dög", "a.png", ""],
    ]
    assert read(render(template, ["1", "0"], ["prob_cat", "prob_dog"], probabilities)) == [
        ["site", "ans", "ImageID", "note", "prob_cat", "prob_dog"],
        ["x", "1", "b.png", "a, b", "0.25", "0.75"],
        ["y", "0", "a.png", "", "1", "0"],
    ]


def test_written_probabilities_give_the_float32_back() -> None:
    values = torch.rand(50, 4, generator=torch.Generator().manual_seed(1)) ** 20
    template = make_template(files(*(f"{i:02}.png" for i in range(50))), None, None, None)
    rows = read(render(template, ["x"] * 50, list("abcd"), values.double()))
    assert torch.equal(
        torch.tensor([[float(cell) for cell in row[2:]] for row in rows[1:]]), values
    )


@pytest.mark.parametrize(
    ("header", "id_column", "label_column", "expected"),
    [
        ("a,b,c", None, None, (0, 1)),
        ("a,b,c", "b", None, (1, 0)),
        ("a,b,c", None, "a", (1, 0)),
        ("a,b,c", "c", "b", (2, 1)),
    ],
)
def test_columns(
    header: str,
    id_column: str | None,
    label_column: str | None,
    expected: tuple[int, int],
    sample: Path,
) -> None:
    row = ["x"] * 3
    row[expected[0]] = "1.png"
    sample.write_text(f"{header}\n{','.join(row)}\n")
    template = make_template(files("1.png"), sample, id_column, label_column)
    assert template.label_index == expected[1]


@pytest.mark.parametrize(("label_column", "name"), [(None, "label"), ("ans", "ans")])
def test_a_sample_with_ids_alone_gets_a_label_column(
    label_column: str | None, name: str, sample: Path
) -> None:
    sample.write_text("ImageID\n1.png\n")
    template = make_template(files("1.png"), sample, None, label_column)
    assert read(render(template, ["cat"], [], torch.ones(1, 1))) == [
        ["ImageID", name],
        ["1.png", "cat"],
    ]


@pytest.mark.parametrize(
    ("content", "names", "message"),
    [
        (
            "id,label\na.png,0\nb.png,0\nc.png,0\n",
            ["a.png"],
            r"2 of 3 ids of .*sample\.csv have no image in data\.predict, e\.g\. 'b\.png', 'c\.png' \(compared by",
        ),
        ("id,label\na.png,0\na.png,1\n", ["a.png"], r"1 ids stand more than once, e\.g\. 'a\.png'"),
        (
            "id,label\na.png,0\n",
            ["a.png", "b.png", "c.png"],
            r"has 1 rows for 3 images: 2 have none, e\.g\. 'b\.png', 'c\.png'",
        ),
        (
            "id,label\na,0\n",
            ["a.png", "a.jpg"],
            r"1 ids fit more than one image, e\.g\. 'a' fits a\.png and a\.jpg",
        ),
        ("id,label\na.png,0\n", ["x/a.png", "y/a.png"], r"'a\.png' fits x/a\.png and y/a\.png"),
        ("id,label\n", ["a.png"], "no row below its header"),
    ],
)
def test_ids_that_do_not_fit(content: str, names: list[str], message: str, sample: Path) -> None:
    sample.write_text(content)
    with pytest.raises(DataError, match=f"^sample: .*{message}") as caught:
        make_template(files(*names), sample, None, None)
    assert "\n" not in str(caught.value)


def test_repeated_file_names_without_a_sample() -> None:
    with pytest.raises(
        DataError, match=r"^data\.predict: 1 ids stand more than once, e\.g\. 'a\.png'"
    ):
        make_template(files("x/a.png", "y/a.png", "b.png"), None, None, None)


@pytest.mark.parametrize(
    ("id_column", "label_column", "message"),
    [
        (
            "ImageId",
            None,
            r"^id_column: .*no column 'ImageId'; did you mean ImageID\? \(columns: ImageID, ans\)",
        ),
        (None, "answer", r"^label_column: .*no column 'answer'; did you mean ans\?"),
        ("ans", "ans", r"^label_column: expected another column than id_column"),
    ],
)
def test_columns_that_are_not_there(
    id_column: str | None, label_column: str | None, message: str, sample: Path
) -> None:
    sample.write_text("ImageID,ans\na.png,0\n")
    with pytest.raises(ConfigError, match=message):
        make_template(files("a.png"), sample, id_column, label_column)


def test_missing_sample(sample: Path) -> None:
    with pytest.raises(DataError, match=r"^sample: .*sample\.csv does not exist"):
        make_template(files("a.png"), sample, None, None)


def test_probability_column_that_is_there_already(sample: Path) -> None:
    sample.write_text("id,label,prob_cat\na.png,0,0\n")
    template = make_template(files("a.png"), sample, None, None)
    template.check_new_columns(["prob_dog"])
    with pytest.raises(
        ConfigError, match=r"^probabilities: the sample has a column 'prob_cat' already"
    ):
        template.check_new_columns(["prob_dog", "prob_cat"])


def test_summary_counts_images_and_classes() -> None:
    assert summarize(["dog", "cat", "dog"]) == "3 images (dog: 2, cat: 1)"
    assert summarize([str(i) for i in range(12)]).endswith("9: 1, 2 more classes)")
