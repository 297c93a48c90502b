"""The page of `easysed detect --report` in a browser, opened from the disk."""

import shutil

import numpy as np
import pytest
from test_pipeline import RATE
from test_plot import make_event
from test_report import EVIL, make_page

from modeling_easysed.cli.report_part import encode_sound


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield found
        found.close()


@pytest.fixture
def opened(browser, tmp_path):
    """A page of two recordings, opened from the disk; afterwards nothing was said and nothing was asked of others."""
    first = [
        make_event(1.0, 2.2, "rain $1", "review", 0.6),
        make_event(3.0, 4.0, "dog_bark", "accept", 0.95),
        make_event(5.0, 9.0, "dog_bark", "review", 0.5),
    ]
    path = make_page(tmp_path, {EVIL: first, "other.wav": [make_event(2.0, 3.0, "dog_bark", "accept", 0.99)]})
    page = browser.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append("dialog"))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert said == [] and all(url.startswith(("file:", "data:")) for url in asked)
    page.close()


def wait_until(page, condition: str) -> None:
    """Polls from outside: the page's policy forbids what `wait_for_function` would do inside."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never: {condition}")


def shown_onsets(page) -> list[str]:
    rows = page.locator("section.recording").first.locator("tr[data-onset]:visible")
    return [row.get_attribute("data-onset") for row in rows.all()]


def test_events_are_sorted_by_any_column(opened):
    section = opened.locator("section.recording").first
    assert shown_onsets(opened) == ["1.000000", "3.000000", "5.000000"]
    for name, expected in (
        ("confidence", ["5.", "1.", "3."]),
        ("confidence", ["3.", "1.", "5."]),
        ("decision", ["3."]),
    ):
        section.locator("button.sort", has_text=name).press("Enter")
        assert [one[:2] for one in shown_onsets(opened)][: len(expected)] == expected
    assert section.locator("th[aria-sort]").inner_text().startswith("decision")


def test_events_are_filtered_by_decision_and_class(opened):
    output = opened.locator("output")
    assert output.inner_text() == "4 of 4 events in 2 of 2 recordings"
    opened.locator("input[value=accept]").uncheck()
    assert output.inner_text() == "2 of 4 events in 1 of 2 recordings"
    assert shown_onsets(opened) == ["1.000000", "5.000000"]
    opened.locator("select").select_option("rain $1")
    assert shown_onsets(opened) == ["1.000000"] and "1 of 4 events" in output.inner_text()
    opened.locator("input[value=accept]").check()
    opened.locator("select").select_option("")
    assert output.inner_text() == "4 of 4 events in 2 of 2 recordings"


def test_a_click_on_an_event_plays_its_stretch_and_no_more(opened):
    row = opened.locator("tr[data-onset='1.000000']")
    row.locator("button.play").press("Enter")
    audio = "document.querySelector('section.recording audio')"
    wait_until(opened, f"!{audio}.paused")
    assert 1.0 <= opened.evaluate(f"{audio}.currentTime") < 2.2
    assert "sounding" in row.get_attribute("class") and opened.locator(".playhead").first.is_visible()
    wait_until(opened, f"{audio}.paused")
    assert 2.2 <= opened.evaluate(f"{audio}.currentTime") < 2.5
    assert "sounding" not in row.get_attribute("class")


def test_one_sound_at_a_time_and_again_stops_it(opened):
    opened.locator("tr[data-onset='5.000000'] .label-cell").click()
    playing = "[...document.querySelectorAll('audio')].map((one) => !one.paused)"
    wait_until(opened, f"{playing}[0]")
    opened.locator("tr[data-onset='2.000000'] button.play").click()
    wait_until(opened, f"{playing}[1]")
    assert opened.evaluate(playing) == [False, True]
    opened.locator("tr[data-onset='2.000000'] button.play").click()
    assert opened.evaluate(playing) == [False, False]


def test_sound_lies_where_the_browser_looks_for_it(browser, tmp_path):
    clicks = np.zeros(10 * RATE, np.float32)
    for second in (2.0, 7.5):
        start = int(second * RATE)
        clicks[start : start + 400] = 0.5 * np.sin(2 * np.pi * 1500 * np.arange(400) / RATE)
    page = browser.new_page()
    page.goto("about:blank")
    onsets = page.evaluate(
        """async (content) => {
          const context = new OfflineAudioContext(1, 16000, 16000);
          const sound = await context.decodeAudioData(Uint8Array.from(content).buffer);
          const samples = [...sound.getChannelData(0)];
          const after = (s) => samples.findIndex((one, at) => at > s * 16000 && Math.abs(one) > 0.1) / 16000;
          return [after(1), after(6), sound.duration];
        }""",
        list(encode_sound(clicks)),
    )
    page.close()
    assert onsets == pytest.approx([2.0, 7.5, 10.0], abs=0.002)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_the_page_fits_any_screen_in_both_modes(browser, tmp_path, width, scheme):
    path = make_page(tmp_path, {EVIL * 5: [make_event(1.0, 2.0, "dog_bark", "review", 0.6)]})
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator("tbody .decision").last.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 27)"}[scheme]
    page.close()
