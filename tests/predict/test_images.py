"""The images that a folder or a CSV file names."""

from pathlib import Path

import pytest

from visionsweep.errors import DataError, UserError
from visionsweep.predict.images import find_images


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    return tmp_path / "list.csv"


def test_a_folder_gives_its_images_and_those_below(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "sub/a.JPG", "sub/._a.JPG", ".hidden/c.png", "notes.txt", "c.heic")
    touch(tmp_path, "d.heic", "e.avif")
    found = find_images(tmp_path, None, None)
    assert found.left_out == "3 files: .heic (2), .txt (1)"
    assert [(image.name, image.path) for image in found.images] == [
        ("b.png", tmp_path / "b.png"),
        ("e.avif", tmp_path / "e.avif"),
        ("sub/a.JPG", tmp_path / "sub/a.JPG"),
    ]


@pytest.mark.parametrize(
    ("header", "row", "image_column"),
    [
        ("path,id", "./x.png,other", None),
        ("id,file_name", "other,./x.png", "file_name"),
        ("label,ImageID", "other,./x.png", None),
        ("id,Path", "other,./x.png", None),
    ],
)
def test_the_column_of_the_paths(
    header: str, row: str, image_column: str | None, listing: Path
) -> None:
    touch(listing.parent, "x.png")
    listing.write_text(f"{header}\n{row}\n")
    (image,) = find_images(listing, image_column, None).images
    assert (image.name, image.path) == ("./x.png", listing.parent / "x.png")


def test_paths_start_from_the_root_and_keep_their_order(listing: Path) -> None:
    root = listing.parent / "images"
    touch(root, "b, 1.png", "ä/a.png")
    listing.write_text('\ufeffpath\n"b, 1.png"\n\nä/a.png\n', encoding="utf-8")
    images = find_images(listing, None, root).images
    assert [image.name for image in images] == ["b, 1.png", "ä/a.png"]
    assert all(image.path.is_file() for image in images)


@pytest.mark.parametrize(
    ("content", "image_column", "root", "message"),
    [
        (
            b"path\na.png\nb.png\nc.png\n",
            None,
            None,
            r"data\.predict: 2 of 3 images of .*list\.csv not found, e\.g\. .*/b\.png \(line 3, ",
        ),
        (b"picture,label\na.png,1\n", None, None, "data.image: not set, .* picture, label"),
        (
            b"picture,x\na.png,1\n",
            "pictur",
            None,
            "data.image=pictur: .* no such column",
        ),
        (b"picture,x\na.png,1\n", "picture", "nowhere", r"data\.root: .* does not exist"),
        (b"path,x\na.png\n", None, None, r"data\.predict: .* line 2: expected 2 cells .* got 1"),
        (b"path\n", None, None, r"data\.predict: .*a header but no row"),
        (b"", None, None, r"data\.predict: .*nothing in it"),
        (b"path,path\na,b\n", None, None, r"data\.image=path: .* has 2 columns of that name"),
        (b"path\n\xff\xd8\n", None, None, r"data\.predict: .* is not UTF-8 text"),
    ],
)
def test_mistakes_of_a_listing(
    content: bytes, image_column: str | None, root: str | None, message: str, listing: Path
) -> None:
    touch(listing.parent, "a.png")
    listing.write_bytes(content)
    with pytest.raises(UserError, match=f"^{message}") as caught:
        find_images(listing, image_column, None if root is None else listing.parent / root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("folder", "image_column", "root", "message"),
    [
        ("", None, None, r"data\.predict: no image below"),
        ("nowhere", None, None, r"data\.predict: .*nowhere does not exist"),
        ("", None, Path("x"), r"data\.root: belongs to a CSV file"),
        ("", "path", None, r"data\.image: belongs to a CSV file"),
    ],
)
def test_mistakes_of_a_folder(
    folder: str, image_column: str | None, root: Path | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        find_images(tmp_path / folder, image_column, root)


def test_a_file_name_that_no_csv_can_hold(tmp_path: Path) -> None:
    (tmp_path / "\udcff.png").touch()
    with pytest.raises(DataError, match=r"^data\.predict: the name '.*xff.png' in .* is not UTF-8"):
        find_images(tmp_path, None, None)


def test_names_without_suffix_and_a_single_image(listing: Path) -> None:
    touch(listing.parent, "7.jpg", "8.jpg", "8.png", "x/9.png")
    listing.write_text("id\n7\nx\\9.png\n")
    found = find_images(listing, None, None)
    assert found.is_table
    assert [image.path.name for image in found.images] == ["7.jpg", "9.png"]
    listing.write_text("id\n8\n")
    with pytest.raises(DataError, match=r"1 of 1 image of .* not found"):  # it fits two
        find_images(listing, None, None)
    (image,) = find_images(listing.parent / "7.jpg", None, None).images
    assert image.name == "7.jpg"
