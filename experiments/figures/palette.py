"""How figures look: one colour and one marker per solver everywhere, one line style per track.

Colours are those of Okabe and Ito (2008) and Tol (2021), told apart by colour-blind readers; the
marker says the same again for a grey print.
"""

from __future__ import annotations

import hashlib
import math
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import matplotlib as mpl
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import hsv_to_rgb, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from experiments.errors import ReportError
from experiments.figures.methods import FIRST_TUNED, LOOP, REPAIRED, TUNED
from solvers import registry

if TYPE_CHECKING:
    import pandas as pd

COLUMN = 3.4
"""Width of one column of a paper, inches."""
PAGE = 7.0
"""Width of both columns, inches."""
PIXELS = 200
"""Per inch of a PNG."""


class Style(NamedTuple):
    """Colour and matplotlib marker of one solver."""

    colour: str
    marker: Any


_CHOSEN = {
    "greedy": Style("#000000", "X"),
    "descent": Style("#0072B2", "o"),
    "annealing": Style("#56B4E9", "s"),
    "tabu": Style("#999933", "p"),
    "tempering": Style("#88CCEE", "8"),
    "reference-sa": Style("#AA7744", "x"),
    "relaxation": Style("#009E73", "D"),
    "exact": Style("#117733", (5, 1, 0)),
    "milp": Style("#4477AA", (7, 1, 0)),
    "miqp": Style("#AA4466", (7, 0, 0)),
    "enumerate": Style("#666666", "*"),
    "neal": Style("#D55E00", "^"),
    "ocean-tabu": Style("#E69F00", "v"),
    "steepest-descent": Style("#CC79A7", "<"),
    "path-integral": Style("#882255", ">"),
    "random": Style("#999999", "d"),
    "qaoa-aer": Style("#332288", "P"),
    "qaoa-braket-local": Style("#AA4499", "h"),
    # Tuples are stars of so many points.
    "qaoa-xy-aer": Style("#5E4FA2", (4, 1, 0)),
    "qaoa-xy-braket-local": Style("#C51B7D", (6, 1, 0)),
    "qaoa-subspace": Style("#01665E", (3, 1, 0)),
    "qaoa-braket": Style("#CC6677", (4, 0, 45)),
    "qaoa-xy-braket": Style("#882E72", (6, 0, 0)),
    "qaoa-xy-ibm": Style("#0F62FE", (4, 1, 45)),
    "qaoa-qiskit-optimizer": Style("#661100", "H"),
    "qpu": Style("#44AA99", (8, 1, 0)),
    "leap-hybrid-cqm": Style("#DDCC77", (9, 1, 0)),
    "leap-hybrid-nl": Style("#8C6D1F", (5, 1, 36)),
}


def looks(names: Iterable[str]) -> dict[str, Style]:
    """A look for every solver, no colour and no marker twice: chosen ones first, then spare ones.

    Args:
        names: solvers; those without a chosen look get the next spare one, in this order.
    """
    found = dict(_CHOSEN)
    for number, name in enumerate(name for name in names if name not in _CHOSEN):
        # Hues a golden section apart stay apart however many there are; so do stars by points.
        hue = (0.08 + number * 0.6180339887) % 1
        colour = to_hex(hsv_to_rgb((hue, 0.75, 0.55)).tolist())
        found[name] = Style(colour, (10 + number, 1, 0))
    return found


