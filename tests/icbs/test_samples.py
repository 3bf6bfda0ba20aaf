import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icbs import Pruner
from icbs.blocks.capture import Forward
from icbs.data.loading import documents, load_samples
from icbs.data.samples import IGNORED, Samples, masked_token, next_token
from icbs.errors import DataError, IcbsError, MemoryLimitError, ModelError, memory_remedy
from icbs.evaluation.losses import sample_losses
from icbs.evaluation.quality import evaluate
from icbs.models.loading import LoadedModel
from icbs.models.prunable import prunable_layers
from tests.icbs_fixtures import tiny_llama, tiny_loaded, tiny_samples


@settings(max_examples=40)
@given(count=st.integers(1, 6), length=st.integers(1, 7), size=st.integers(1, 7), data=st.data())
def test_batches_are_the_whole(count, length, size, data):
    tokens = torch.arange(count * length).view(count, length)
    lengths = torch.tensor([data.draw(st.integers(1, length)) for _ in range(count)])
    mask = torch.arange(length)[None] < lengths[:, None]
    samples = next_token(tokens, mask)
    batches = samples.split(size)
    assert sum(len(batch) for batch in batches) == len(samples) == count
    for field in ("inputs", "targets", "mask"):
        joined = torch.cat([getattr(batch, field) for batch in batches])
        assert torch.equal(joined, getattr(samples, field))
    # every real token but the first of its sample is predicted once
    wanted = [tokens[s, 1:n].tolist() for s, n in enumerate(lengths)]
    assert [t[t != IGNORED].tolist() for t in samples.targets] == wanted


@settings(max_examples=40)
@given(count=st.integers(1, 5), length=st.integers(1, 9), seed=st.integers(0, 99), data=st.data())
def test_masked_tokens(count, length, seed, data):
    tokens = torch.randint(1, 50, (count, length), generator=torch.Generator().manual_seed(seed))
    lengths = torch.tensor([data.draw(st.integers(1, length)) for _ in range(count)])
    mask = torch.arange(length)[None] < lengths[:, None]
    samples = masked_token(tokens, 0, share=0.4, seed=seed, mask=mask)
    hidden = samples.targets != IGNORED
    assert torch.equal(samples.targets[hidden], tokens[hidden])
    assert (samples.inputs[hidden] == 0).all()
    assert torch.equal(samples.inputs[~hidden], tokens[~hidden])
    assert not (hidden & ~mask).any()
    assert hidden.sum(1).tolist() == [max(1, round(0.4 * int(n))) for n in lengths]
    again = masked_token(tokens, 0, share=0.4, seed=seed, mask=mask)
    assert torch.equal(samples.inputs, again.inputs)


@pytest.mark.parametrize(
    ("inputs", "targets", "mask", "message"),
    [
        ((3,), (3,), None, "inputs have shape"),
        ((3, 4), (4,), None, "targets"),
        ((3, 1, 4, 4), (3, 1), None, "targets of images"),
        ((3, 4), (3, 4), [[1, 1, 0, 0]], "mask has shape"),
        ((1, 4), (1, 4), [[0, 1, 1, 1]], "pad on the right"),
        ((1, 4), (1, 4), [[1, 0, 1, 1]], "pad on the right"),
        ((1, 4), (1, 4), [[0, 0, 0, 0]], "padding only"),
    ],
)
def test_samples_that_cannot_be(inputs, targets, mask, message):
    with pytest.raises(DataError, match=message):
        Samples(
            torch.zeros(inputs),
            torch.zeros(targets, dtype=torch.long),
            None if mask is None else torch.tensor(mask).bool(),
        )


def test_samples_of_another_model():
    model = tiny_llama()
    layers = prunable_layers(model)
    for bad, message in (
        (next_token(torch.full((2, 5), 61)), "token id 61 is beyond the model's vocabulary of 61"),
        (next_token(torch.zeros(2, 65, dtype=torch.long)), "65 tokens and the model has 64"),
        (Samples(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.long)), "reads tokens"),
    ):
        with pytest.raises(DataError, match=message):
            Forward(model, layers, bad)
        with pytest.raises(DataError, match=message):
            evaluate(model, bad, progress=False)
    with pytest.raises(DataError, match="there are no samples"):
        Forward(model, layers, tiny_samples()[:0])
    with pytest.raises(DataError, match="one target a sample"):
        evaluate(model, Samples(tiny_samples().inputs, torch.zeros(6).long()), progress=False)


