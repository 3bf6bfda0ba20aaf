"""Model folders, and GGUF files as the registry converts them."""

import json
import struct
import tempfile
from functools import cache
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from icbs.errors import IcbsError
from icbs.models.loading import load_model
from tests.fuzz.mutate import corrupted, edited, json_text, pick
from tests.fuzz.safefile import inner_json, rewritten
from tests.fuzz.targets import Target, written
from tests.icbs_fixtures import tiny_llama

ATTACKS = {
    "auto_map": {"AutoConfig": "modeling_x.C", "AutoModelForCausalLM": "modeling_x.M"},
    "attn_implementation": "evil/kernel",
    "_attn_implementation": "kernels-community/flash-attn",
    "transformers_weights": "../outside/canary",
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "num_labels": 2**40,
    "dtype": "../x",
    "model_type": "bert",
    "num_hidden_layers": 2**31,
    "hidden_size": 2**40,
    "vocab_size": 2**31,
    "head_dim": 2**33,
    "max_position_embeddings": 2**40,
    "intermediate_size": 2**36,
}
CODE = b"from pathlib import Path\nPath('executed').write_text('yes')\nclass C: pass\nM = C\n"


@cache
def _folders():
    with tempfile.TemporaryDirectory() as folder:
        words = {f"w{i}": i for i in range(61)}
        raw = Tokenizer(models.WordLevel(words, unk_token="w0"))
        raw.pre_tokenizer = pre_tokenizers.Whitespace()
        PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="w0").save_pretrained(folder)
        tiny_llama(layers=1).save_pretrained(folder)
        files = sorted(Path(folder).iterdir())
        return [{path.name: path.read_bytes() for path in files}]


def _load_model(path, out):
    loaded = load_model(str(path))
    assert all(torch.isfinite(weight).all() for weight in loaded.model.parameters())
    assert loaded.task == "causal-lm" and not loaded.model.training
    assert not any(weight.is_meta for weight in loaded.model.parameters())


def _model(rng, seeds):
    sample = dict(pick(rng, seeds))
    kind = int(rng.integers(10))
    if kind < 3:
        change = lambda rng, inside: inner_json(rng, inside, ())  # noqa: E731
        sample["model.safetensors"] = rewritten(rng, sample["model.safetensors"], change)
    elif kind < 4:
        shard = str(pick(rng, ["model.safetensors", "../outside/canary", "/etc/passwd", "", ".."]))
        index = {"metadata": {"total_size": 1}, "weight_map": {"lm_head.weight": shard}}
        sample["model.safetensors.index.json"] = json_text(rng, index).encode()
        if rng.integers(2):
            sample["x.safetensors"] = sample.pop("model.safetensors")
    else:
        name = "config.json" if kind < 8 else pick(rng, [n for n in sample if n.endswith("json")])
        tree = json.loads(sample[name])
        if name == "config.json" and rng.random() < 0.4:
            key = pick(rng, list(ATTACKS))
            tree[key] = ATTACKS[key]
            sample["modeling_x.py"] = CODE
        else:
            tree = edited(rng, tree)
        sample[name] = json_text(rng, tree).encode("utf-8", "surrogatepass")
    return sample


def _gguf_file(path):
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in {"context_length": 64, "embedding_length": 24, "block_count": 1,
                        "feed_forward_length": 40, "head_count": 4}.items():  # fmt: skip
        getattr(writer, f"add_{name}")(value)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"w{i}" for i in range(61)])
    writer.add_array("notes", [1, 2, 3])
    for name, shape in {"token_embd.weight": (61, 24), "output_norm.weight": (24,)}.items():
        writer.add_tensor(name, np.ones(shape, np.float32))
    writer.add_tensor("output.weight", np.ones((61, 24), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_files():
    return [{"a.gguf": written("a.gguf", _gguf_file)}]


def _load_gguf(path, out):
    from icbs.models.gguf_header import check_gguf

    check_gguf(path)
    reader = gguf.GGUFReader(path)
    for tensor in reader.tensors:
        assert tensor.data.nbytes <= path.stat().st_size, "a tensor larger than its file"
    assert all(field.contents() is not None or not field.data for field in reader.fields.values())


def _gguf(rng, seeds):
    """Counts, lengths and types of the header as a machine writes them."""
    ((name, data),) = pick(rng, seeds).items()
    data = bytearray(data)
    end = data.find(b"output.weight") + 60
    for _ in range(int(rng.integers(1, 4))):
        value = int(pick(rng, [0, 1, 2, 4, 5, 8, 9, 12, 99, 2**20, 2**31, 2**40, 2**63, 2**64 - 1]))
        at = 8 * int(rng.integers(1, 3)) if rng.random() < 0.3 else 4 + int(rng.integers(end))
        size = int(pick(rng, [4, 8]))
        data[at : at + size] = struct.pack("<Q", value)[:size]
    if rng.random() < 0.2:
        return {name: corrupted(rng, bytes(data))}
    return {name: bytes(data)}


TARGETS = {
    "model": Target("model", _folders, _model, _load_model, (IcbsError,), folder=True),
    "gguf": Target("gguf", _gguf_files, _gguf, _load_gguf, (IcbsError,)),
}
