"""The page of a study in a real browser: it works by mouse and by keyboard, and stays at home."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from polyprefix.report import write_page
from tests.report_records import HOSTILE, UNREADABLE, figure, write_data, write_runs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.browser

CODES = ["eng_Latn", "arb_Arab", "deu_Latn", "hin_Deva", "swh_Latn", "urd_Arab"]
METHODS = {"none": 0.4, "lora": 0.8, "prefix_tuning": 0.6}


def drawn(found: Any, select: Any, folder: Path, **_: Any) -> list[Any]:
    svg = (
        '<svg role="img" viewBox="0 0 300 80"><title>Lines</title><desc>One line</desc>'
        '<path d="M0 0L300 80" style="stroke: var(--accent)"/></svg>'
    )
    return [figure("lines", "A figure", "Its caption", svg, pd.DataFrame({"x": [1.5]}))]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of three methods and six languages, whose examples and answers are hostile."""
    data = write_data(tmp_path_factory.mktemp("data"), CODES, rows=len(HOSTILE))
    folder = tmp_path_factory.mktemp("runs")
    found = write_runs(folder, data, METHODS)
    for path in folder.glob("sib200-none-*/predictions/deu_Latn.jsonl"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows[0]["prediction"] = UNREADABLE
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    page = folder / "index.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polyprefix.report.figures.figures", drawn)
        write_page(page, found, folder, title="A <i>study</i>", examples=len(HOSTILE))
    return page


class Watched:
    """A page, and what went wrong on it."""

    def __init__(self, browser: Browser, path: Path, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.said: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.url = path.as_uri()
        self.page.goto(self.url)

    def close(self) -> None:
        self.context.close()
        assert self.said == []
        assert set(self.requests) == {self.url}


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    watched = Watched(browser, report, viewport={"width": 1280, "height": 900})
    yield watched.page
    watched.close()


def column(page: Page, place: int) -> list[float]:
    """What is seen in a column of the heat map, below the rows that stay."""
    cells = page.locator(f"#heat-1 tbody:not(.fixed) tr > :nth-child({place})")
    shown = [text.split("★")[0].split()[0] for text in cells.all_inner_texts() if text.strip()]
    return [float(text) for text in shown]


def names(page: Page) -> list[str]:
    rows = page.locator("#heat-1 tbody:not(.fixed):visible tr:not(:has(th[scope=rowgroup])) th")
    return [text.split("\n")[0] for text in rows.all_inner_texts()]


def cards(page: Page) -> Locator:
    return page.locator("ol.examples > li")


def where(page: Page) -> str:
    return page.locator(".where").inner_text()


# Texts -------------------------------------------------------------------------------------------


def test_nothing_of_the_data_is_run_or_changed(page: Page) -> None:
    assert page.evaluate("window.hacked") is None
    assert page.title() == "A <i>study</i>"
    assert page.locator("img").count() == 0
    page.locator("select.language").select_option(label="German")
    texts = page.locator("dl.fields dd[lang=de]").all_inner_texts()
    assert len(texts) == len(HOSTILE)
    for hostile in HOSTILE:
        # A line separator is white space to a reader of the page.
        assert any(text.startswith(hostile) for text in texts), hostile
    answers = " ".join(cards(page).all_inner_texts())
    assert "nothing␀at all \ufffd <img src=x onerror='window.hacked = 1'>" in answers
    assert page.evaluate("window.hacked") is None


def test_scripts_from_right_to_left_are_right(page: Page) -> None:
    """Whatever a text begins with: the first letter of a hostile one is Latin."""
    for name, tag, direction in [
        ("Urdu", "ur", "rtl"),
        ("Standard Arabic", "ar", "rtl"),
        ("Hindi", "hi", "ltr"),
        ("English", "en", "ltr"),
    ]:
        page.locator("select.language").select_option(label=name)
        fields = page.locator(f"dl.fields dd[lang={tag}]")
        assert fields.count() == len(HOSTILE)
        found = fields.evaluate_all(
            "all => all.map(e => [getComputedStyle(e).direction, getComputedStyle(e).unicodeBidi])"
        )
        assert found == [[direction, "isolate"]] * len(HOSTILE)
    page.locator("select.language").select_option(label="Urdu")
    answers = page.locator("ol.examples bdi[dir=auto]")
    assert answers.count() >= len(HOSTILE) * len(METHODS)


# Tables ------------------------------------------------------------------------------------------


def test_columns_sort_by_mouse(page: Page) -> None:
    head = page.locator("#heat-1 thead th", has_text="lora")
    before = names(page)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    shown = column(page, 6)
    assert len(shown) == 5
    assert shown == sorted(shown, reverse=True)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, 6) == sorted(shown)
    page.locator("#heat-1 thead th", has_text="Language").get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "none"
    assert names(page) == sorted(before)
    # English and the mean stay where they are.
    fixed = page.locator("#heat-1 tbody.fixed th").all_inner_texts()
    assert [text.split("\n")[0] for text in fixed] == ["English", "Mean of 5 others"]


