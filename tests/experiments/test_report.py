"""The page: self-contained, honest, quiet in a browser."""

import html
import json
import re
from concurrent.futures import Future
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from pypdf import PdfReader

from experiments import Store, Study, load_runs, run
from experiments.errors import ReportError, StoreError
from experiments.figures import palette
from experiments.metrics.targets import solutions
from experiments.report import tables
from experiments.report.causes import causes
from experiments.report.page import _whole_dates, write
from experiments.running.crew import InProcess
from experiments.running.pool import WorkerDied
from tests.study_fixtures import Raising, block, spec

EVIL = "layer</script><img src=x onerror=alert(1)>{{7*7}}"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "study.sqlite"
    blocks = [block(8), block(30, fisher="position", layer=EVIL, curvature=3.0)]
    solvers = ["greedy", "relaxation", "enumerate", "random", spec(Raising)]
    run(Study("<b>title</b>", blocks, solvers, [0.02], seeds=range(3)), path, progress=False)
    with Store(path, create=True) as opened:
        steps = {"layer": [EVIL, "b"], "predicted": [-0.1, -0.2], "measured": [-0.05, 0.1]}
        opened.put_table("steps", pd.DataFrame(steps))
        quality = {"state": ["dense", "Wanda", "loop"], "perplexity": [17.0, 40.0, 26.5]}
        opened.put_table("perplexity", pd.DataFrame(quality))
    return path


@pytest.fixture(scope="module")
def page(store, tmp_path_factory):
    return write(store, tmp_path_factory.mktemp("page"))


