"""Fixtures that several folders use.

Every test process reads this file, so a fixture imports what takes long by itself.
"""

import os
from types import SimpleNamespace

import numpy as np
import pytest

SENTENCE = "the a model of weights and masks is pruned step by step until nothing more can go"

WORDS = sorted(set(SENTENCE.split()))


@pytest.fixture
def icbs(monkeypatch, capsys):
    """Runs a command line; returns exit status, stdout, stderr."""
    from experiments import cli

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["icbs", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return ended.value.code or 0, out, err

    return run


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A tiny Llama with a word-level tokenizer, as a folder transformers can load."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from tests.icbs_fixtures import tiny_llama

    folder = tmp_path_factory.mktemp("model")
    tiny_llama().save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(["<pad>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>").save_pretrained(folder)
    rng = np.random.default_rng(0)
    lines = ("\n\n".join(" ".join(rng.choice(WORDS, 30)) for _ in range(60))) + "\n"
    (folder / "text.txt").write_text(lines)
    return folder


@pytest.fixture
def braket(tmp_path, monkeypatch):
    """The endpoint, with the SDK's environment pointed at it and nothing remembered."""
    from braket.tracking import pricing

    from solvers.cloud import devices
    from tests.braket_endpoint import Endpoint

    for name in [*os.environ]:
        if name.startswith(("AWS_", "AMZN_BRAKET")):
            monkeypatch.delenv(name)
    devices._offers.cache_clear()
    pricing._pricing._price_list.clear()
    pricing.price_search.cache_clear()
    # The SDK waits for seconds between its own attempts.
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    with Endpoint() as endpoint:
        for name, value in endpoint.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield endpoint
    devices._offers.cache_clear()