def test_columns_sort_by_keyboard(page: Page) -> None:
    button = page.locator("#cost-table-1 thead").get_by_role("button", name="Gap")
    button.focus()
    page.keyboard.press("Enter")
    rows = page.locator("#cost-table-1 tbody tr td:last-child").all_inner_texts()
    assert [float(text) for text in rows] == sorted(map(float, rows), reverse=True)
    page.keyboard.press("Space")
    again = page.locator("#cost-table-1 tbody tr td:last-child").all_inner_texts()
    assert again == rows[::-1]
    assert page.evaluate("document.activeElement.textContent") == "Gap"
    # Thousands are numbers, and what is empty comes last whichever way.
    training = page.locator("#cost-table-1 thead").get_by_role("button", name="Training")
    for _ in range(2):
        training.click()
        last = page.locator("#cost-table-1 tbody tr:last-child th").inner_text()
        assert last == "none"
    page.locator("#cost-table-1 thead").get_by_role("button", name="Trainable").click()
    first = page.locator("#cost-table-1 tbody th").all_inner_texts()
    assert [text.replace(" ★", "") for text in first] == ["prefix_tuning", "lora", "none"]


def test_languages_are_grouped(page: Page) -> None:
    single = dict(zip(names(page), column(page, 6), strict=True))
    page.get_by_label("Group by").focus()
    page.keyboard.press("ArrowDown")
    heads = page.locator("#heat-1 tbody.grouped th[scope=rowgroup]")
    groups = [text.replace("\n", " ") for text in heads.all_inner_texts()]
    assert groups == [
        "Afro-Asiatic 1 language",
        "Atlantic-Congo 1 language",
        "Indo-European mean of 3 languages",
    ]
    means = page.locator("#heat-1 tbody.grouped:nth-of-type(5) tr:first-child td").all_inner_texts()
    expected = sum(single[name] for name in ("German", "Hindi", "Urdu")) / 3
    assert float(means[4]) == pytest.approx(expected, abs=0.0006)
    assert sorted(names(page)) == sorted(single)
    page.get_by_label("Group by").select_option("level")
    heads = page.locator("#heat-1 tbody.grouped th[scope=rowgroup]")
    assert all(text.startswith("Resources ") for text in heads.all_inner_texts())
    page.get_by_label("Group by").select_option("script")
    assert page.locator("#heat-1 tbody.grouped").count() == 3
    page.get_by_label("Group by").select_option("")
    assert page.locator("#heat-1 tbody.grouped").count() == 0
    assert list(single) == names(page)


def test_gaps_are_the_other_view(page: Page) -> None:
    scores = column(page, 6)
    source = float(page.locator("#heat-1 tbody.fixed td").nth(4).inner_text().split("★")[0][:5])
    page.locator("input[value=scores]").focus()
    page.keyboard.press("ArrowRight")
    gaps = column(page, 6)
    assert gaps == pytest.approx([source - score for score in scores], abs=0.0011)
    head = page.locator("#heat-1 thead th", has_text="lora")
    head.get_by_role("button").click()
    assert column(page, 6) == sorted(gaps, reverse=True)
    page.keyboard.press("Shift+Tab")
    page.locator("input[value=scores]").check()
    assert column(page, 6) == sorted(scores, reverse=True)


# Examples ----------------------------------------------------------------------------------------


def test_examples_are_paged_by_keyboard(page: Page) -> None:
    count = len(CODES) * len(HOSTILE)
    assert where(page) == f"1 to 10 of {count}"
    assert cards(page).count() == 10
    first = cards(page).first.inner_text()
    following = page.get_by_role("button", name="Next")
    following.focus()
    page.keyboard.press("Enter")
    assert where(page) == f"11 to 20 of {count}"
    assert cards(page).first.inner_text() != first
    assert page.evaluate("document.activeElement.textContent") == "Next"
    for _ in range(5):
        page.keyboard.press("Enter")
    assert where(page).endswith(f"to {count} of {count}")
    assert following.get_attribute("aria-disabled") == "true"
    page.get_by_role("button", name="Previous").click()
    assert where(page) != f"1 to 10 of {count}"


def test_examples_are_filtered(page: Page) -> None:
    data = json.loads(page.locator("#examples-data-1").text_content() or "")
    lora = [method["name"] for method in data["methods"]].index("lora")
    page.locator("select.method").select_option(label="lora")
    for outcome, right in (("right", 2), ("part", 1), ("wrong", 0)):
        page.locator("select.outcome").select_option(outcome)
        wanted = [example for example in data["examples"] if sum(example["s"][lora]) == right]
        assert wanted
        assert where(page).endswith(f"of {len(wanted)}")
        cells = page.locator("ol.examples tbody tr", has=page.locator("th", has_text="lora"))
        assert all(outcome in text for text in cells.all_inner_texts())
    page.locator("select.method").select_option("")
    page.locator("select.outcome").select_option("differ")
    differ = [e for e in data["examples"] if len({sum(s) for s in e["s"]}) > 1]
    assert 0 < len(differ) < len(data["examples"])
    assert where(page).endswith(f"of {len(differ)}")
    page.locator("select.outcome").select_option("")
    page.locator("select.language").select_option(label="Swahili")
    assert where(page) == f"1 to {len(HOSTILE)} of {len(HOSTILE)}"
    assert all("Swahili" in text for text in page.locator("ol.examples h4").all_inner_texts())


