"""Models, data and runs of the pruning tests."""

import gzip
import struct

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from icbs import Pruner
from icbs.data.samples import next_token
from tests.icbs_fixtures import tiny_loaded, tiny_samples

TEXT = {"vocab_size": 41, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}

FEED = {"intermediate_size": 24, "max_position_embeddings": 32}

COMMON = {
    "vocab_size": 41, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip

ROUTED = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}

# family: architecture, configuration
MOE = {
    "mixtral": ("Mixtral", {"intermediate_size": 12, "num_local_experts": 4}),
    "qwen3_moe": ("Qwen3Moe", {**ROUTED, "head_dim": 8}),
    "qwen2_moe": (
        "Qwen2Moe",
        {**ROUTED, "intermediate_size": 20, "shared_expert_intermediate_size": 12},
    ),
    "olmoe": ("Olmoe", {"intermediate_size": 12, "num_experts": 4, "num_experts_per_tok": 2}),
    "gpt_oss": (
        "GptOss",
        {"intermediate_size": 12, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
    ),
    "deepseek_v2": (
        "DeepseekV2",
        {
            "intermediate_size": 20, "moe_intermediate_size": 12, "n_routed_experts": 4,
            "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
            "kv_lora_rank": 8, "q_lora_rank": None, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
            "v_head_dim": 8, "num_key_value_heads": 2,
            "n_group": 1, "topk_group": 1, "topk_method": "greedy",
        },
    ),
    # every expert is given every position, as zeros where it is not chosen
    "llama4": (
        "Llama4",
        {
            "intermediate_size": 12, "intermediate_size_mlp": 20, "num_local_experts": 4,
            "num_experts_per_tok": 2, "interleave_moe_layer_step": 1, "no_rope_layers": [1, 0],
            "attention_chunk_size": 16, "head_dim": 8,
        },
    ),
    # a stack for each projection, rows sorted by expert; those of attention are experts too
    "jetmoe": (
        "JetMoe",
        {
            "intermediate_size": 12, "num_local_experts": 4, "num_experts_per_tok": 2,
            "kv_channels": 8,
        },
    ),
    # experts without matrices, which hand on what they are given
    "longcat_flash": (
        "LongcatFlash",
        {
            "num_layers": 1, "ffn_hidden_size": 20, "expert_ffn_hidden_size": 12,
            "n_routed_experts": 4, "zero_expert_num": 2, "moe_topk": 2, "kv_lora_rank": 8,
            "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
            "head_dim": 4, "num_key_value_heads": 2,
        },
    ),
    # stacks of two dimensions
    "dbrx": (
        "Dbrx",
        {
            "d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 32,
            "attn_config": {"kv_n_heads": 1, "rope_theta": 1e4, "clip_qkv": 8.0},
            "ffn_config": {
                "hidden_size": 16, "ffn_hidden_size": 12, "moe_num_experts": 4, "moe_top_k": 2,
            },
        },
    ),
}  # fmt: skip

# One of each layout; the others with the slow tests.
QUICK = ("mixtral", "gpt_oss", "llama4", "jetmoe")

FAMILIES = [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in MOE]

CONFIG = {"llama4": "Llama4TextConfig"}

# expert matrices of a model of two blocks
EXPERTS = {"deepseek_v2": 8, "jetmoe": 32, "longcat_flash": 8, "dbrx": 24}

# stacks that store (in, out)
TURNED = {
    "gpt_oss": ("gate_up_proj", "down_proj"), "llama4": ("gate_up_proj", "down_proj"),
    "dbrx": ("w2",),
}  # fmt: skip


def moe(family, **changes):
    name, options = MOE[family]
    torch.manual_seed(0)
    if family == "dbrx":
        common = {name: COMMON[name] for name in ("vocab_size", "pad_token_id")}
    else:
        common = COMMON
    config_class = getattr(transformers, CONFIG.get(family, f"{name}Config"))
    config = config_class(**{**common, **options, **changes})
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.3)
    return model


def samples_of(count=6, padded=False):
    rng = np.random.default_rng(3)
    tokens = torch.from_numpy(rng.integers(4, 41, (count, 9)))
    if not padded:
        return next_token(tokens)
    mask = torch.arange(9)[None] < torch.from_numpy(rng.integers(4, 10, count))[:, None]
    return next_token(tokens.masked_fill(~mask, 0), mask)


WORDS = [
    "the",
    "a",
    "model",
    "of",
    "weights",
    "and",
    "masks",
    "is",
    "pruned",
    "step",
    "by",
    "until",
    "nothing",
    "more",
    "can",
    "go",
]


def save_tokenizer(folder, **special):
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<mask>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", **special
    ).save_pretrained(folder)


def idx(array, kind=8):
    return (
        struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()
    )


def images_and_labels(count=12, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return images, (np.arange(count) % 10).astype(np.uint8)


def write(folder, zipped=True):
    folder.mkdir(parents=True, exist_ok=True)
    for stem, seed in (("train", 0), ("t10k", 1)):
        images, labels = images_and_labels(seed=seed)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = idx(array)
            path = folder / f"{stem}-{name}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
    return folder


OPTIONS = {
    "solver": "relaxation",
    "block_size": 40,
    "batch_size": 3,
    "damping": 1.0,
    "tabu": 0.3,
    "fixed_kept": 0.1,
    "progress": False,
}


def pruner(samples=None, seed=0, **options):
    held = tiny_samples(4, seed=9)
    return Pruner(
        tiny_loaded(seed), samples or tiny_samples(), heldout=held, **{**OPTIONS, **options}
    )


def same(one, other):
    """Everything but the clock."""
    for a, b in zip(one.steps, other.steps, strict=True):
        assert {**a.to_json(), "seconds": 0} == {**b.to_json(), "seconds": 0}
    for name, layer in one.layers.items():
        assert torch.equal(layer.weight, other.layers[name].weight)
        assert torch.equal(layer.touched, other.layers[name].touched)
        assert torch.equal(layer.tabu.active, other.layers[name].tabu.active)


def autograd(model, layer, tokens, mask=None):
    """Sample-by-sample gradients the plain way, shape (B, out * in)."""
    rows = []
    layer.weight.requires_grad_(True)
    for s, row in enumerate(tokens):
        row = row if mask is None else row[mask[s]]
        logits = model(input_ids=row[None]).logits[0]
        loss = functional.cross_entropy(logits[:-1], row[1:])
        rows.append(torch.autograd.grad(loss, layer.weight)[0].flatten())
    return torch.stack(rows)
