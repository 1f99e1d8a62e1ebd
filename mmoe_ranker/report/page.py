"""The report's page: every section that there is something to say on, in one HTML file that needs nothing beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mmoe_ranker.report.document import Section


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The page as HTML; every text in it is escaped.

    Args:
      title: of the page.
      subtitle: a sentence below.
      sections: in their order.
    """
    environment = Environment(
        loader=PackageLoader("mmoe_ranker", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = _prose
    return environment.get_template("page.html.jinja").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        css=_file("style.css"),
        javascript=_file("page.js") + _file("explorer.js"),
    )


def _prose(text: str) -> Markup:
    """A sentence: what stands in back-ticks is code, and no line breaks between a number and its percent sign."""
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"(\d) %", "\\1\N{NO-BREAK SPACE}%", escaped))


def _file(name: str) -> Markup:
    # Our own files, which go in as they are.
    return Markup(resources.files("mmoe_ranker.report").joinpath(name).read_text(encoding="utf-8"))