SOLVERS = looks(registry.SOLVERS)
"""The look of every registered solver."""
_SPARE_COLOURS = ("#88CCEE", "#44AA99", "#DDCC77", "#CC6677", "#6699CC", "#AA4466", "#4477AA")
_SPARE_MARKERS = ("o", "s", "D", "^", "v", "<", ">", "p", "h")
SPARE = tuple(
    Style(colour, _SPARE_MARKERS[(place + turn) % len(_SPARE_MARKERS)])
    for turn in (0, 4)
    for place, colour in enumerate(_SPARE_COLOURS)
)
"""Looks for what is no solver."""
MIXERS = {
    "complete": Style("#0072B2", "o"),
    "ring": Style("#E69F00", "s"),
    "grover": Style("#009E73", "^"),
    "x": Style("#CC79A7", "v"),
}
"""Mixers of QAOA, in figures where no other solver has these colours."""
METHOD_LOOKS = {
    "magnitude": Style("#999999", "v"),
    "gradient": Style("#CC79A7", "<"),
    "random": Style("#BBBBBB", "d"),
    "wanda": Style("#E69F00", "s"),
    "rows": Style("#56B4E9", ">"),
    "sparsegpt": Style("#D55E00", "^"),
    "cbs": Style("#882255", "P"),
    FIRST_TUNED: Style("#F0C040", "p"),
    LOOP: Style("#0072B2", "o"),
    REPAIRED: Style("#009E73", "D"),
    TUNED: Style("#332288", "h"),
}
"""Ways to prune a whole model."""
LINES: dict[str, Literal["-", "--"]] = {"native": "-", "penalised": "--"}
FISHERS = {
    "sequence": Style("#0072B2", "o"),
    "position": Style("#D55E00", "^"),
    "": Style("#009E73", "s"),
    "reconstruction": Style("#009E73", "s"),
    "reconstruction, 2:4": Style("#CC79A7", "D"),
    "mix": Style("#E69F00", "v"),
}
STAGES = {
    "build": ("#BBBBBB", ""),
    "convert": ("#E69F00", "//"),
    "preprocess": ("#F0E442", ""),
    "training": ("#332288", "++"),
    "queue": ("#882255", "xx"),
    "execute": ("#0072B2", ""),
    "decode": ("#56B4E9", "\\\\"),
    "repair": ("#D55E00", ""),
    "score": ("#009E73", ".."),
}
_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.4,
    "grid.color": "#DDDDDD",
    "lines.linewidth": 1.0,
    "lines.markersize": 4.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "hatch.linewidth": 0.5,
    # TrueType, so that text stays text in a PDF; outlines in SVG, so that it needs no font.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "path",
}
_PAPER: dict[Any, Any] = {
    # Times-like, part of matplotlib, and another for the signs it lacks.
    "font.family": ["STIXGeneral", "DejaVu Sans"],
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
}
STYLES = ("screen", "paper")
"""Of figures: for a page, the conditions inside; or for LaTeX, the conditions as a caption."""
_style: ContextVar[str] = ContextVar("style", default="screen")
_note: ContextVar[str] = ContextVar("note", default="")
_captions: WeakKeyDictionary[Figure, str] = WeakKeyDictionary()
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
          "†": r"\dag{}", "±": r"$\pm$", "−": "$-$", "µ": r"\textmu{}",
          **{c: f"\\{c}" for c in "&%$#_{}"}}  # fmt: skip


def style(label: str) -> Style:
    """A solver's colour and marker; an unknown label gets one that depends on nothing else."""
    if label in SOLVERS:
        return SOLVERS[label]
    return _spare(label)


