"""Fashion-MNIST: where it is found, and files that are not what they should be."""

import gzip
import io
import struct

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from experiments.scripts.embed_fashion import embed
from icbs.data.fashion_mnist import (
    ARCHIVE,
    DEVIATION,
    EMBEDDED,
    FULL,
    MEAN,
    fashion_mnist,
    origin,
    read_idx,
    read_parquet,
)
from icbs.data.loading import load_samples
from icbs.errors import DataError, DownloadError
from icbs.models.loading import LoadedModel
from icbs.models.mlp import MlpConfig, MlpForImageClassification
from tests.icbs.factories import idx, images_and_labels, write

INSTALLED = origin() == FULL

# Each example overwrites the file of the one before.
EXAMPLES = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """Neither the Debian package nor the hub."""
    monkeypatch.setenv("ICBS_SYSTEM_DATA", "")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def perceptron(**options):
    config = MlpConfig(hidden_sizes=(6,), num_labels=10, **options)
    model = MlpForImageClassification(config).eval()
    return LoadedModel(model, None, "tiny", "random", task="image-classification")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.lists(st.integers(0, 5), min_size=1, max_size=4), zipped=st.booleans())
def test_idx_comes_back(tmp_path, shape, zipped):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / ("x.gz" if zipped else "x")
    path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    assert np.array_equal(read_idx(path), array)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), zipped=st.booleans())
def test_any_cut_is_noticed(tmp_path, data, zipped):
    content = idx(np.arange(60, dtype=np.uint8).reshape(3, 4, 5))
    content = gzip.compress(content) if zipped else content
    path = tmp_path / ("x.gz" if zipped else "x")
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(DataError, match="dataset-fashion-mnist"):
        read_idx(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>not found</html>", "no IDX file of unsigned bytes"),
        (idx(np.zeros((2, 2), np.uint8), kind=13), "no IDX file of unsigned bytes"),
        (idx(np.zeros((2, 2), np.uint8)) + b"x", "declares 2 x 2 bytes and has more"),
        # declares 2^64 bytes: refused by what is there, without allocating them
        (struct.pack(">BBBB2I", 0, 0, 8, 2, 2**32 - 1, 2**32 - 1) + b"abc", "and has 3"),
    ],
)
def test_files_that_are_not_idx(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "x")
    (tmp_path / "x.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "x.gz")


def test_damaged_archive(tmp_path):
    content = bytearray(gzip.compress(idx(np.arange(200, dtype=np.uint8))))
    content[40] ^= 0xFF
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "x.gz")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("below", [".", "FashionMNIST/raw"])
def test_folder_of_the_user(tmp_path, zipped, below):
    write(tmp_path / below, zipped)
    for split, seed in (("train", 0), ("test", 1)):
        for found, wanted in zip(
            fashion_mnist(split, tmp_path), images_and_labels(seed=seed), strict=True
        ):
            assert np.array_equal(found, wanted)


def test_found_by_itself(nowhere, monkeypatch, tmp_path):
    monkeypatch.setenv("ICBS_SYSTEM_DATA", str(tmp_path / "system"))
    folder = write(tmp_path / "system" / "fashion-mnist")
    assert np.array_equal(fashion_mnist("test")[0], images_and_labels(seed=1)[0])
    assert origin() == FULL
    # Half of a set is none: its test images are not those of the embedded training images.
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    assert len(fashion_mnist("test")[0]) == 2000
    assert origin() == EMBEDDED


def test_embedded_part(nowhere):
    """Where nothing else is found, and nothing is fetched; the licence lies beside it."""
    for split, count in (("train", 4000), ("test", 2000)):
        images, labels = fashion_mnist(split)
        assert images.shape == (count, 28, 28)
        assert (abs(np.bincount(labels, minlength=10) / count - 0.1) < 0.01).all()
        assert images.mean(dtype=np.float64) / 255 == pytest.approx(MEAN, abs=3e-3)
    assert ARCHIVE.stat().st_size <= 3_000_000
    assert "Zalando" in ARCHIVE.with_suffix(".LICENSE").read_text(encoding="utf-8")
    samples = load_samples(perceptron(), count=5)
    assert samples.source == samples[:2].source == samples.to("cpu").source == EMBEDDED
    assert "6,000 embedded images" in EMBEDDED
    with pytest.raises(
        DataError, match=r"embedded.* has 4000 images .*: ask for fewer, or get the full set: run"
    ):
        load_samples(perceptron(), count=4001)


def test_what_images_are_called(nowhere):
    assert origin() == EMBEDDED
    assert origin("hub") == FULL
    assert origin("somewhere") == "somewhere"


