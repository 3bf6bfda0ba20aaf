"""Mistakes are refused before anything slow is imported, by what a model's files say."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from experiments.benchmarks.refusals import MISTAKES
from experiments.scripts.families import kinds, tiny_model
from icbs.errors import DensityError, LayerError
from icbs.models.loading import skeleton
from icbs.models.outline import AS_STORED, check_layers, layer_shapes
from icbs.models.prunable import layer_weight, prunable_layers
from icbs.models.registered import REGISTRY, quiet_transformers

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
sys.argv = ['icbs', *sys.argv[1:]]
from experiments.cli import main
try:
    main()
except SystemExit as ended:
    slow = {'torch', 'transformers', 'scipy', 'pandas', 'matplotlib', 'numba'}
    print(ended.code, sorted(set(sys.modules) & slow))
"""
RELATIVES = {
    "a pattern that fits no layer": "prune garment-mlp --set pattern=2:5 --set density=0.4 --out o",
    "a glob for export": "export garment-mlp --layers *.nope --out o",
    "a glob for baselines": "baselines garment-mlp --layers *.nope --out o",
    "a solver's typo in bench": "bench --instances x --solvers anealing",
    "a missing store to check": "store check none.sqlite",
    "a missing store to merge": "store merge none.sqlite --out o/s.sqlite",
    "an unknown model": "evaluate garmet-mlp",
}


@pytest.mark.parametrize("words", (MISTAKES | RELATIVES).values(), ids=MISTAKES | RELATIVES)
def test_a_mistake_imports_nothing_slow(words, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words.split()], cwd=tmp_path, capture_output=True,
        env={"PYTHONPATH": str(ROOT)}, text=True, check=True,
    )  # fmt: skip
    status, _, slow = done.stdout.partition(" ")
    assert status in ("1", "2"), done.stderr
    assert slow == "[]\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [k for k in kinds() if k.name in AS_STORED], ids=lambda k: k.id)
def test_files_of_these_kinds_name_every_layer(kind, tmp_path):
    with quiet_transformers():
        model = tiny_model(kind)
        model.save_pretrained(tmp_path)
    found = layer_shapes(tmp_path)
    for name, layer in prunable_layers(model).items():
        assert name in found
        assert sorted(layer_weight(layer).shape) == sorted(found[name])
        check_layers(tmp_path, name)


def test_the_embedded_perceptron_is_such_a_kind():
    model, _ = skeleton("garment-mlp")
    found = layer_shapes(REGISTRY["garment-mlp"].folder)
    assert list(found) == list(prunable_layers(model))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    save_file({"h.0.mlp.c_fc.weight": np.zeros((8, 12)), "h.0.mlp.c_fc.bias": np.zeros(12),
               "wte.embed.weight": np.zeros((9, 8))}, tmp_path / "model.safetensors")  # fmt: skip
    return tmp_path


@pytest.mark.parametrize("glob", ["*", "*.mlp.*", "h.*", "transformer.h.*", "x, *.c_fc"])
def test_what_may_match_is_left_to_the_model(folder, glob):
    check_layers(folder, glob, "2:4")
    check_layers(folder, glob, "1:3")


@pytest.mark.parametrize("glob", ["*.nope", "transformer.x.*", "*.mlp.c_proj", "*.bias", ""])
def test_what_cannot_match_is_refused(folder, glob):
    with pytest.raises(LayerError, match=r"match none of the layers; close names: h.0.mlp.c_fc"):
        check_layers(folder, glob)


def test_a_pattern_that_divides_nothing_is_refused(folder):
    with pytest.raises(DensityError, match=r"pattern 2:5 fits no layer, not 'h.0.mlp.c_fc'"):
        check_layers(folder, "*", "2:5")


@pytest.mark.parametrize("config", ['{"model_type": "mixtral"}', "{}", "no JSON", "[1]"])
def test_of_other_kinds_nothing_is_known(folder, config):
    (folder / "config.json").write_text(config)
    check_layers(folder, "*.nope", "2:5")


@pytest.mark.parametrize("data", [b"", b"short", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]"])
def test_of_damaged_files_nothing_is_known(folder, data):
    (folder / "model.safetensors").write_bytes(data)
    check_layers(folder, "*.nope", "2:5")