class Reader(HTMLParser):
    """Tags, links and ids of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.ids, self.images = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.links += [found[key] for key in ("src", "href") if key in found]
        self.ids += [found["id"]] if "id" in found else []
        self.images += [found] if tag == "img" else []


def test_files_next_to_the_page(page):
    assert page.name == "report.html"
    assert len(pd.read_csv(page.parent / "runs.csv")) == 2 * 5 * 3
    names = {path.name for path in (page.parent / "figures").iterdir()}
    for stem in ("gap-against-wall", "ranking", "time-spent", "hardness",
                 "predicted-against-measured"):  # fmt: skip
        assert {f"{stem}.{suffix}" for suffix in ("pdf", "svg", "png")} <= names


def test_no_external_request(page):
    text = page.read_text("utf-8")
    reader = Reader(text)
    for link in reader.links:
        assert link.startswith(("data:", "#", "figures/", "runs.csv")), link
    for link in reader.links:
        if link.startswith("figures/"):
            assert (page.parent / link).is_file()
        if link.startswith("#"):
            assert link[1:] in reader.ids
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp", text)
    assert "default-src 'none'" in text


def test_structure(page):
    reader = Reader(page.read_text("utf-8"))
    assert len(set(reader.ids)) == len(reader.ids)
    assert reader.tags.count("h1") == reader.tags.count("main") == 1
    assert len(reader.images) == 6
    assert all(len(image["alt"]) > 60 for image in reader.images)


def test_untrusted_text_is_escaped(page):
    text = page.read_text("utf-8")
    assert "onerror=alert" not in text.replace(html.escape(EVIL), "").replace(
        json.dumps(EVIL)[1:-1].replace("<", "\\u003c").replace(">", "\\u003e"), ""
    )
    assert "<img src=x" not in text
    assert "<b>" not in text
    assert html.escape("out of qubits <b>now</b>") in text
    assert "{{7*7}}" in text


def test_says_what_happened(page):
    text = html.unescape(page.read_text("utf-8"))
    for words in ("greedy control", "RuntimeError", "enumerate takes at most 24", "dense", "26.5",
                  "current mask", "CPUs usable", "dimod", "predicted"):  # fmt: skip
        assert words in text, words


def test_empty_store_and_no_store(tmp_path):
    Store(tmp_path / "s.sqlite", create=True).close()
    with pytest.raises(ReportError, match="no runs yet"):
        write(tmp_path / "s.sqlite", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(StoreError, match="does not exist"):
        write(tmp_path / "none.sqlite", tmp_path / "out")


def test_unwritable_folder(store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="cannot be written"):
        write(store, tmp_path / "file" / "out")


def test_a_store_of_failures_only(tmp_path):
    run(Study("s", [block(8)], [spec(Raising)], seeds=[0]), tmp_path / "s.sqlite", progress=False)
    text = html.unescape(write(tmp_path / "s.sqlite", tmp_path).read_text("utf-8"))
    top = text.partition('id="words"')[0]
    assert "No run succeeded, so nothing can be compared: of 1 run, 1 ended in an error." in top
    assert "The cause:" in top
    assert "1 run ended in an error: raising: RuntimeError: out of qubits" in top
    assert "Nobody leads" in top
    # Nobody is told what a gap is, or that the machine was busy, where there is no answer.
    assert "A gap of 0" not in top
    assert "The machine was busy" not in top
    # Nothing empty: no findings, no chart and no table of runs that gave no answer.
    for absent in ('id="findings"', "#findings", "#best", "figure-gap", "figure-time",
                   'id="ranks"', 'id="times"', 'id="ledger',
                   'id="group', "#groups", "#ledger"):  # fmt: skip
        assert absent not in text, absent
    assert "<tbody>\n</tbody>" not in text.partition('id="runs"')[0]


def test_failures_are_counted_by_cause():
    """Not once a size: what differs in numbers only is one cause, with its remedy."""
    rows = [("a", "skipped", f"n = {n}: the study limits a to 4 variables") for n in (12, 64, 256)]
    rows += [("b", "skipped", f"n = {n}: b takes at most 20 variables") for n in range(30, 36)]
    rows += [("c", "error", "ParameterError: depth is -1, expected a whole number from 1")]
    rows += [("d", "timeout", ""), ("e", "done", "")]
    found = causes(pd.DataFrame(rows, columns=["solver", "status", "reason"]))
    assert [(one.solver, one.runs) for one in found] == [("b", 6), ("a", 3), ("c", 1), ("d", 1)]
    b, a, c, d = found
    assert a.reason == "n = 12, 64 or 256: the study limits a to 4 variables"
    assert "max_variables" in a.remedy
    assert b.reason == "n = 30 to 35: b takes at most 20 variables"
    assert c.reason == "ParameterError: depth is -1, expected a whole number from 1"
    assert "Correct this parameter" in c.remedy
    assert d.reason == "came back later than twice its limit and a second"


def test_no_word_is_left_of_the_shout_and_headings_differ(page):
    text = page.read_text("utf-8")
    assert "text-transform" not in text
    assert "shout" not in text
    heads = re.findall(r"<h[1-3][^>]*>(.*?)</h[1-3]>", text)
    assert len(set(heads)) == len(heads)
    links = re.findall(r'<li><a href="#(.*?)">', text)
    assert links == sorted(links, key=lambda name: text.index(f'id="{name}"'))
    assert links.index("best") < links.index("words")


def test_dates_stay_in_one_piece_and_are_escaped():
    assert _whole_dates("<b> of 2026-09-11, 2026-09-11 10:20 UTC") == (
        '&lt;b&gt; of <span class="date">2026-09-11</span>, '
        '<span class="date">2026-09-11 10:20 UTC</span>'
    )


def test_round_off_is_zero_and_shares_have_their_unit():
    assert [tables.share(x) for x in (0.0, 1e-15, 0.032)] == ["0 %", "0 %", "3.2 %"]
    assert tables.number(1.8e-14) == "0"


def test_ranks_have_intervals(page):
    text = html.unescape(page.read_text("utf-8"))
    assert "Who is best, and how sure that is" in text
    assert re.search(r"\[1, [1-9]\]</td>|>all [2-9]<", text)


def test_times_have_intervals_and_say_what_is_censored(page):
    text = html.unescape(page.read_text("utf-8"))
    rows = text.partition('id="times"')[2].partition("</table>")[0]
    assert "TTS 99 %" in rows
    assert re.search(r"\[[\d.]+ [µm]?s, [\d.]+ [µm]?s\]</td>", rows)
    assert "never" in rows
    assert "censored" in text


def test_rows_beyond_the_page_are_in_a_zipped_file(store, tmp_path, monkeypatch):
    (tmp_path / "runs.csv").write_text("of a page of before")
    monkeypatch.setattr("experiments.report.page.ROWS_SHOWN", 7)
    text = write(store, tmp_path).read_text("utf-8")
    assert not (tmp_path / "runs.csv").exists()
    assert len(pd.read_csv(tmp_path / "runs.csv.gz")) == 30
    assert "The last 23 are only there" in text
    assert 'href="runs.csv.gz"' in text


def test_paper_style(store, tmp_path):
    """Exact widths, no conditions inside, every font embedded as TrueType, a caption beside."""
    text = write(store, tmp_path, style="paper").read_text("utf-8")
    pdfs = sorted((tmp_path / "figures").glob("*.pdf"))
    assert len(pdfs) == 6
    for path in pdfs:
        (sheet,) = PdfReader(path).pages
        assert round(float(sheet.mediabox.width) / 72, 2) in (palette.COLUMN, palette.PAGE)
        fonts = [font.get_object() for font in sheet["/Resources"]["/Font"].values()]
        assert fonts
        for font in fonts:
            inner = font["/DescendantFonts"][0].get_object() if "/DescendantFonts" in font else font
            assert inner["/Subtype"] in ("/TrueType", "/CIDFontType2")
            assert "/FontFile2" in inner["/FontDescriptor"].get_object()
        assert any("STIX" in str(font["/BaseFont"]) for font in fonts)
        said = path.with_suffix(".txt").read_text("utf-8").strip()
        assert len(said) > 40
        assert html.escape(said, quote=False)[:30] in html.unescape(text)
        drawn = " ".join(sheet.extract_text().split())
        assert said[:40] not in drawn
        tex = path.with_suffix(".tex").read_text("utf-8")
        assert f"{{{path.name}}}" in tex
        assert not re.search(r"(?<!\\)[%&#]", tex)
    with pytest.raises(ReportError, match="expected one of screen, paper"):
        write(store, tmp_path, style="poster")
    assert palette.latex("5 % of a_b ± 1") == r"5 \% of a\_b $\pm$ 1"


class Killing(InProcess):
    """Kills the process of every cell of descent, as a watchdog does."""

    def submit(self, fn, /, task, *rest):
        if task.spec.name != "descent":
            return super().submit(fn, task, *rest)
        future = Future()
        future.set_exception(WorkerDied("killed", late=True, seconds=2.1))
        return future


@pytest.mark.parametrize("solvers", [["descent"], ["descent", "greedy"]])
def test_a_solver_that_was_only_ever_killed(solvers, tmp_path):
    study = Study("s", [block(), block(12)], solvers, [0.05], seeds=[0, 1])
    run(study, tmp_path / "s.sqlite", executor=Killing(), progress=False)
    runs = load_runs(tmp_path / "s.sqlite")
    page = write(tmp_path / "s.sqlite", tmp_path / "page").read_text(encoding="utf-8")
    assert "came back later than twice its limit and a second" in page
    words = re.sub("<[^>]*>", " ", re.sub("<svg.*?</svg>", " ", page, flags=re.DOTALL))
    assert not re.search(r"\bnan\b", words)
    found = solutions(runs).set_index("solver").loc["descent"]
    # Reads that missed: no success, and no time to a solution.
    assert (found["success"] == 0).all()
    assert np.isinf(found["tts"]).all()
