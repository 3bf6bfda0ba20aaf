"""Several texts as one source, and text that the model writes itself."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from icbs.data.generated import BATCH
from icbs.data.loading import load_samples
from icbs.data.mixtures import shares, turns
from icbs.errors import DataError
from icbs.models.loading import load_model


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 60))
def test_any_prefix_has_the_shares(weights, count):
    mixture = {str(i): weight / sum(weights) for i, weight in enumerate(weights)}
    order = turns(mixture, count)
    assert len(order) == count
    for n in range(1, count + 1):
        for name, share in mixture.items():
            assert abs(order[:n].count(name) - share * n) < 1 + 1e-9 + (len(mixture) - 2) * 0.5


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a:0.5,b:0.4", "add up to 0.9: make them add up to 1"),
        ("a:0.5,b", "'b' of 'a:0.5,b' has no share: write it as b:SHARE"),
        ("a:0.5,a:0.5", "'a' of .* is named twice"),
    ],
)
def test_shares_that_are_none_are_refused(source, message):
    with pytest.raises(DataError, match=message):
        shares(source)


@pytest.mark.parametrize("source", ["wikipedia", "some/file.txt", "C:/text.txt"])
def test_a_single_source_is_no_mixture(source):
    assert shares(source) is None


@pytest.fixture(scope="module")
def llama(model_folder):
    loaded = load_model(str(model_folder))
    loaded.tokenizer.bos_token = "<pad>"
    return loaded


def test_windows_of_several_texts_take_turns(llama, tmp_path):
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path, word in zip(paths, ("alpha", "beta"), strict=True):
        path.write_text("\n\n".join(f"{word} {word} {n % 3}" for n in range(200)))
    source = f"{paths[0]}:0.25,{paths[1]}:0.75"
    both = load_samples(llama, source, count=8, length=6)
    assert both.source == source
    a, b = (load_samples(llama, str(path), count=6, length=6).inputs for path in paths)
    order = turns({"a": 0.25, "b": 0.75}, 8)
    parts = {"a": iter(a), "b": iter(b)}
    assert torch.equal(both.inputs, torch.stack([next(parts[name]) for name in order]))
    later = load_samples(llama, source, count=3, length=6, start=5)
    assert torch.equal(later.inputs, both.inputs[5:])


def test_the_model_writes_the_same_text_again_and_another_model_another(
    llama, tmp_path, monkeypatch
):
    monkeypatch.setenv("ICBS_CACHE", str(tmp_path))
    few = load_samples(llama, "self", count=3, length=8)
    more = load_samples(llama, "self", count=BATCH + 2, length=8, start=1)
    assert torch.equal(few.inputs[1:], more.inputs[:2])
    assert len({tuple(row) for row in more.inputs.tolist()}) > BATCH
    kept = sorted(tmp_path.rglob("windows.safetensors"))
    assert len(kept) == 2
    monkeypatch.setattr(type(llama.model), "generate", None)  # read, not written again
    assert torch.equal(load_samples(llama, "self", count=3, length=8).inputs, few.inputs)
    monkeypatch.undo()
    monkeypatch.setenv("ICBS_CACHE", str(tmp_path))
    weight = next(llama.model.parameters())
    with torch.no_grad():
        weight.add_(1.0)
        try:
            other = load_samples(llama, "self", count=3, length=8)
        finally:
            weight.sub_(1.0)
    assert not torch.equal(other.inputs, few.inputs)


def test_what_cannot_write_or_be_judged_by_its_own_text_is_refused(llama):
    with pytest.raises(DataError, match="evaluate on a text that the model did not write"):
        load_samples(llama, "wikipedia:0.5,self:0.5", part="evaluation", count=2, length=8)
    with pytest.raises(DataError, match="choose a count from 1"):
        load_samples(llama, "self", count=None, length=8)

    class Mute:
        bos_token_id = eos_token_id = None

    with pytest.raises(DataError, match="cannot write text of its own"):
        load_samples(replace(llama, tokenizer=Mute()), "self", count=2, length=8)
