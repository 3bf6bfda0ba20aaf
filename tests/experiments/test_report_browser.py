"""The page in a real browser: quiet, sorted by mouse and keyboard, sane to a screen reader."""

import base64
import hashlib
import shutil
import subprocess
import tarfile

import pytest

from experiments import Study, run
from experiments.report.page import write
from icbs.fetch import cache_dir
from tests.study_fixtures import Raising, block, spec

sync_api = pytest.importorskip("playwright.sync_api")

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update",
         "--disable-sync"]  # fmt: skip
AXE = "4.14.1"
AXE_HASH = (
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
)

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium here (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    blocks = [block(8), block(30, fisher="position", layer="<b>&", curvature=3.0)]
    solvers = ["greedy", "relaxation", "enumerate", "random", spec(Raising)]
    study = Study("s", blocks, solvers, [0.02], seeds=range(3))
    run(study, folder / "s.sqlite", progress=False)
    return write(folder / "s.sqlite", folder / "page")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def opened(browser, page_file, request):
    """The page at 1280 pixels, with what it said and asked for."""
    scheme, width = getattr(request, "param", ("light", 1280))
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, offline=True
    )
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda sent: asked.append(sent.url))
    page.goto(page_file.as_uri())
    yield page
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
    context.close()


@pytest.fixture(scope="module")
def axe():
    """The source of axe-core: from npm, its hash pinned, kept in the cache."""
    npm = shutil.which("npm")
    folder = cache_dir() / "axe-core"
    archive = folder / f"axe-core-{AXE}.tgz"
    if not archive.exists():
        if npm is None:
            pytest.skip("no npm here to fetch axe-core with (Debian: apt-get install npm)")
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [npm, "pack", f"axe-core@{AXE}", "--pack-destination", str(folder), "--silent"],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"npm could not fetch axe-core: {done.stderr.strip()[-200:]}")
    content = archive.read_bytes()
    assert base64.b64encode(hashlib.sha512(content).digest()).decode() == AXE_HASH
    with tarfile.open(archive) as package:
        return package.extractfile("package/axe.min.js").read().decode()


def column(page, table, index):
    return page.eval_on_selector_all(
        f"#{table} tbody tr", f"rows => rows.map((row) => row.cells[{index}].textContent)"
    )


BOTH = [(scheme, width) for scheme in ("light", "dark") for width in (1280, 390)]


@pytest.mark.parametrize("opened", BOTH, indirect=True)
def test_axe_has_nothing_to_say(opened, axe):
    opened.evaluate(axe)
    found = opened.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert found["passes"]
    broken = [(rule["id"], rule["impact"], rule["nodes"][0]["html"][:120])
              for rule in found["violations"]]  # fmt: skip
    assert broken == []


@pytest.mark.parametrize("opened", BOTH, indirect=True)
def test_nothing_sticks_out(opened):
    assert opened.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    widths = opened.eval_on_selector_all("figure img", "all => all.map((i) => i.naturalWidth)")
    assert len(widths) == 5
    assert min(widths) > 100


def test_axe_would_have_said_something(opened, axe):
    """The check of the check: a picture without a text, and grey on grey."""
    opened.evaluate("document.querySelector('figure img').removeAttribute('alt')")
    opened.evaluate("document.querySelector('h1').style.color = '#eee'")
    opened.evaluate(axe)
    found = opened.evaluate("axe.run()")["violations"]
    assert {"image-alt", "color-contrast"} <= {rule["id"] for rule in found}


def test_sorting_by_mouse(opened):
    head = opened.locator("#run-table th", has_text="n").filter(
        has=opened.get_by_text("n", exact=True)
    )
    head.get_by_role("button").click()
    assert column(opened, "run-table", 1) == ["8"] * 15 + ["30"] * 15
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").click()
    assert column(opened, "run-table", 1) == ["30"] * 15 + ["8"] * 15
    assert head.get_attribute("aria-sort") == "descending"


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_sorting_by_keyboard(opened, key):
    """Nothing but Tab and a key: the header is reached, shows that it is, and sorts."""
    opened.locator("#ranks").evaluate("table => table.closest('.scroll').focus()")
    for _ in range(9):
        opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.textContent") == "median wall"
    assert opened.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    opened.keyboard.press(key)
    walls = opened.eval_on_selector_all(
        "#ranks tbody tr", "rows => rows.map((row) => Number(row.cells[8].dataset.sort))"
    )
    assert len(set(walls)) > 1
    assert walls == sorted(walls)
    header = opened.evaluate("document.activeElement.parentElement.getAttribute('aria-sort')")
    assert header == "ascending"


