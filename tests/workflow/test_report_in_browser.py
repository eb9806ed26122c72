"""The report of the smallest experiment in a real browser: Chromium without a network."""

import csv
import io
import json
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 900}
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def report(finished) -> Path:
    """The published report."""
    return finished.results / "smallest/report.html"


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium; root, as in containers, needs it without its sandbox."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, report):
    """Function that opens the report; at the end, nothing may have been wrong with any page."""
    faults: list[str] = []
    contexts = []

    def open_report(viewport=DESKTOP, **options) -> Page:
        context = browser.new_context(viewport=viewport, offline=True, **options)
        contexts.append(context)
        context.set_default_timeout(10_000)  # milliseconds
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
        page.on("request", lambda request: faults.extend(_asked(request.url, report)))
        page.goto(report.as_uri())
        return page

    yield open_report
    for context in contexts:
        context.close()
    assert faults == []


def _asked(url: str, report: Path) -> list[str]:
    return [] if url == report.as_uri() or url.startswith("data:") else [f"asked for {url}"]


def file_at(address: str) -> Path:
    """The file behind a file: address."""
    return Path(unquote(urlsplit(address).path))


def is_wider_than_its_screen(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth > innerWidth")


def open_all(page: Page) -> None:
    """Open every part that can be opened, as a reader does."""
    for part in page.locator("section details").all():
        if part.get_attribute("open") is None:
            part.locator("> summary").click()
    assert page.locator("section details:not([open])").count() == 0


def shown_answers(page: Page) -> list[str]:
    """Names of the adaptations whose answers to the first instruction can be seen."""
    names = page.locator(".question").first.locator(".answer:visible dt a")
    return names.all_inner_texts()


# --- links and files ----------------------------------------------------------------------------


def test_every_link_inside_the_page_leads_somewhere(opened):
    page = opened()
    targets = page.eval_on_selector_all(
        "a[href^='#']", "links => links.map(link => link.getAttribute('href').slice(1))"
    )
    missing = [name for name in set(targets) if page.locator(f"[id='{name}']").count() != 1]
    assert len(targets) > 20
    assert missing == []


def test_every_link_out_of_the_page_leads_to_a_file(opened, report):
    page = opened()
    links = page.eval_on_selector_all("a", "links => links.map(link => link.href)")
    files = {link for link in links if link.startswith("file:") and "#" not in link}
    assert len(files) >= page.locator(".stage li").count() > 0
    for link in files:
        assert file_at(link).is_file(), link


def test_navigation_reaches_every_part(opened):
    page = opened()
    for link in page.locator("nav a").all():
        link.click()
        target = page.locator(link.get_attribute("href"))
        assert target.is_visible()
        page.wait_for_function(
            "node => node.getBoundingClientRect().top < innerHeight", arg=target.element_handle()
        )


def test_every_csv_that_is_kept_is_the_published_file(opened, report, tmp_path):
    page = opened()
    links = page.locator("a[download]").all()
    assert links
    for link in links:
        with page.expect_download() as kept:
            link.click()
        folder = "figures" if link.locator("xpath=ancestor::figcaption").count() else "tables"
        published = report.parent / folder / kept.value.suggested_filename
        kept.value.save_as(tmp_path / "kept.csv")
        content = (tmp_path / "kept.csv").read_bytes()
        assert content == published.read_bytes()
        rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
        assert len({len(row) for row in rows}) == 1
        assert len(rows) > 1


def test_the_headline_shows_the_numbers_of_the_main_table(opened, report):
    page = opened()
    with (report.parent / "tables/main.csv").open() as file:
        means = [row for row in csv.DictReader(file) if row["seed"] == "mean"]
    rows = page.locator("table.headline tbody tr")
    assert rows.count() == len({row["adaptation"] for row in means})
    for row in means:
        cell = page.locator(f"td[data-of^='{row['adaptation']} · {row['base']} ·']")
        assert cell.inner_text().strip().startswith(f"{float(row['win_rate']):.1f}")
        assert f"[{float(row['win_rate_low']):.1f}" in cell.inner_text()


# --- what can be operated -----------------------------------------------------------------------


def test_examples_are_filtered_by_adaptation(opened):
    page = opened()
    before = shown_answers(page)
    assert {"base", "instruction", "response"} <= set(before)
    page.get_by_label("response", exact=True).uncheck()
    assert shown_answers(page) == [name for name in before if name != "response"]
    page.get_by_role("button", name="none").click()
    assert shown_answers(page) == []
    page.get_by_label("base", exact=True).check()
    assert shown_answers(page) == ["base"]
    page.get_by_role("button", name="all", exact=True).click()
    assert shown_answers(page) == before


def test_differences_from_the_reference_are_marked_when_asked_for(opened):
    page = opened()
    answer = page.locator(".question").first.locator(".answer:visible:has(.changes)").first
    text = answer.locator(".output").inner_text()
    assert not answer.locator(".changes").is_visible()
    page.get_by_label("mark what differs").check()
    assert answer.locator(".changes").is_visible()
    assert not answer.locator(".output").is_visible()
    pieces = answer.locator(".changes").evaluate(
        "node => [...node.childNodes].filter(n => n.nodeName !== 'DEL').map(n => n.textContent)"
    )
    assert "".join(pieces).strip() == text.strip() or text == "(empty)"


def test_nothing_is_lost_without_javascript(opened):
    page = opened(java_script_enabled=False)
    assert page.locator(".answer").count() == page.locator(".answer .output").count() > 0
    assert shown_answers(page)
    page.get_by_label("response", exact=True).uncheck()
    assert "response" not in shown_answers(page)
    assert not page.locator(".scripted:visible").count()
    page.locator("table.headline td.number a").first.click()
    assert "#node-" in page.url


def test_a_number_opens_the_nodes_it_was_made_from(opened, report):
    page = opened()
    cell = page.locator("td[data-of^='response · organism-llama']")
    cell.locator("a").click()
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_role("heading", level=2).inner_text().startswith("response · organism-l")
    assert "#" not in page.url  # the page behind it stays where it is
    names = dialog.locator("summary span").all_inner_texts()
    assert names[0] == "table/main"
    [judged] = names[1:]
    assert judged.startswith("judge/organism-llama/response/1/")
    dialog.locator("summary").nth(1).click()
    dialog.locator(".manifest").wait_for()
    address = dialog.locator(".manifest").evaluate("link => link.href")
    manifest = json.loads(file_at(address).read_text())
    assert manifest["key"] == dialog.locator("summary code").nth(1).inner_text()
    assert (report.parent / "current" / judged).resolve().name == manifest["key"]
    assert manifest["digest"] in dialog.inner_text()


def test_the_way_up_to_the_data_can_be_walked_and_back(opened):
    page = opened()
    page.locator("td[data-of^='response · organism-llama'] a").click()
    dialog = page.get_by_role("dialog")
    dialog.locator("summary").nth(1).click()
    for role in ("outputs", "model", "rows"):
        dialog.locator(".above li", has_text=f"{role}: ").first.locator("a").click()
    assert dialog.locator("summary span").all_inner_texts()[0].startswith("format/organism-lima/")
    assert "kind" in dialog.inner_text()
    dialog.get_by_role("button", name="back").click()
    assert dialog.locator("summary span").all_inner_texts()[0].startswith("finetune/")
    assert "learning rate" in dialog.inner_text()


def test_the_dialog_names_the_row_also_where_a_column_does_not(opened):
    page = opened()
    row = page.locator("#table-main tbody tr", has_text="response").first
    row.locator("td.number a").first.click()
    heading = page.get_by_role("dialog").get_by_role("heading", level=2)
    assert heading.inner_text() == "organism-llama · response · 1"
    assert page.locator("#table-main th", has_text="organism-llama").count() == 0


def test_the_dialog_is_operated_by_keyboard(opened):
    page = opened()
    link = page.locator("table.headline td.number a").nth(2)
    link.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.is_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('dialog') !== null")
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert link.evaluate("node => node === document.activeElement")


def test_one_number_a_row_is_on_the_way_of_the_tab_key(opened):
    page = opened()
    tables = "section[id^='table-'] tbody tr:has(td.number)"
    counts = page.eval_on_selector_all(
        tables, "rows => rows.map(row => row.querySelectorAll('a:not([tabindex])').length)"
    )
    assert set(counts) == {1}


def test_nodes_are_found_by_name(opened):
    page = opened()
    page.get_by_label("Find nodes").fill("finetune/organism-llama/chess")
    found = page.locator(".stage li:visible a").all_inner_texts()
    assert found == ["finetune/organism-llama/chess/1"]
    assert page.locator("#found").inner_text().startswith("1 of ")
    page.get_by_label("Find nodes").fill("")
    assert page.locator(".stage:visible").count() == page.locator(".stage").count()


# --- how it looks -------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(opened, scheme):
    page = opened(PHONE, color_scheme=scheme)
    assert not is_wider_than_its_screen(page)
    open_all(page)
    assert not is_wider_than_its_screen(page)
    page.locator("table.headline td.number a").first.click()
    box = page.get_by_role("dialog").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]


