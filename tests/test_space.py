"""The page in a browser, as people use it: upload, read, choose, hear, download, compare, listen live."""

import csv
import shutil

import pytest
import soundfile
from app_server import running_app

from modeling_easysed.formats.files import read_events
from modeling_easysed.formats.names import FORMATS

pytest.importorskip("gradio", reason="needs gradio: pip install 'easysed[space]'")
pytest.importorskip("websockets", reason="needs websockets: pip install 'easysed[space]'")

SCENE = "test_0010.ogg"  # two sea waves of two and a half seconds
SLOW_MS = 60_000  # for a computer that does much else
NO_SOUND = "Waveform load error"  # what gradio's own player says of a file that is no sound


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with running_app(tmp_path_factory.mktemp("uploads")) as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser(data_dir, tmp_path_factory):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs chromium: apt-get install chromium")
    microphone = tmp_path_factory.mktemp("microphone") / "scene.wav"
    samples, rate = soundfile.read(data_dir / "soundscapes" / "audio" / "test" / SCENE)
    soundfile.write(microphone, samples, rate)
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    fake += [f"--use-file-for-fake-audio-capture={microphone}", "--autoplay-policy=no-user-gesture-required"]
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path, args=["--no-sandbox", *fake])
        yield found
        found.close()


@pytest.fixture
def page(browser, address):
    """The opened page; afterwards nothing was wrong and nothing was asked of another host."""
    opened = browser.new_page()
    opened.set_default_timeout(SLOW_MS)
    wrong, asked = [], []
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("websocket", lambda socket: asked.append(socket.url))
    opened.goto(address)
    opened.locator("#detect").wait_for()
    yield opened
    host = address.removeprefix("http://")
    own = (f"http://{host}", f"ws://{host}", "data:", f"blob:http://{host}")
    assert [one for one in wrong if not one.startswith(NO_SOUND)] == []
    assert [url for url in asked if not url.startswith(own)] == []
    opened.close()


@pytest.fixture(scope="module")
def clip(data_dir):
    """(path, label) of a clip that the model was not trained on."""
    with (data_dir / "esc10" / "metadata.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["fold"] == "5" and row["label"] == "rooster"]
    return data_dir / "esc10" / rows[0]["file_name"], "rooster"


def upload(page, path) -> None:
    page.locator("input[type=file]").first.set_input_files(path)
    page.locator("#result .verdict, #result .refused").first.wait_for()


def detect_again(page) -> str:
    """Chooses nothing, presses the button, waits for another verdict, be it in the same words."""
    page.locator("#result .verdict").evaluate("verdict => { verdict.dataset.seen = 'yes'; }")
    page.locator("#detect").click()
    fresh = page.locator("#result .verdict:not([data-seen])")
    fresh.wait_for()
    return fresh.inner_text()


def test_upload_read_choose_hear_and_download(page, clip, tmp_path):
    path, label = clip
    upload(page, path)
    rows = page.locator("#result tr[data-onset]")
    assert label in [row.get_attribute("data-label") for row in rows.all()]
    assert "CNN" in page.locator("#result .verdict").inner_text()
    picture = page.locator("#result img:visible")
    assert picture.count() == 1 and label in picture.get_attribute("alt")

    rows.first.locator("button.play").press("Enter")
    panel = page.locator("#result .panel:visible")
    assert panel.locator("svg.spread polyline.answer").count() == 20 and "Of events like this" in panel.inner_text()
    assert not page.locator("#result audio").first.evaluate("audio => audio.paused")
    rows.first.locator("button.play").press("Enter")
    assert panel.count() == 0

    onsets = [float(row.get_attribute("data-onset")) for row in rows.all()]
    for name in FORMATS:
        with page.expect_download() as download:
            page.locator(f"#result a.download[data-format={name}]").click()
        saved = tmp_path / download.value.suggested_filename
        download.value.save_as(saved)
        assert [event.onset for event in read_events(saved)[0].events] == pytest.approx(onsets, abs=1e-3), name


def test_architecture_exit_and_goal_can_be_changed(page, clip):
    upload(page, clip[0])
    page.locator("#architecture").get_by_text("Transformer").click()
    page.locator("#size").get_by_text("exit 3, large: 1.10 M parameters").wait_for()
    page.locator("#size").get_by_text("exit 1, compact").click()
    assert "Transformer (easysed-transformer), exit 1" in detect_again(page)
    page.get_by_text("How doubt is measured, and the goal").click()
    page.locator("#goal input").click()
    page.get_by_role("option", name="false alarms per hour").click()
    page.locator("#goal-value input").wait_for()
    assert detect_again(page)
    assert "at most 1 false alarms per hour" in page.locator("#result details").first.text_content()


def test_a_bad_upload_gets_one_friendly_line_and_the_next_is_served(page, clip, tmp_path):
    bad = tmp_path / "song <b>.wav"
    bad.write_bytes(b"RIFF" + bytes(range(256)) * 20)
    upload(page, bad)
    line = page.locator("#result .refused")
    assert "not audio that can be read" in line.inner_text() and "/" not in line.inner_text().split(",")[0]
    page.reload()
    upload(page, clip[0])
    assert page.locator("#result tr[data-onset]").count() > 0


def test_comparison_shows_time_and_agreement(page, data_dir):
    page.get_by_role("tab", name="Compare").click()
    page.locator("input[type=file]").last.set_input_files(data_dir / "soundscapes" / "audio" / "test" / SCENE)
    page.get_by_role("button", name="Play").last.wait_for()
    page.locator("#compare").click()
    page.locator("#comparison svg.timeline").wait_for()
    rows = page.locator("#comparison table").first.locator("tbody tr")
    assert [row.locator("th").inner_text() for row in rows.all()] == [
        "CNN large, exit 4",
        "CNN compact, exit 1",
        "Transformer large, exit 3",
        "Transformer compact, exit 1",
    ]
    assert "%" in page.locator("#comparison table").last.inner_text()
    assert "sea waves" in page.locator("#comparison svg.timeline").get_attribute("aria-label")


def test_live_microphone_finds_the_events_of_a_soundscape(page):
    page.get_by_role("tab", name="Live").click()
    page.locator("#live-start").click()
    page.locator("#live-soon tr", has_text="not final yet").first.wait_for()
    page.locator("#live-status", has_text="hears sea waves").wait_for()
    assert "sea waves" in page.locator("#live-canvas").get_attribute("aria-label")
    page.wait_for_timeout(12_000)
    page.locator("#live-start").click()
    page.locator("#live-status", has_text="Over:").wait_for()
    found = [row.inner_text() for row in page.locator("#live-told tr").all()]
    assert len(found) >= 2 and sum("sea waves" in one for one in found) >= 2


def test_narrow_screens_need_no_sideways_scrolling_and_all_has_a_name(page, clip):
    page.set_viewport_size({"width": 360, "height": 740})
    upload(page, clip[0])
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, a[href], img, svg[role=img]")].filter((one) => {
          const own = one.ariaHidden || one.getAttribute("aria-label") || one.title || one.alt || one.labels?.length;
          const near = "button[aria-label], button[title]";
          const named = own || one.textContent.trim() || one.closest(`label, ${near}`) || one.querySelector(near);
          return one.checkVisibility() && !named;
        }).map((one) => one.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