def test_the_embedded_part_is_made_of_the_first_images(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.scripts.embed_fashion.COUNTS", {"train": 5, "test": 3})
    folder, out = write(tmp_path / "full"), tmp_path / "part.zip"
    embed(folder, out)
    monkeypatch.setenv("ICBS_SYSTEM_DATA", "")
    monkeypatch.setattr("icbs.data.fashion_mnist.ARCHIVE", out)
    for split, seed, count in (("train", 0, 5), ("test", 1, 3)):
        for found, whole in zip(fashion_mnist(split), images_and_labels(seed=seed), strict=True):
            assert np.array_equal(found, whole[:count])
    again = tmp_path / "again.zip"
    embed(folder, again)
    assert again.read_bytes() == out.read_bytes()
    # Like any file of images, a damaged one is refused.
    content = bytearray(out.read_bytes())
    content[200] ^= 0xFF
    out.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        fashion_mnist("train")


def test_nothing_there(nowhere, tmp_path):
    with pytest.raises(DownloadError, match=r"apt-get install dataset-fashion.*--data FOLDER"):
        fashion_mnist("train", "hub")
    with pytest.raises(DataError, match=r"has no train-images-idx3-ubyte.*--data FOLDER"):
        fashion_mnist("train", tmp_path)
    with pytest.raises(DataError, match="split is 'valid'"):
        fashion_mnist("valid")


def test_hub_file(nowhere, monkeypatch, tmp_path):
    images, labels = images_and_labels()
    entries = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG")
        entries.append({"bytes": buffer.getvalue(), "path": None})
    path = tmp_path / "train.parquet"
    parquet.write_table(pa.table({"image": entries, "label": labels.astype(np.int64)}), path)
    asked = []

    def download(repo, name, repo_type):
        asked.append((repo, name, repo_type))
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    found = fashion_mnist("train", "hub")
    assert np.array_equal(found[0], images)
    assert np.array_equal(found[1], labels)
    assert asked == [
        (
            "zalando-datasets/fashion_mnist",
            "fashion_mnist/train-00000-of-00001.parquet",
            "dataset",
        )
    ]
    parquet.write_table(pa.table({"text": ["x"]}), path)
    with pytest.raises(DataError, match=r"columns \['text'\]"):
        read_parquet(path)


def test_pairs_that_do_not_fit(tmp_path):
    folder = write(tmp_path, zipped=False)
    labels = folder / "train-labels-idx1-ubyte"
    labels.write_bytes(idx(np.zeros(5, np.uint8)))
    with pytest.raises(DataError, match=r"labels \(5,\)"):
        fashion_mnist("train", folder)
    labels.write_bytes(idx(np.full(12, 10, np.uint8)))
    with pytest.raises(DataError, match="labels up to 10"):
        fashion_mnist("train", folder)
    (folder / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((12, 32, 32), np.uint8)))
    with pytest.raises(DataError, match="32 x 32"):
        fashion_mnist("train", folder)


def test_samples(tmp_path):
    folder = str(write(tmp_path))
    samples = load_samples(perceptron(), folder, count=3, start=2)
    images, labels = images_and_labels()
    expected = (torch.from_numpy(images[2:5]).float() / 255 - MEAN) / DEVIATION
    torch.testing.assert_close(samples.inputs, expected[:, None])
    assert samples.targets.tolist() == labels[2:5].tolist()
    held_out = load_samples(perceptron(), folder, part="evaluation", count=12)
    assert len(held_out) == 12
    with pytest.raises(DataError, match="has 12 images for calibration"):
        load_samples(perceptron(), folder, count=10, start=3)
    with pytest.raises(DataError, match="choose a count from 1"):
        load_samples(perceptron(), folder, count=0)
    with pytest.raises(DataError, match="part is 'test'"):
        load_samples(perceptron(), folder, part="test", count=1)
    with pytest.raises(DataError, match=r"images are 1 x 28 x 28 .* takes 1 x 32 x 32"):
        load_samples(perceptron(image_size=32), folder, count=1)


@pytest.mark.skipif(not INSTALLED, reason="dataset-fashion-mnist is not installed")
def test_constants_are_those_of_the_training_split(monkeypatch):
    images, labels = fashion_mnist("train")
    monkeypatch.setenv("ICBS_SYSTEM_DATA", "")
    assert np.array_equal(fashion_mnist("train")[0], images[:4000])
    assert images.shape == (60000, 28, 28)
    assert np.bincount(labels).tolist() == [6000] * 10
    assert images.mean(dtype=np.float64) / 255 == pytest.approx(MEAN, abs=1e-4)
    assert images.std(dtype=np.float64) / 255 == pytest.approx(DEVIATION, abs=1e-4)
