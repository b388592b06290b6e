"""digits, fashion_mnist, cifar10: content against independent readers; missing files."""

import gzip
import hashlib
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from visionsweep.data import fashion_mnist
from visionsweep.data.cifar10 import load_cifar10
from visionsweep.data.digits import load_digits
from visionsweep.data.fashion_mnist import load_fashion_mnist, read_idx
from visionsweep.errors import DataError


@pytest.mark.slow
def test_digits_equal_scikit_learns() -> None:
    from sklearn.datasets import load_digits as reference

    bunch, train = reference(), load_digits().train
    np.testing.assert_allclose(train.images[:, 0].numpy(), bunch.images / 16 * 255, atol=0.5)
    np.testing.assert_array_equal(train.targets.numpy(), bunch.target)


def test_digits_load_without_importing_sklearn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # an import of it would fail
    dataset = load_digits()
    assert dataset.train.images.shape == (1797, 1, 8, 8)
    assert dataset.train.images.dtype == torch.uint8
    # The first image and the class counts are in scikit-learn's documentation.
    levels = torch.round(dataset.train.images[0, 0, 0] * (16 / 255)).tolist()
    assert levels == [0, 0, 5, 13, 9, 1, 0, 0]
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert dataset.train.targets.bincount().tolist() == counts
    assert (dataset.num_classes, dataset.test, dataset.flips) == (10, None, False)
    assert len(set(dataset.train.ids)) == 1797


def write_idx(path: Path, array: np.ndarray, compress: bool) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    if compress:
        path = path.with_name(path.name + ".gz")
        content = gzip.compress(content)
    path.write_bytes(content)


def write_fashion(folder: Path, compress: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (6, 28, 28)),
        "train-labels-idx1-ubyte": np.array([0, 9, 2, 3, 4, 5]),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (3, 28, 28)),
        "t10k-labels-idx1-ubyte": np.array([1, 8, 7]),
    }
    for name, array in arrays.items():
        write_idx(folder / name, array, compress)
    return arrays


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("below", ["", "FashionMNIST/raw"])
def test_fashion_mnist_reads_plain_and_gzipped_files(
    tmp_path: Path, compress: bool, below: str
) -> None:
    arrays = write_fashion(tmp_path / below, compress)
    dataset = load_fashion_mnist(str(tmp_path))
    np.testing.assert_array_equal(
        dataset.train.images[:, 0].numpy(), arrays["train-images-idx3-ubyte"]
    )
    assert dataset.train.targets.tolist() == [0, 9, 2, 3, 4, 5]
    assert dataset.test is not None
    np.testing.assert_array_equal(
        dataset.test.images[:, 0].numpy(), arrays["t10k-images-idx3-ubyte"]
    )
    assert dataset.test.targets.tolist() == [1, 8, 7]
    assert dataset.flips


def test_fashion_mnist_looks_in_the_debian_folder_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DataError) as caught:
        load_fashion_mnist()
    for part in ("debian", "cache/visionsweep", "data.root=null", "data.download=true"):
        assert part in str(caught.value)
    write_fashion(tmp_path / "debian", compress=True)
    assert len(load_fashion_mnist().train) == 6


def test_fashion_mnist_looks_only_below_a_given_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fashion(tmp_path / "debian", compress=True)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
    with pytest.raises(DataError, match=r"Fashion-MNIST is not in .*nothing.*data\.root="):
        load_fashion_mnist(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not an idx file"),
        (b"\x00\x00\x0d\x01" + struct.pack(">I", 1) + b"abcd", "not an idx file"),
        (b"\x00\x00\x08\x01" + struct.pack(">I", 5) + b"abc", "expected 5 bytes .* got 3"),
        (b"\x00\x00\x08\x01" + struct.pack(">I", 0), "holds no image"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "broken-idx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"broken-idx.*{expected}"):
        read_idx(path)


def test_a_cut_gzip_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(bytes(1000))[:-12])
    with pytest.raises(DataError, match=r"cannot read .*cut\.gz"):
        read_idx(path)


def test_a_label_above_nine_is_refused(tmp_path: Path) -> None:
    write_fashion(tmp_path, compress=False)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.array([0, 1, 2, 3, 4, 10]), compress=False)
    with pytest.raises(DataError, match=r"label 10 in train"):
        load_fashion_mnist(str(tmp_path))


def write_cifar(folder: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Write archives of two images in CIFAR's layout; replace torchvision's list of MD5 sums."""
    from torchvision.datasets import CIFAR10

    folder.mkdir(parents=True)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 3072), dtype=np.uint8)
    meta = {"label_names": [f"class{index}" for index in range(10)]}

    def write(name: str, content: object) -> str:
        raw = pickle.dumps(content)
        (folder / name).write_bytes(raw)
        return hashlib.md5(raw).hexdigest()

    batch = {"data": pixels, "labels": [3, 7]}
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", write("data_batch_1", batch)]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", write("test_batch", batch)]])
    monkeypatch.setattr(
        CIFAR10,
        "meta",
        {"filename": "batches.meta", "key": "label_names", "md5": write("batches.meta", meta)},
    )
    return pixels


@pytest.mark.filterwarnings("ignore:dtype\\(\\)")  # torchvision unpickles NumPy 1 arrays
def test_cifar10_planes_are_red_green_blue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = write_cifar(tmp_path / "cifar-10-batches-py", monkeypatch)
    dataset = load_cifar10(str(tmp_path))
    np.testing.assert_array_equal(dataset.train.images.numpy(), pixels.reshape(2, 3, 32, 32))
    assert dataset.train.targets.tolist() == [3, 7]
    assert dataset.test is not None
    assert len(dataset.test) == 2
    assert dataset.class_names[7] == "class7"


def test_a_changed_cifar10_batch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar(folder, monkeypatch)
    (folder / "data_batch_1").write_bytes(b"cos\nsystem\n")
    with pytest.raises(DataError, match=r"cannot read CIFAR-10 in .*data\.download=true"):
        load_cifar10(str(tmp_path))


def test_missing_cifar10_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"CIFAR-10 is not in .*cifar-10-batches-py.*data\.download=true"
    ):
        load_cifar10(str(tmp_path))
