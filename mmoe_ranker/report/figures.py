"""Matplotlib figures as SVG inside the page: its fonts, its colours in light and dark, a label for screen readers.

Figures are drawn with stand-in colours, which become the page's CSS variables; text stays text, in the page's font.
"""

from __future__ import annotations

import dataclasses
import io
import re
import textwrap
from collections.abc import Callable
from typing import Any

import cycler
import matplotlib
import matplotlib.pyplot as plt
from markupsafe import Markup
from matplotlib.figure import Figure

from mmoe_ranker.plots.curves import COLORS

_SERIES = tuple(f"#fe00{place:02x}" for place in range(1, 9))
_INK, _GRID = "#fd0001", "#fd0002"
_BLACK = "#000000"
_VARIABLES = {
    **{color.lower(): f"var(--series-{place})" for place, color in enumerate(COLORS, start=1) if color != _BLACK},
    **{color: f"var(--series-{place})" for place, color in enumerate(_SERIES, start=1)},
    _INK: "var(--ink)",
    _GRID: "var(--grid)",
}
# Beside a second figure, and on a phone, text must stay readable: figures are drawn narrower than for a screen alone.
_NARROWER, _LOWER = 0.8, 0.9
_WIDE_INCHES = 7.0
# Of a legend, over its columns; and of a label, an inch.
_LETTERS = 64
_LETTERS_AN_INCH = 11

_STYLE: dict[str, Any] = {
    "axes.prop_cycle": cycler.cycler(color=_SERIES),
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.7,
    "grid.color": _GRID,
    "legend.labelcolor": _INK,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "mmoe_ranker",
    "text.color": _INK,
    # A name from a log may hold dollar signs.
    "text.parse_math": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


@dataclasses.dataclass(frozen=True)
class PageFigure:
    """A figure of the page.

    Attributes:
      svg: the drawing.
      title: what it shows, in a few words.
      reading: a sentence on how to read it.
      wide: whether it takes the page's full width.
    """

    svg: Markup
    title: str
    reading: str
    wide: bool


def page_figure(draw: Callable[[], Figure], name: str, title: str, reading: str) -> PageFigure:
    """Draws a figure for the page.

    Args:
      draw: makes the figure; colours, fonts and sizes that it leaves alone become the page's.
      name: letters and digits, of no other figure of the page.
      title: what it shows; the caption's first words, and the drawing's label.
      reading: a sentence on how to read it.
    """
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = draw()
        try:
            width, height = figure.get_size_inches()
            figure.set_size_inches(width * _NARROWER, height * _LOWER)
            _legend_above(figure)
            _wrap_labels(figure)
            titled = [axes for axes in figure.axes if axes.get_title(plt.rcParams["axes.titlelocation"])]
            if len(titled) == 1:  # the caption says it
                titled[0].set_title("")
            written = io.StringIO()
            figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
        finally:
            plt.close(figure)
    wide = width > _WIDE_INCHES
    return PageFigure(Markup(_inlined(written.getvalue(), name, f"{title}. {reading}")), title, reading, wide)


def _legend_above(figure: Figure) -> None:
    """Moves the legend of a single plot out of the way of its curves, which are drawn smaller here."""
    legends = [(axes, legend) for axes in figure.axes if (legend := axes.get_legend()) is not None]
    if len(legends) != 1:
        return
    axes, legend = legends[0]
    handles, labels = axes.get_legend_handles_labels()
    legend.remove()
    columns = next((fit for fit in (4, 3, 2) if max(map(len, labels), default=0) <= _LETTERS // fit - 4), 1)
    figure.legend(handles, labels, frameon=False, loc="outside upper left", ncols=columns, fontsize=9)


def _wrap_labels(figure: Figure) -> None:
    """Breaks labels of axes that are longer than the axis."""
    for axes in figure.axes:
        height = figure.get_size_inches()[1] * axes.get_position().height
        axes.set_ylabel(textwrap.fill(axes.get_ylabel(), max(12, int(height * _LETTERS_AN_INCH))))


def _inlined(svg: str, name: str, label: str) -> str:
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    # Names are the page's now, where other figures have the same.
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(url\(|href=")#', rf"\1#{name}-", body)
    for color, variable in _VARIABLES.items():
        body = body.replace(color, variable)
    if "<image" not in body:  # on the cells of a heat map, black is read in the dark too
        body = body.replace(_BLACK, "var(--ink)")
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body).groups()  # type: ignore[union-attr]
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{Markup.escape(label)}"'
    head += f' style="max-width: {float(width) * 1.45:.0f}px">'
    return re.sub(r"<svg[^>]*>", lambda _: head, body, count=1).strip()