def _spare(label: str) -> Style:
    pick = int(hashlib.sha256(label.encode()).hexdigest(), 16)
    colour = _SPARE_COLOURS[pick % len(_SPARE_COLOURS)]
    return Style(colour, _SPARE_MARKERS[pick // 97 % len(_SPARE_MARKERS)])


def ordered(labels: set[str]) -> list[str]:
    """Labels in one order everywhere: known solvers first, the rest by name."""
    known = list(SOLVERS)
    return sorted(labels, key=lambda s: (known.index(s) if s in known else len(known), s))


def tracks(frame: pd.DataFrame) -> dict[str, str]:
    """Track of each solver in a frame with columns solver and track; rows without one are left out.

    Args:
        frame: runs, or a table made of them.
    """
    return dict(frame.dropna(subset=["track"]).groupby("solver")["track"].first())


def fisher_style(fisher: str) -> Style:
    """Colour and marker of a curvature; one that has none gets a spare one by its name."""
    return FISHERS[fisher] if fisher in FISHERS else _spare(fisher)


@contextmanager
def look() -> Iterator[None]:
    """Within it, matplotlib draws in the style of this module; outside nothing changes."""
    with mpl.rc_context(_settings()):
        yield


def _settings() -> dict[Any, Any]:
    return _SETTINGS | _PAPER if _style.get() == "paper" else _SETTINGS


@contextmanager
def drawn_for(style: str, note: str = "") -> Iterator[None]:
    """Within it, figures are drawn and saved in one of `STYLES`.

    Args:
        style: the style.
        note: what every caption ends with.

    Raises:
        ReportError: no such style.
    """
    if style not in STYLES:
        raise ReportError(f"style is {style!r}, expected one of {', '.join(STYLES)}")
    tokens = _style.set(style), _note.set(note)
    try:
        yield
    finally:
        _style.reset(tokens[0])
        _note.reset(tokens[1])


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches, without any global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Few plain numbers on a logarithmic axis, whether it spans half a decade or five.

    Args:
        axis: ``axes.xaxis`` or ``axes.yaxis``.
        low: smallest value shown, above 0.
        high: largest value shown.
    """
    decades = math.log10(high / low)
    steps = (1.0, 2.0, 5.0) if decades < 1.5 else (1.0, 3.0) if decades < 3 else (1.0,)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def solver_handles(labels: list[str], tracks: dict[str, str]) -> list[Line2D]:
    """Legend entries: colour, marker and the line style of the track."""
    return [
        Line2D([], [], color=style(s).colour, marker=style(s).marker, label=s,
               linestyle=LINES.get(tracks.get(s, ""), ":"))
        for s in labels
    ]  # fmt: skip


def caption(figure: Figure, text: str) -> None:
    """The conditions of a figure: under it, or on paper in its caption."""
    text = f"{text} {_note.get()}".rstrip()
    _captions[figure] = text
    if _style.get() == "paper":
        return
    width = int(figure.get_figwidth() * 19.5)
    figure.supxlabel("\n".join(textwrap.wrap(text, width)), fontsize=5.5, color="#444444")


def caption_beside(figure: Figure) -> str:
    """The caption of a figure that does not carry it inside; empty for the others."""
    return _captions.get(figure, "") if _style.get() == "paper" else ""


def latex(text: str) -> str:
    """Text as LaTeX shows it."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _write_caption(figure: Figure, folder: Path, name: str) -> list[Path]:
    text = _captions.get(figure, "")
    wide = figure.get_figwidth() > COLUMN
    kind, width = ("figure*", r"\textwidth") if wide else ("figure", r"\columnwidth")
    lines = [
        rf"\begin{{{kind}}}[t]",
        r"  \centering",
        rf"  \includegraphics[width={width}]{{{name}.pdf}}",
        rf"  \caption{{{latex(text)}}}",
        rf"  \label{{fig:{name}}}",
        rf"\end{{{kind}}}",
    ]
    paths = [folder / f"{name}.tex", folder / f"{name}.txt"]
    for path, content in zip(paths, ("\n".join(lines), text), strict=True):
        path.write_text(f"{content}\n", "utf-8")
    return paths


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes PDF, SVG and PNG, on paper also the caption; equal figures give equal bytes.

    Raises:
        ReportError: the folder cannot be written.
    """
    paths = [folder / f"{name}.{suffix}" for suffix in ("pdf", "svg", "png")]
    with mpl.rc_context({**_settings(), "svg.hashsalt": name}):
        # The layout is the same in every format, and finding it is half of the work; the canvases
        # are asked directly because `Figure.savefig` draws everything twice.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        figure.set_dpi(72)
        try:
            FigureCanvasPdf(figure).print_pdf(paths[0], metadata={"CreationDate": None})
            FigureCanvasSVG(figure).print_svg(paths[1], metadata={"Date": None})
            figure.set_dpi(PIXELS)
            FigureCanvasAgg(figure).print_png(paths[2])
            if _style.get() == "paper":
                paths += _write_caption(figure, folder, name)
        except OSError as error:
            raise ReportError(f"figures cannot be written to {folder}: {error.strerror}") from error
    return paths
