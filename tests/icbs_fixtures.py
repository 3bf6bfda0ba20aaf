"""A tiny random Llama and a blind solver, shared by the tests of `icbs`."""

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from icbs.data.samples import Samples, next_token
from icbs.models.loading import LoadedModel
from solvers.base import CardinalitySampler, Request, Solution
from solvers.problem import CardinalityProblem


def tiny_llama(seed: int = 0, layers: int = 3) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                # transformers' 0.02 would leave a model whose gradients are all but zero
                parameter.normal_(0, 0.25)
    return model


def tiny_loaded(seed: int = 0) -> LoadedModel:
    return LoadedModel(tiny_llama(seed), None, "tiny", "random")


def tiny_tokens(count: int = 6, length: int = 10, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(1, 61, (count, length)))


def tiny_samples(count: int = 6, length: int = 10, seed: int = 1) -> Samples:
    return next_token(tiny_tokens(count, length, seed))


class BestOfSort(CardinalitySampler):
    """The k variables of smallest linear term and one random state."""

    name = "best-of-sort"

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters) -> Solution:
        states = np.zeros((2, problem.n), dtype=np.int8)
        states[0, np.argsort(problem.linear)[: problem.cardinality]] = 1
        states[1, request.rng.permutation(problem.n)[: problem.cardinality]] = 1
        return Solution(states)