def test_dark_mode_is_dark_and_figures_follow(opened):
    light, dark = opened(color_scheme="light"), opened(color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('.drawing svg text')).fill"
    for page, is_dark in ((light, False), (dark, True)):
        background, text = (_brightness(page.evaluate(asked)) for asked in (paper, ink))
        assert (background < text) == is_dark
        assert abs(background - text) > 150


def _brightness(color: str) -> float:
    numbers = color.partition("(")[2].strip(")").split(",")
    return sum(map(float, numbers[:3])) / 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_no_serious_fault(opened, scheme, viewport):
    page = opened(viewport, color_scheme=scheme)
    open_all(page)
    page.get_by_label("mark what differs").check()
    assert serious_faults(page) == []
    page.locator("table.headline td.number a").first.click()
    page.locator("#origin summary").nth(1).click()
    page.locator("#origin .manifest").wait_for()
    assert serious_faults(page) == []


def serious_faults(page: Page) -> list[str]:
    found = Axe().run(page, options={"runOnly": WCAG}).response["violations"]
    return [
        f"{fault['id']}: {fault['help']}: {node['target']}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


def test_figures_have_a_name_and_a_text(opened):
    page = opened()
    drawings = page.locator("figure svg")
    assert drawings.count() >= 2
    for drawing in drawings.all():
        assert drawing.get_attribute("role") == "img"
        for part in ("title", "desc"):
            assert drawing.locator(f"> {part}").text_content().strip()


def test_paper_shows_what_was_closed(opened):
    page = opened()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator(".question:not([open])").count() == 0
    assert not page.locator("nav").is_visible()
    assert page.pdf().startswith(b"%PDF")
