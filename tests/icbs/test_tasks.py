"""A model task is one row: those of the package, and one that is added in a temporary folder."""

import json
import math

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    PreTrainedTokenizerFast,
)
from typer.testing import CliRunner

from experiments.cli import app
from icbs.data.loading import load_samples
from icbs.errors import DataError
from icbs.evaluation.quality import evaluate, worse_than_guessing
from icbs.loop.pruner import Pruner
from icbs.models.loading import load_model
from icbs.models.tasks import TASKS, Task, task_of

LABELS = ("bad", "so-so", "good")


def save_bert(cls, folder):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=61,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        num_labels=3,
        id2label=dict(enumerate(LABELS)),
        label2id={name: i for i, name in enumerate(LABELS)},
    )
    model = cls(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.25)
    model.save_pretrained(folder)
    raw = Tokenizer(models.WordLevel({f"w{i}": i for i in range(61)}, unk_token="w0"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="w0").save_pretrained(folder)


def texts(count=30):
    rng = np.random.default_rng(0)
    for i in range(count):
        words = " ".join(f"w{j}" for j in rng.integers(1, 61, rng.integers(3, 9)))
        yield f"{i % 3 if i % 2 else LABELS[i % 3]}\t{words}"


@pytest.fixture
def classifier(tmp_path):
    save_bert(BertForSequenceClassification, tmp_path)
    (tmp_path / "texts.tsv").write_text("\n".join(texts()))
    return tmp_path


def pruned(loaded, samples):
    run = Pruner(
        loaded, samples[:8], heldout=samples[8:12], solver="greedy", batch_size=4, block_size=16,
        damping=1.0, progress=False,
    )  # fmt: skip
    run.run(1)
    assert run.density == pytest.approx(0.5, abs=0.01)
    assert len(run.layers) >= 12
    return run


def test_every_row_is_whole():
    endings = [ending for task in TASKS.values() for ending in task.endings]
    assert len(endings) == len(set(endings))
    for name, task in TASKS.items():
        assert hasattr(transformers, task.auto_class)
        assert callable(task.samples)
        assert all(amount >= 1 for amount in task.usual(None))
        assert [task_of(f"Some{ending}") for ending in task.endings] == [name] * len(task.endings)
    assert task_of("BertModel") is None


def test_a_classifier_of_text_is_pruned_and_measured(classifier):
    loaded = load_model(str(classifier))
    assert loaded.task == "text-classification"
    source = str(classifier / "texts.tsv")
    samples = load_samples(loaded, source, count=None, length=16)
    held = load_samples(loaded, source, part="evaluation", count=None, length=16)
    assert (len(samples), len(held)) == (24, 6)
    assert samples.targets.tolist() == [i % 3 for i in range(24)]
    assert samples.mask is not None
    assert samples.mask.sum(1).unique().numel() > 1
    pruned(loaded, samples)
    found = evaluate(loaded.model, held, progress=False)
    assert found.targets == 6
    assert "log 3 = 1.10" in worse_than_guessing(loaded.model, 1.2)
    assert worse_than_guessing(loaded.model, 1.0) is None
    # padding changes nothing
    alone = load_samples(loaded, source, count=1, length=16)
    assert alone.mask is None
    with torch.no_grad():
        logits = [loaded.model(**s.arguments(loaded.model)).logits for s in (samples[:1], alone)]
    torch.testing.assert_close(*logits)


def test_the_command_takes_a_classifier_of_text(classifier):
    data = classifier / "texts.tsv"
    answer = CliRunner().invoke(app, ["evaluate", str(classifier), "--data", str(data), "--json"])
    assert answer.exit_code == 0, answer.output
    (result,) = json.loads(answer.stdout)["results"]
    assert (result["samples"], result["targets"], result["perplexity"]) == (6, 6, None)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "no data comes with this package"),
        ("good w1 w2", "line 1, is 'good w1 w2'; write a class, a tab and a text"),
        ("great\tw1 w2", "has the class 'great'; choose one of the model's 3: bad, so-so, good"),
        ("3\tw1 w2", "has the class '3'"),
        ("", "has 0 texts for calibration"),
    ],
)
def test_texts_that_are_no_use(classifier, source, message):
    path = classifier / "bad.tsv"
    if source is not None:
        path.write_text(source)
    loaded = load_model(str(classifier))
    with pytest.raises(DataError, match=message):
        load_samples(loaded, None if source is None else str(path), count=1)


SAMPLER = """
import torch
from icbs.data.samples import Samples

def samples(loaded, source, *, part, count, length, start):
    tokens = torch.arange(1, 1 + 12 * length).view(12, length) % 60 + 1
    return Samples(tokens[start:start + count], tokens[start:start + count] % 3, source="made up")
"""


def test_a_task_is_added_by_one_row(tmp_path, monkeypatch):
    (tmp_path / "tagging.py").write_text(SAMPLER)
    monkeypatch.syspath_prepend(tmp_path)
    row = Task(
        endings=("ForTokenClassification",),
        auto_class="AutoModelForTokenClassification",
        sampler="tagging:samples",
    )
    monkeypatch.setitem(TASKS, "token-classification", row)
    save_bert(BertForTokenClassification, tmp_path / "model")
    loaded = load_model(str(tmp_path / "model"))
    assert loaded.task == "token-classification"
    samples = load_samples(loaded, count=12, length=8)
    pruned(loaded, samples)
    found = evaluate(loaded.model, samples, progress=False)
    assert found.targets == 12 * 8
    assert math.isfinite(found.loss)
    assert "log 3 = 1.10" in worse_than_guessing(loaded.model, 1.2)
