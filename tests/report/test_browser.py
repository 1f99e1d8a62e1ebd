"""The page in headless Chromium: it computes as the package does, needs no network, and can be read everywhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import yaml

from mmoe_ranker.weight_report import score_block
from mmoe_ranker.weight_search import search_weights
from tests.report.conftest import Written
from tests.report.decoding import Embedded
from tests.report.worlds import evaluation_in, report_config, report_predictions

_CONFIG = [1.0, 0.5, 0.3, 2.0]

# Text whose contrast with what is behind it is below WCAG's AA, 4.5 to 1; not of a heat map, whose cells lie behind it.
_LOW_CONTRAST = """() => {
  const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((one) => one / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const [r, g, b, a = 1] = rgba(getComputedStyle(one).backgroundColor);
      if (a > 0) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.getClientRects().length || node.closest("script, style, figure:has(image)")) continue;
    const style = getComputedStyle(node);
    if (node.closest("svg") && style.fill === "none") continue;
    const front = light(rgba(node.closest("svg") ? style.fill : style.color).slice(0, 3));
    const back = light(behind(node));
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    if (ratio < 4.5) low.push(`${node.tagName} ${node.textContent.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return low;
}"""


class Page:
    """A page in a tab of its own, with what it said and asked for."""

    def __init__(self, browser: Any, written: Written, **context: Any) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.tab = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | context).new_page()
        self.tab.on("console", lambda message: self.errors.append(message.text))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.url = written.file.as_uri()
        self.tab.goto(self.url)

    @property
    def ndcg(self) -> dict[str, float]:
        """By label, what the explorer's table says now, unrounded."""
        return self.tab.evaluate(
            """() => Object.fromEntries([...document.querySelectorAll('tr[id^="ndcg-"]')].map((row) => [
                row.cells[0].firstChild.textContent.trim(), Number(row.cells[2].dataset.value)]))"""
        )

    @property
    def weights(self) -> list[float]:
        """What the number fields say."""
        return self.tab.evaluate(
            "[...document.querySelectorAll('.weights [type=number]')].map((one) => one.valueAsNumber)"
        )

    @property
    def yaml(self) -> str:
        """What is there to paste."""
        return self.tab.text_content("#explorer-yaml")


@pytest.fixture(scope="module")
def embedded(written: Written) -> Embedded:
    return Embedded.of(written.html)


@pytest.fixture(scope="module")
def open_page(browser: Any, written: Written) -> Iterator[Page]:
    """One tab for the tests that leave the page as they found it, or reset it first."""
    page = Page(browser, written)
    yield page
    page.tab.context.close()


@pytest.fixture
def page(open_page: Page) -> Page:
    open_page.tab.click("#explorer-reset")
    open_page.tab.select_option("#axis-x", label="click")
    open_page.tab.select_option("#axis-y", label="watch_time")
    return open_page


def test_says_no_error_and_asks_for_nothing(page: Page) -> None:
    page.tab.select_option("#axis-y", label="dismiss")
    page.tab.click("text=Best for click")
    page.tab.mouse.wheel(0, 20_000)
    page.tab.wait_for_timeout(100)
    assert page.errors == []
    assert page.requests == [page.url]


def test_starts_with_the_config(page: Page, embedded: Embedded) -> None:
    assert page.weights == _CONFIG
    assert page.ndcg == pytest.approx(embedded.ndcg(_CONFIG), abs=1e-9)
    assert page.tab.text_content("#ndcg-0 td.change") == "+0.0000"


def test_a_slider_orders_anew_by_keyboard_alone(page: Page, embedded: Embedded) -> None:
    page.tab.focus("#slider-0")
    for _ in range(30):
        page.tab.keyboard.press("ArrowRight")
    page.tab.keyboard.press("Tab")  # to its number
    page.tab.keyboard.press("Tab")
    page.tab.keyboard.press("Home")  # of watch_time: to the end of the slider
    weights = page.weights
    assert weights[0] > 1.2
    assert weights[1] == 0.0
    expected = embedded.ndcg(weights)
    assert page.ndcg == pytest.approx(expected, abs=1e-6)
    changed = {name: value for name, value in embedded.ndcg(_CONFIG).items() if abs(value - expected[name]) > 1e-3}
    assert changed
    terms = yaml.safe_load(page.yaml)["combined_score"]["terms"]
    assert [term["weight"] for term in terms.values()] == weights


def test_the_table_shows_the_change_and_its_interval(page: Page, embedded: Embedded) -> None:
    page.tab.fill("#weight-2", "3.125")
    now, before = embedded.ndcg_by_request([1.0, 0.5, 3.125, 2.0])["like"], embedded.ndcg_by_request(_CONFIG)["like"]
    change = (now - before)[~np.isnan(now)]
    cells = page.tab.evaluate("[...document.getElementById('ndcg-2').cells].map((cell) => cell.textContent)")
    half = 1.96 * change.std(ddof=1) / np.sqrt(len(change))
    expected = [np.nanmean(before), np.nanmean(now), change.mean(), half]
    shown = [float(cell.replace("\N{MINUS SIGN}", "-")) for cell in cells[1:5]]
    assert shown == pytest.approx(expected, abs=5.1e-5)
    assert cells[5] == str(len(change))
    coloured = page.tab.get_attribute("#ndcg-2", "class")
    assert coloured == ("" if abs(change.mean()) <= half else "better" if change.mean() > 0 else "worse")


def test_the_yaml_is_that_of_score_weights(page: Page, written: Written) -> None:
    assert written.validation is not None
    config = written.validation.config
    search = search_weights(written.validation.predictions, config, trials=1)
    assert page.yaml == score_block(config, search, search.points["current"])


def test_a_weight_that_the_score_refuses_is_not_taken(page: Page) -> None:
    page.tab.fill("#weight-3", "-1")  # dismiss is a complement
    page.tab.fill("#weight-0", "")
    page.tab.press("#weight-0", "Enter")
    assert yaml.safe_load(page.yaml)["combined_score"]["terms"]["dismiss"]["weight"] == 2.0
    assert page.weights[0] == 1.0


def test_reset_gives_the_exact_config_back(page: Page) -> None:
    page.tab.fill("#weight-0", "1e-7")
    assert yaml.safe_load(page.yaml)["combined_score"]["terms"]["click"]["weight"] == 1e-7
    page.tab.click("#explorer-reset")
    before, ndcg = page.yaml, page.ndcg
    page.tab.fill("#weight-0", "0.123456789")
    assert page.yaml != before
    page.tab.click("#explorer-reset")
    assert (page.yaml, page.ndcg, page.weights) == (before, ndcg, _CONFIG)


def test_the_pareto_plot_follows(page: Page, embedded: Embedded) -> None:
    sweep = embedded.document["sweep"]
    assert page.tab.locator("#pareto .plot-point, #pareto .plot-best").count() == len(sweep)
    front = page.tab.locator("#pareto .plot-best").count()
    click, watch_time = (np.array([point["ndcg"][place] for point in sweep]) for place in (0, 1))
    beaten = [
        bool(np.any((click >= x) & (watch_time >= y) & ((click > x) | (watch_time > y))))
        for x, y in zip(click, watch_time, strict=True)
    ]
    unbeaten = {(x, y) for x, y, by in zip(click, watch_time, beaten, strict=True) if not by}
    assert front == len(unbeaten)
    place = "document.querySelector('#pareto .plot-current').getAttribute('cx')"
    before = page.tab.evaluate(place)
    page.tab.click("text=Best for click")
    assert float(page.tab.evaluate(place)) > float(before)
    assert page.ndcg["click"] == pytest.approx(max(click), abs=1e-6)


def test_no_setting_is_beaten_by_itself(page: Page, embedded: Embedded) -> None:
    ndcg = np.array([point["ndcg"][:2] for point in embedded.document["sweep"]])
    said = page.tab.evaluate(
        """() => Array.from({ length: 20 }, (_, place) => {
            const settings = document.querySelectorAll("#pareto .plot-point, #pareto .plot-best");
            settings[place].dispatchEvent(new Event("click"));
            return document.getElementById("pareto-note").textContent;
        })"""
    )
    for point, sentence in zip(ndcg, said, strict=False):
        # Equal but for rounding is equal.
        more = ndcg - point
        beating = ((more > -1e-9).all(axis=1) & (more > 1e-9).any(axis=1)).sum()
        assert sentence.startswith(f"{beating or 'None'} of the {len(ndcg)} settings ")


def test_a_setting_that_is_clicked_becomes_the_weights(page: Page, embedded: Embedded) -> None:
    page.tab.locator("#pareto .plot-best").first.dispatch_event("click")
    terms = yaml.safe_load(page.yaml)["combined_score"]["terms"]
    weights = [terms[name]["weight"] for name in embedded.score.objectives]
    (point,) = [one for one in embedded.document["sweep"] if one["weights"] == weights]
    expected = dict(zip(embedded.score.objectives, point["ndcg"], strict=True))
    assert page.ndcg == pytest.approx(expected, abs=1e-6)


def test_dismissals_are_better_the_lower(page: Page) -> None:
    page.tab.select_option("#axis-x", label="dismiss")
    ticks = page.tab.evaluate(
        """[...document.querySelectorAll('#pareto text[text-anchor="middle"]')]
            .filter((one) => one.getAttribute("y") < 320)
            .map((one) => [Number(one.getAttribute("x")), Number(one.textContent)])"""
    )
    places = [place for place, value in sorted(ticks, key=lambda tick: tick[1])]
    assert places == sorted(places, reverse=True)


def test_the_yaml_can_be_copied(page: Page) -> None:
    page.tab.click("text=Copy YAML")
    said = page.tab.locator("#copied")
    said.filter(has_text="cop").or_(said.filter(has_text="Cop")).wait_for()
    assert said.text_content() in ("Copied.", "Selected: copy it with the keyboard.")


def test_a_weighted_sum_is_computed_too(browser: Any, tmp_path: Any) -> None:
    terms: dict[str, Any] = {"click": {"weight": 2.0}, "like": {"weight": 0.7, "offset": 0.5}}
    terms["dismiss"] = {"weight": 1.5, "complement": True}
    config = report_config(combined_score={"form": "weighted_sum", "terms": terms})
    written = Written(tmp_path, evaluation_in(tmp_path / "world", config, report_predictions()))
    page, embedded = Page(browser, written), Embedded.of(written.html)
    page.tab.fill("#weight-2", "0.05")
    page.tab.fill("#weight-1", "0.01")  # watch_time has no term in the config
    assert page.ndcg == pytest.approx(embedded.ndcg([2.0, 0.01, 0.05, 1.5]), abs=1e-6)
    score = yaml.safe_load(page.yaml)["combined_score"]
    assert score["form"] == "weighted_sum"
    assert score["terms"]["watch_time"] == {"weight": 0.01, "offset": 0.0, "complement": False}
    assert page.errors == []
    page.tab.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(browser: Any, written: Written, scheme: str) -> None:
    page = Page(browser, written, color_scheme=scheme)
    assert page.tab.evaluate(_LOW_CONTRAST) == []
    page.tab.context.close()


def test_fits_a_phone(browser: Any, written: Written) -> None:
    page = Page(browser, written, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.tab.evaluate("visualViewport.scale") == 1
    wide = page.tab.evaluate(
        """[...document.querySelectorAll(".scroll")].filter((box) => box.scrollWidth > box.clientWidth)
            .map((box) => getComputedStyle(box).overflowX)"""
    )
    assert wide
    assert set(wide) == {"auto"}
    # The smallest text of a figure, as it is drawn.
    sizes = page.tab.evaluate(
        """[...document.querySelectorAll("figure svg text")].map((one) =>
            parseFloat(getComputedStyle(one).fontSize) * Math.hypot(one.getScreenCTM().a, one.getScreenCTM().b))"""
    )
    assert min(sizes) >= 7
    page.tab.context.close()


def test_prints_without_controls(browser: Any, written: Written) -> None:
    page = Page(browser, written)
    page.tab.emulate_media(media="print")
    hidden = "nav, button, #slider-0, #axis-x"
    assert not any(one.is_visible() for one in page.tab.locator(hidden).all())
    assert page.tab.evaluate("getComputedStyle(document.querySelector('pre.tall')).maxHeight") == "none"
    assert page.tab.pdf(format="A4")[:4] == b"%PDF"
    page.tab.context.close()


def test_every_control_has_a_name_and_headings_descend(page: Page) -> None:
    nameless = page.tab.evaluate(
        """[...document.querySelectorAll("input, select, button")].filter((one) =>
            !one.labels?.length && !one.getAttribute("aria-label") && !one.textContent.trim()).length"""
    )
    assert nameless == 0
    levels = page.tab.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((one) => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert max(below - above for above, below in itertools.pairwise(levels)) == 1
