"""The page: self-contained, honest, quiet in a browser."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from urllib.parse import quote, unquote

import pandas as pd
import pytest

from experiments import Store, Study, run
from experiments.errors import ReportError, StoreError
from experiments.report import write
from tests.study_fixtures import Raising, block, spec

EVIL = "layer</script><img src=x onerror=alert(1)>{{7*7}}"
NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)


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
    assert len(reader.images) == 5
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
                  "Incumbent".lower(), "CPUs usable", "dimod", "predicted"):  # fmt: skip
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
    text = write(tmp_path / "s.sqlite", tmp_path).read_text("utf-8")
    assert "RuntimeError" in text


def browse(folder, url):
    """The page's DOM after its scripts ran, and what the browser had to say."""
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={folder}", "--enable-logging=stderr", "--v=0",
         "--virtual-time-budget=5000", "--dump-dom", url],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: apt-get install chromium)")
def test_in_a_browser(page, tmp_path):
    """The probe clicks, types and turns pages as a reader would, and writes down what it sees."""
    probe = """
    <script>
    addEventListener("load", () => {
      const out = {}, table = document.getElementById("run-table");
      const column = (n) => [...table.tBodies[0].rows].map((row) => row.cells[n].textContent);
      const head = (text) => [...table.tHead.rows[0].cells].find((c) => c.textContent === text);
      out.rows = table.tBodies[0].rows.length;
      head("n").firstElementChild.click();
      out.up = column(1); out.upState = head("n").getAttribute("aria-sort");
      head("n").firstElementChild.focus();
      out.focus = document.activeElement.textContent;
      document.activeElement.click();
      out.down = column(1); out.downState = head("n").getAttribute("aria-sort");
      const filter = document.getElementById("filter");
      filter.value = "greedy position"; filter.dispatchEvent(new Event("input"));
      out.filtered = column(3); out.count = document.getElementById("count").textContent;
      const groups = document.getElementById("group-table");
      groups.tHead.rows[0].cells[2].firstElementChild.click();
      out.groups = [...groups.tBodies[0].rows].map((row) => row.cells[2].textContent);
      out.errors = window.seen; out.wide = document.documentElement.scrollWidth - innerWidth;
      document.title = "PROBE" + encodeURIComponent(JSON.stringify(out));
    });
    </script></body>"""
    watch = "<head><script>window.seen = []; onerror = (m) => { seen.push(m); };</script>"
    text = page.read_text("utf-8").replace("</body>", probe).replace("<head>", watch)
    probed = page.with_name("probed.html")
    probed.write_text(text, "utf-8")
    dom, console = browse(tmp_path / "profile", f"file://{quote(str(probed))}")
    assert console == []
    (found,) = re.findall(r"<title>PROBE(.*?)</title>", dom)
    seen = json.loads(unquote(found))
    assert seen["errors"] == []
    assert seen["rows"] == 30
    assert seen["up"] == ["8"] * 15 + ["30"] * 15
    assert seen["down"] == seen["up"][::-1]
    assert (seen["upState"], seen["downState"]) == ("ascending", "descending")
    assert seen["focus"] == "n"
    assert seen["filtered"] == ["greedy"] * 3
    assert seen["count"] == "1 to 3 of 3 runs"
    assert seen["groups"] == sorted(seen["groups"])
    assert seen["wide"] <= 0