def test_examples_are_searched_by_keyboard(page: Page) -> None:
    box = page.get_by_role("searchbox", name="Text")
    box.focus()
    page.keyboard.type("SENTENSI 2")
    assert where(page) == "1 to 1 of 1"
    assert "Swahili" in cards(page).inner_text()
    page.keyboard.press("Control+A")
    page.keyboard.type("(a+)+[")
    assert where(page) == "No example is like that"
    assert cards(page).count() == 0


# Looks and access --------------------------------------------------------------------------------


def test_dark_is_asked_for_or_chosen(browser: Browser, report: Path) -> None:
    watched = Watched(browser, report, color_scheme="dark")
    page = watched.page
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    button = page.get_by_role("button", name="Dark theme")
    assert button.get_attribute("aria-pressed") == "true"
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert page.evaluate(paper) == "rgb(255, 255, 255)" != dark
    button.click()
    assert page.evaluate(paper) == dark
    page.emulate_media(media="print")
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert page.locator("#heat-1").is_visible()
    watched.close()


def test_everything_that_can_be_used_has_a_name(page: Page) -> None:
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    roles = {
        "button", "combobox", "searchbox", "radio", "link", "table", "region", "navigation",
        "img", "image", "group", "search",
    }  # fmt: skip
    found = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in roles
    ]
    assert {"button", "combobox", "searchbox", "radio", "link", "table", "region"} <= {
        role for role, _ in found
    }
    unnamed = [role for role, name in found if not name.strip() and role != "group"]
    assert unnamed == []
    landmarks = {node["role"]["value"] for node in nodes if not node.get("ignored")}
    assert {"banner", "main", "navigation", "contentinfo", "search"} <= landmarks


def test_headings_tables_and_ids_are_in_order(page: Page) -> None:
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(e => Number(e.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert page.evaluate("[...document.querySelectorAll('table')].every(t => t.caption)")
    assert page.evaluate("[...document.querySelectorAll('th')].every(t => t.scope)")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_the_first_stop_skips_to_the_report(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    box = page.locator(".skip").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_the_focus_is_seen(page: Page) -> None:
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "theme"
    style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    width = page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)")
    assert style == "solid"
    assert width >= 2


LOW_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const low = [];
  let count = 0;
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].filter(n => n.nodeType === 3).map(n => n.data).join("");
    if (!text.trim() || !element.checkVisibility()) continue;
    if (element.closest("svg, script, option")) continue;
    const [a, b] = [light(rgba(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    count += 1;
    if (ratio < 4.5) low.push(`${element.tagName} ${element.className} ${text.trim()}: ${ratio}`);
  }
  return [count, low];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["scores", "gaps"])
def test_texts_stand_out(browser: Browser, report: Path, scheme: Any, view: str) -> None:
    watched = Watched(browser, report, color_scheme=scheme)
    watched.page.locator(f"input[value={view}]").check()
    for details in watched.page.locator("summary").all():
        details.click()
    count, low = watched.page.evaluate(LOW_CONTRAST)
    assert count > 200
    assert low == []
    watched.close()


def test_every_shade_stands_out(page: Page) -> None:
    """The heat map of a small study need not have all of them."""
    page.evaluate(
        """() => { for (let n = 0; n < 9; n++) {
          const cell = document.querySelector("#heat-1 tbody.rows").rows[0].insertCell();
          cell.className = `s${n}`;
          cell.textContent = `shade ${n}`;
        } }"""
    )
    _, low = page.evaluate(LOW_CONTRAST)
    assert low == []
    assert "shade 8" in page.locator("#heat-1").inner_text()


@pytest.mark.parametrize("width", [400, 800])
def test_a_narrow_window_has_all(browser: Browser, report: Path, width: int) -> None:
    watched = Watched(browser, report, viewport={"width": width, "height": 800})
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
    heat = watched.page.locator("#heat-1 thead th", has_text="prefix_tuning")
    heat.get_by_role("button").click()
    assert heat.get_attribute("aria-sort") == "descending"
    assert watched.page.locator("select.language").is_visible()
    watched.close()


def test_figures_are_drawn_with_their_numbers(page: Page) -> None:
    shown = page.locator("figure")
    box = shown.locator("svg").bounding_box()
    assert box is not None
    assert box["width"] > 250
    assert not shown.locator("table").is_visible()
    shown.locator("summary").focus()
    page.keyboard.press("Enter")
    assert shown.locator("td").inner_text() == "1.5"


def test_without_scripts_the_numbers_are_there(browser: Browser, report: Path) -> None:
    watched = Watched(browser, report, java_script_enabled=False)
    page = watched.page
    assert page.locator("#heat-1").is_visible()
    assert not page.locator(".controls").first.is_visible()
    assert "Browsing them needs JavaScript" in page.locator("main").inner_text()
    watched.close()