def test_filter_and_skip_link(opened):
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.className") == "skip"
    opened.fill("#filter", "greedy token")
    assert column(opened, "run-table", 0) == ["greedy"] * 3
    assert opened.inner_text("#count") == "1 to 3 of 3 runs"
    opened.fill("#filter", "no such thing")
    assert opened.inner_text("#count") == "no run matches"


def test_print_shows_findings_and_no_controls(opened):
    opened.emulate_media(media="print")
    assert not opened.is_visible("nav")
    assert not opened.is_visible("#filter")
    assert opened.is_visible("#ranks")
    assert opened.eval_on_selector(".scroll", "e => getComputedStyle(e).overflowX") == "visible"


def test_figures_open_large_and_close(opened):
    """Offline, without leaving the page: text of six points is then legible on a phone."""
    opened.set_viewport_size({"width": 390, "height": 800})
    small = opened.locator("a.large img").first
    assert small.bounding_box()["width"] < 390
    small.click()
    large = opened.locator("#large img")
    assert large.bounding_box()["width"] >= 1000
    assert large.get_attribute("alt") == small.get_attribute("alt")
    opened.get_by_role("button", name="Fit to the screen").click()
    assert large.bounding_box()["width"] <= 390
    opened.get_by_role("button", name="Close").click()
    assert not large.is_visible()


@pytest.mark.parametrize("opened", BOTH, indirect=True)
def test_wide_tables_say_that_they_scroll_and_others_do_not(opened):
    # What changes a size is seen a moment later, on a busy machine much later.
    opened.wait_for_function(
        "[...document.querySelectorAll('.scroll')].every((box) =>"
        " box.previousElementSibling.classList.contains('overflows') =="
        " (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight))"
    )
    wide = opened.eval_on_selector_all(
        ".scroll", "all => all.map((box) => [box.scrollWidth > box.clientWidth,"
        " box.scrollHeight > box.clientHeight, box.previousElementSibling.textContent,"
        " getComputedStyle(box.previousElementSibling).display !== 'none'])"
    )  # fmt: skip
    for sideways, down, text, told in wide:
        assert told == (sideways or down)
        assert not told or ("sideways" in text, "down" in text) == (sideways, down)
    assert {told for *_, told in wide} == {True, False}
    assert {down for _, down, *_ in wide} == {True, False}
    opened.emulate_media(media="print")
    assert not any(hint.is_visible() for hint in opened.locator(".hint").all())


def test_on_a_phone_the_solver_stays_and_what_matters_is_first(opened):
    opened.set_viewport_size({"width": 390, "height": 800})
    box = opened.locator("#ranks").locator("xpath=..")
    names = box.locator("th").all_inner_texts()
    assert [name.strip() for name in names[:4]] == ["solver", "n", "rank", "median gap"]
    edge = box.bounding_box()["x"] + box.bounding_box()["width"]
    gap = box.locator("tbody td").nth(3).bounding_box()
    assert gap["x"] + gap["width"] <= edge
    first = box.locator("tbody td").first
    before = first.bounding_box()["x"]
    box.evaluate("box => box.scrollTo(200, 0)")
    assert abs(first.bounding_box()["x"] - before) < 2
    # Long texts are rows on top of each other, and nothing scrolls sideways.
    assert opened.locator("#failure-table").evaluate(
        "table => table.parentElement.scrollWidth <= table.parentElement.clientWidth"
    )


@pytest.mark.parametrize("opened", BOTH, indirect=True)
def test_an_interval_stays_on_its_line(opened):
    """No cell of an interval is higher than one of a plain number."""
    heights = opened.eval_on_selector_all(
        "#ranks td, #times td, #group-table td",
        "all => all.map((cell) => [cell.textContent.startsWith('['), cell.offsetHeight])",
    )
    intervals = {height for interval, height in heights if interval}
    assert intervals
    assert intervals <= {height for interval, height in heights if not interval}
    assert max(intervals) < 40
