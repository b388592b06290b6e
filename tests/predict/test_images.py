"""Which images a folder or a CSV file names."""

from pathlib import Path

import pytest

from visionsweep.errors import ConfigError, DataError
from visionsweep.predict.images import find_images


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_gives_its_images_and_those_below(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "sub/a.JPG", "sub/._a.JPG", ".hidden/c.png", "notes.txt")
    images = find_images(tmp_path, None, None)
    assert [(image.name, image.path) for image in images] == [
        ("b.png", tmp_path / "b.png"),
        ("sub/a.JPG", tmp_path / "sub/a.JPG"),
    ]


@pytest.mark.parametrize(
    ("header", "image_column"),
    [("path,id", None), ("id,file_name", "file_name"), ("label,ImageID", None), ("id,Path", None)],
)
def test_the_column_of_the_paths(header: str, image_column: str | None, tmp_path: Path) -> None:
    touch(tmp_path, "x.png")
    names = header.split(",")
    wanted = image_column or next(name for name in names if name in ("path", "ImageID", "Path"))
    row = ",".join("./x.png" if name == wanted else "other" for name in names)
    listing = tmp_path / "list.csv"
    listing.write_text(f"{header}\n{row}\n")
    (image,) = find_images(listing, image_column, None)
    assert (image.name, image.path) == ("x.png", tmp_path / "x.png")


def test_paths_start_from_the_root_and_keep_their_order(tmp_path: Path) -> None:
    touch(tmp_path / "images", "b, 1.png", "ä/a.png")
    listing = tmp_path / "list.csv"
    listing.write_text('\ufeffpath\n"b, 1.png"\n\nä/a.png\n', encoding="utf-8")
    images = find_images(listing, None, tmp_path / "images")
    assert [image.name for image in images] == ["b, 1.png", "ä/a.png"]
    assert all(image.path.is_file() for image in images)


def test_missing_files_are_counted_and_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    listing = tmp_path / "list.csv"
    listing.write_text("path\na.png\nb.png\nc.png\n")
    with pytest.raises(
        DataError, match=r"2 of 3 images of .*list\.csv do not exist, e\.g\. .*/b\.png"
    ):
        find_images(listing, None, None)


def test_mistakes_of_a_listing(tmp_path: Path) -> None:
    listing = tmp_path / "list.csv"
    listing.write_text("picture,label\na.png,1\n")
    with pytest.raises(
        ConfigError, match=r"data\.image: not set, .* set it to one of picture, label"
    ):
        find_images(listing, None, None)
    with pytest.raises(
        ConfigError, match=r"data\.image: .*no column 'pictur'; did you mean picture\?"
    ):
        find_images(listing, "pictur", None)
    with pytest.raises(DataError, match=r"data\.root: .* does not exist"):
        find_images(listing, "picture", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,x\na.png\n", r"line 2 has 1 cells, the header 2"),
        (b"path\n", "no row below its header"),
        (b"", "no row below its header"),
        (b"path,path\na,b\n", "more than one column 'path'"),
        (b"path\n\xff\xd8\n", "as a UTF-8 CSV file"),
    ],
)
def test_damaged_listings(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(DataError, match=rf"data\.predict: .*{message}") as caught:
        find_images(tmp_path / "list.csv", None, None)
    assert "\n" not in str(caught.value)


def test_mistakes_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.predict: no image below"):
        find_images(tmp_path, None, None)
    with pytest.raises(DataError, match=r"data\.predict: .*nowhere does not exist"):
        find_images(tmp_path / "nowhere", None, None)
    with pytest.raises(ConfigError, match=r"data\.root: is for a CSV file"):
        find_images(tmp_path, None, tmp_path)
    with pytest.raises(ConfigError, match=r"data\.image: is for a CSV file"):
        find_images(tmp_path, "path", None)