def test_tokenizer_of_another_model(tmp_path):
    (tmp_path / "text.txt").write_text("\n\n".join("word " * 9 for _ in range(40)))

    def tokenizer(text, add_special_tokens, verbose):
        return {"input_ids": [500 for _ in text.split()]}

    loaded = LoadedModel(tiny_llama(), tokenizer, "tiny", "random")
    with pytest.raises(DataError, match=r"token id 500 .* tokenizer belongs to another model"):
        load_samples(loaded, str(tmp_path / "text.txt"), count=2, length=8)


def test_text_classifiers_bring_their_own_data():
    loaded = LoadedModel(tiny_llama(), None, "tiny", "random", task="text-classification")
    with pytest.raises(DataError, match="no data comes with this package; give a UTF-8 file"):
        load_samples(loaded, count=1)


def test_calibration_shorter_than_a_batch():
    with pytest.raises(DataError, match="has 2 samples, fewer than batch_size=3"):
        Pruner(tiny_loaded(), tiny_samples(2), batch_size=3)


def test_quality_by_hand():
    """Loss and accuracy over all targets, not over samples."""

    class Fixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = torch.nn.Parameter(
                torch.tensor([[[2.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [3.0, 0.0]]])
            )

        def forward(self, input_ids):
            return type("Output", (), {"logits": self.logits})

    targets = torch.tensor([[0, IGNORED], [0, 0]])
    samples = Samples(torch.zeros(2, 2, dtype=torch.long), targets)
    found = evaluate(Fixed(), samples, progress=False)
    p = [torch.tensor(pair).softmax(0)[0] for pair in ([2.0, 0.0], [0.0, 1.0], [3.0, 0.0])]
    assert found.targets == 3
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.loss == pytest.approx(float(-torch.stack(p).log().mean()), rel=1e-6)
    assert found.perplexity == pytest.approx(float(torch.stack(p).log().mean().neg().exp()))
    with pytest.raises(DataError, match="no target"):
        evaluate(Fixed(), Samples(samples.inputs, torch.full((2, 2), IGNORED)), progress=False)


def test_loss_that_is_nan():
    model = tiny_llama()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="mean loss is nan"):
        evaluate(model, tiny_samples(), progress=False)


def test_losses_of_classes():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 2, 1, IGNORED, 0])
    losses, lengths = sample_losses(logits, targets)
    expected = [
        0.0 if t == IGNORED else -float(row.log_softmax(0)[t])
        for row, t in zip(logits, targets.tolist(), strict=True)
    ]
    torch.testing.assert_close(losses, torch.tensor(expected))
    assert lengths.tolist() == [1, 1, 1, 0, 1]


def test_out_of_memory_says_what_to_lower():
    model = tiny_llama()

    def exhausted(*_):
        torch.empty(1 << 60, dtype=torch.uint8)

    model.model.layers[1].register_forward_hook(exhausted)
    layers = prunable_layers(model, "*.0.*")
    with pytest.raises(MemoryLimitError, match=r"6 windows of 10 tokens: lower batch_size"):
        Forward(model, layers, tiny_samples()).losses()
    with pytest.raises(MemoryLimitError, match="lower batch_size"):
        evaluate(model, tiny_samples(), batch_size=6, progress=False)


def test_other_errors_pass_through():
    with pytest.raises(RuntimeError, match="shapes"), memory_remedy("this", "that"):
        raise RuntimeError("shapes do not fit")
    with pytest.raises(IcbsError, match="out of memory"), memory_remedy("this", "that"):
        raise MemoryError


def test_pydoc_is_prose_in_two_parts():
    parts = [documents("pydoc", part) for part in ("calibration", "evaluation")]
    assert not set(parts[0]) & set(parts[1])
    assert all(sum(map(len, texts)) > 50_000 for texts in parts)
    assert any("expression" in text for text in parts[1])
