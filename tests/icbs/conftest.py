"""Fixtures of the pruning tests."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.icbs_fixtures import tiny_llama


@pytest.fixture
def folder(tmp_path):
    words = {f"w{i}": i for i in range(61)}
    raw = Tokenizer(models.WordLevel(words, unk_token="w0"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="w0").save_pretrained(tmp_path)
    tiny_llama().save_pretrained(tmp_path)
    return tmp_path
