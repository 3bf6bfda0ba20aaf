import json

import pytest
import torch

from icbs.data.loading import WIKIPEDIA, documents, token_windows
from icbs.errors import DataError


class Words:
    """One token a word, blank lines not counted."""

    def __call__(self, text, add_special_tokens, verbose):
        assert not add_special_tokens
        return {"input_ids": [int(word[1:]) for word in text.split()]}


def paragraphs(count, words=5):
    return "\n\n".join(" ".join(f"w{p * words + i}" for i in range(words)) for p in range(count))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(paragraphs(40), encoding="utf-8")
    return str(path)


def test_windows_are_consecutive_and_disjoint(file):
    first = token_windows(Words(), file, count=3, length=10)
    assert torch.equal(first, torch.arange(30).view(3, 10))
    later = token_windows(Words(), file, count=2, length=10, start=3)
    assert later[0, 0] == 30
    held_out = token_windows(Words(), file, part="evaluation", count=4, length=10)
    assert torch.equal(held_out.flatten(), torch.arange(160, 200))


def test_repeated_paragraphs_are_not_held_out(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(paragraphs(40) + "\n\n" + paragraphs(2))
    assert not set(documents(str(path), "calibration")) & set(documents(str(path), "evaluation"))


def test_lines_where_there_are_no_paragraphs(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(paragraphs(40).replace("\n\n", "\n"))
    assert len(documents(str(path), "evaluation")) == 8


def test_bad_files(tmp_path, file):
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"caf\xe9 society")
    with pytest.raises(DataError, match="not UTF-8 at byte 3"):
        documents(str(latin), "calibration")
    with pytest.raises(DataError, match="cannot be read"):
        documents(str(tmp_path / "missing.txt"), "calibration")
    with pytest.raises(DataError, match="cannot be read"):
        documents(str(tmp_path), "calibration")
    with pytest.raises(DataError, match=r"has 160 tokens for calibration, 170 are needed"):
        token_windows(Words(), file, count=17, length=10)
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match="has 0 tokens"):
        token_windows(Words(), str(tmp_path / "empty.txt"), count=1, length=2)
    with pytest.raises(DataError, match="part is 'test'"):
        documents(file, "test")
    for bad in ({"count": 0, "length": 5}, {"count": 1, "length": 1}):
        with pytest.raises(DataError, match="choose a count from 1"):
            token_windows(Words(), file, **bad)


def test_wikipedia_parts_are_disjoint_by_article(tmp_path, monkeypatch):
    monkeypatch.setenv("ICBS_CACHE", str(tmp_path))
    folder = tmp_path / "data" / f"wikipedia-{WIKIPEDIA.sha256[:12]}"
    folder.mkdir(parents=True)
    articles = {f"Title {i}": {"extract": f"w{i}"} for i in range(500)}
    (folder / "summaries_en-us.json").write_text(json.dumps(articles))
    parts = [documents("wikipedia", part) for part in ("calibration", "evaluation")]
    assert not set(parts[0]) & set(parts[1])
    assert len(parts[0]) + len(parts[1]) == 500
    assert 60 < len(parts[1]) < 140


@pytest.mark.slow
def test_real_articles():
    parts = [documents("wikipedia", part) for part in ("calibration", "evaluation")]
    assert sum(map(len, parts)) > 10_000
    assert not set(parts[0]) & set(parts[1])
