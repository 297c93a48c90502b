"""The page that `easysed export --to web` writes, in a browser: the events of Python, offline, live, on a phone."""

import gzip
import json
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from tiny_export import noise, tiny_checkpoint
from web_browser import call, chromium, packed, runtime_or_skip, serving

from modeling_easysed import EventStream, SoundEventDetectionPipeline
from modeling_easysed.detection_easysed import Detection
from modeling_easysed.export.to_web import write_page
from modeling_easysed.export.write import export_checkpoint
from modeling_easysed.formats.files import read_events

pytest.importorskip("onnxruntime", reason='onnxruntime is not installed: pip install "easysed[export]"')

EXIT = 1
LIVE_SCENE = "test_0010.ogg"  # two sea waves of two and a half seconds
SCENES = [LIVE_SCENE, "test_0000.ogg", "test_0057.ogg", "test_0123.ogg"]
MAX_GZIPPED = 6_000_000
CONFIDENCE, SECONDS = 0.02, 0.04  # that the page may differ from Python
SLOW_MS = 120_000  # for a computer that does much else


@pytest.fixture(scope="module")
def runtime():
    return runtime_or_skip()


@pytest.fixture(scope="module")
def browser(data_dir, tmp_path_factory):
    microphone = tmp_path_factory.mktemp("microphone") / "scene.wav"
    soundfile.write(microphone, *soundfile.read(data_dir / "soundscapes" / "audio" / "test" / LIVE_SCENE))
    with chromium(microphone) as found:
        yield found


@pytest.fixture(scope="module")
def folder(browser, runtime, tmp_path_factory) -> Path:
    """The compact student of the bundled checkpoint."""
    return export_checkpoint("easysed-cnn", "web", EXIT, tmp_path_factory.mktemp("web") / "page", runtime).folder


@pytest.fixture(scope="module")
def address(folder):
    with serving(folder) as address:
        yield address


@pytest.fixture(scope="module")
def pipe():
    return SoundEventDetectionPipeline.from_pretrained("easysed-cnn", device="cpu")


@pytest.fixture
def page(browser, address):
    """The opened page on a phone's screen; afterwards nothing was wrong and nothing was asked of another host."""
    yield from opened(browser, address)


def opened(browser, address, path=""):
    context = browser.new_context(viewport={"width": 360, "height": 740}, accept_downloads=True)
    shown = context.new_page()
    shown.set_default_timeout(SLOW_MS)
    wrong, asked = [], []
    context.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    context.on("request", lambda request: asked.append(request.url))
    shown.goto(address + path)
    shown.locator("#status", has_text="Ready.").wait_for()
    yield shown
    assert wrong == []
    own = (address, "data:", f"blob:{address}")
    assert len(asked) > 20 and [url for url in asked if not url.startswith(own)] == []
    context.close()


def detect(page, path: Path) -> None:
    page.locator("#file").set_input_files(path)
    page.locator(".verdict").wait_for()


def saved(page, path: Path) -> Path:
    with page.expect_download() as download:
        page.locator("a.download[data-format=json]").click()
    path = path / download.value.suggested_filename
    download.value.save_as(path)
    return path


def compare(given: dict, expected: Detection) -> None:
    """Everything that a JSON file says, numbers within the tolerances and sentences up to their numbers."""
    wanted = expected.to_dict()
    assert list(given) == list(wanted)
    for name in ("sampling_rate", "receipt", "decision_rule"):
        assert given[name] == wanted[name], name
    assert [without_numbers(one) for one in given["warnings"]] == [without_numbers(one) for one in wanted["warnings"]]
    assert given["duration"] == pytest.approx(wanted["duration"], abs=0.001)
    assert len(given["events"]) == len(wanted["events"])
    for mine, theirs in zip(given["events"], wanted["events"], strict=True):
        compare_events(mine, theirs)


def compare_events(mine: dict, theirs: dict) -> None:
    assert list(mine) == list(theirs)
    for name in ("onset", "offset"):
        for one in (name, f"{name}_low", f"{name}_high"):
            assert mine[one] == pytest.approx(theirs[one], abs=SECONDS), one
    for name in ("score", "confidence", "confidence_low", "confidence_high"):
        assert mine[name] == pytest.approx(theirs[name], abs=CONFIDENCE), name
    for name in ("label", "decision", "exit"):
        assert mine[name] == theirs[name]
    assert mine["uncertainty"] == pytest.approx(theirs["uncertainty"], abs=CONFIDENCE)
    assert mine["unfamiliarity"] == pytest.approx(theirs["unfamiliarity"], abs=0.1)
    assert without_numbers(str(mine["reasons"])) == without_numbers(str(theirs["reasons"]))


def without_numbers(text: str) -> str:
    return re.sub(r"[\d.]+", "#", text)


# ---- what is written -------------------------------------------------------------------------------------------------


def test_page_with_the_model_is_small(folder):
    sizes = {path.name: len(gzip.compress(path.read_bytes(), 9)) for path in folder.iterdir()}
    assert sum(sizes.values()) < MAX_GZIPPED, sizes


def test_manifest_icons_and_worker_name_what_is_there(folder):
    manifest = json.loads((folder / "manifest.webmanifest").read_text())
    assert manifest["display"] == "standalone" and manifest["start_url"] == manifest["scope"] == "./"
    for one in manifest["icons"]:
        content = (folder / one["src"]).read_bytes()
        assert content.startswith(b"\x89PNG") and f"{struct.unpack('>I', content[16:20])[0]}" in one["sizes"]
    assert {one["purpose"] for one in manifest["icons"]} == {"any", "maskable"}
    worker = (folder / "sw.js").read_text()
    names = {path.name for path in folder.iterdir()}
    assert set(json.loads(re.search(r"FILES = (\[.*\])", worker)[1])) == names - {"sw.js"}
    description = json.loads((folder / "easysed.json").read_text())
    assert {*description["page"]["files"], "easysed.json"} == names
    assert "@@" not in worker + (folder / "index.html").read_text()
    addresses = [
        re.findall(r"https?://[\w.]+", (folder / name).read_text())
        for name in names
        if name.endswith((".html", ".css"))
    ]
    assert sum(addresses, []) == []


# ---- the events of Python, without a network -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recordings(data_dir, tmp_path_factory) -> list[Path]:
    """Scenes at 16 kHz and clips at 44.1 kHz that the model was not trained on, and files of other kinds and rates."""
    scenes = [data_dir / "soundscapes" / "audio" / "test" / name for name in SCENES]
    clips = sorted((data_dir / "esc10" / "audio").glob("5-*.ogg"))[::16]
    made = tmp_path_factory.mktemp("made")
    samples, rate = soundfile.read(scenes[1])
    at_48000 = soxr.resample(samples, rate, 48000)
    soundfile.write(made / "stereo.wav", np.stack([at_48000, 0.5 * at_48000], axis=1), 48000)
    soundfile.write(made / "clipped.flac", np.clip(9 * soxr.resample(samples, rate, 22050), -1, 1), 22050)
    soundfile.write(made / "telephone.wav", soxr.resample(samples, rate, 8000)[:60001], 8000)
    soundfile.write(made / "short.wav", samples[40000:46000], rate)
    soundfile.write(made / "silence.wav", np.zeros(3 * rate), rate)
    soundfile.write(made / "sound.mp3", at_48000, 48000)
    return [*scenes, *clips, *sorted(made.iterdir())]


def test_events_equal_those_of_python_with_the_network_cut(browser, folder, recordings, pipe, tmp_path):
    """The server is gone as well, and the page is opened once more from what the device has kept."""
    with serving(folder) as address:
        pages = opened(browser, address)
        page = next(pages)
        page.locator("#offline", has_text="works without a network").wait_for()
    page.context.set_offline(True)
    page.reload()
    page.locator("#status", has_text="Ready.").wait_for()
    num_events = 0
    for path in recordings:
        page.locator("#main").evaluate("main => main.replaceChildren()")
        detect(page, path)
        given = json.loads(saved(page, tmp_path).read_text())
        expected = pipe(path, exit=EXIT)
        assert given.pop("file") == path.name and (tmp_path / f"{path.stem}.json").is_file()
        compare({"file": str(path), **given}, expected)
        assert page.locator("tr[data-onset]").count() == len(expected.events)
        num_events += len(expected.events)
    assert num_events > 15
    next(pages, None)


def test_saved_json_is_read_back(page, data_dir, tmp_path):
    detect(page, data_dir / "soundscapes" / "audio" / "test" / SCENES[1])
    (detection,) = read_events(saved(page, tmp_path))
    assert len(detection.events) > 1 and detection.receipt["model"] == "easysed-cnn"
    assert detection.events[0].uncertainty is not None and detection.decision_rule


@pytest.mark.parametrize("kind", ["transformer", "cnn, block sampled"])
def test_any_exportable_model_gives_the_events_of_python(browser, runtime, kind, tmp_path):
    """Without a calibration, with windows of 2 s, and sounds shorter than a frame."""
    model = tiny_checkpoint(tmp_path / "tiny", kind)
    folder = export_checkpoint(model, "web", None, tmp_path / "page", runtime).folder
    pipe = SoundEventDetectionPipeline.from_pretrained(model, device="cpu")
    with serving(folder) as address:
        pages = opened(browser, address)
        page = next(pages)
        for number in (1, 700, 31999, 120000):
            path = tmp_path / f"{number}.wav"
            soundfile.write(path, noise(number), 16000, "FLOAT")
            page.locator("#main").evaluate("main => main.replaceChildren()")
            detect(page, path)
            given, expected = json.loads(saved(page, tmp_path).read_text()), pipe(path, exit=pipe.model.num_exits)
            compare({**given, "file": str(path)}, expected)
        assert len(expected.events) > 0 and "not calibrated" in page.locator(".warnings").inner_text()
        next(pages, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "exit_index"),
    [*(("easysed-cnn", number) for number in (1, 2, 3, 4)), *(("easysed-transformer", number) for number in (1, 2, 3))],
)
def test_every_exit_gives_the_events_of_python(browser, runtime, data_dir, tmp_path, name, exit_index):
    folder = export_checkpoint(name, "web", exit_index, tmp_path / "page", runtime).folder
    pipe, num_events = SoundEventDetectionPipeline.from_pretrained(name, device="cpu"), 0
    with serving(folder) as address:
        pages = opened(browser, address)
        page = next(pages)
        for scene in SCENES:
            path = data_dir / "soundscapes" / "audio" / "test" / scene
            page.locator("#main").evaluate("main => main.replaceChildren()")
            detect(page, path)
            given, expected = json.loads(saved(page, tmp_path).read_text()), pipe(path, exit=exit_index)
            compare({**given, "file": str(path)}, expected)
            num_events += len(expected.events)
        next(pages, None)
    assert num_events > 0


def test_a_new_export_replaces_what_a_device_has_kept(browser, folder, runtime, tmp_path):
    copy = tmp_path / "page"
    shutil.copytree(folder, copy)
    description = json.loads((copy / "easysed.json").read_text())
    with serving(copy) as address:
        pages = opened(browser, address)
        page = next(pages)
        page.locator("#offline", has_text="works without a network").wait_for()
        before = page.evaluate("caches.keys()")
        for path in copy.iterdir():
            if path.suffix != ".onnx":
                path.unlink()
        description["model"]["name"] = "another-model"
        write_page(copy, description, runtime)
        page.evaluate("navigator.serviceWorker.getRegistration().then((one) => one.update())")
        for _ in range(100):
            if len(after := page.evaluate("caches.keys()")) == 1 and after != before:
                break
            page.wait_for_timeout(200)
        assert len(before) == len(after) == 1 and before != after
        page.reload()
        page.locator("#about", has_text="another-model").wait_for()
        next(pages, None)


# ---- the microphone --------------------------------------------------------------------------------------------------


def test_stream_in_blocks_gives_the_events_of_the_python_stream(page, pipe, data_dir):
    """Thirty seconds with events across windows, in blocks of random size."""
    audio = data_dir / "soundscapes" / "audio" / "test"
    samples = np.concatenate([soundfile.read(audio / name, dtype="float32")[0] for name in SCENES[:3]])
    stream = EventStream(pipe, 16000, exit=EXIT, window_s=6.5)
    expected = [*stream.push(samples), *stream.close()]
    given = call(page, "network detector stream", """async ({ loadNetwork, Detector, EventStream }, { samples }) => {
        const [about, words] = await Promise.all(
            ["easysed.json", "words.json"].map(async (name) => (await fetch(name)).json()));
        const detector = new Detector(about, words, await loadNetwork(about));
        const stream = new EventStream(detector, 16000, 0.5);
        const events = [];
        let soon = 0;
        for (let at = 0; at < samples.length;) {
            const stop = at + 1 + Math.floor(Math.random() * 9000);
            events.push(...await stream.push(samples.slice(at, stop)));
            soon = soon === 0 ? events.length : soon;
            at = stop;
        }
        return { soon, events: [...events, ...await stream.close()], latency_s: stream.latency_s };
    }""", samples=packed(samples))  # fmt: skip
    assert len(given["events"]) == len(expected) > 5 and given["soon"] > 0
    for mine, theirs in zip(given["events"], expected, strict=True):
        compare_events(mine, theirs.to_dict())
    assert 0 < given["latency_s"] <= stream.latency_s


def test_live_microphone_finds_the_events_of_a_soundscape(browser, address, tmp_path):
    pages = opened(browser, address)
    page = next(pages)
    page.evaluate("""() => {
        const original = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = (wanted) => { window.wanted = wanted; return original(wanted); };
    }""")
    page.locator("#listen").press("Enter")
    page.locator(".clock", has_text="hears sea waves").wait_for()
    plain = {"echoCancellation": False, "noiseSuppression": False, "autoGainControl": False}
    assert page.evaluate("wanted") == {"audio": plain}
    assert "sea waves" in page.locator(".listening canvas").get_attribute("aria-label")
    assert re.search(
        r"at most \d\.\d s after their class has fallen silent", page.locator(".listening .note").inner_text()
    )
    page.locator(".listening tr.provisional", has_text="sea waves").wait_for()  # shown while it goes on
    page.wait_for_timeout(6000)
    page.locator("#listen").press("Enter")
    page.locator("#status", has_text="Over:").wait_for()
    (detection,) = read_events(saved(page, tmp_path))
    waves = [event for event in detection.events if event.label == "sea_waves"]
    assert len(waves) >= 2 and {event.decision for event in waves} <= {"accept", "review"}
    assert page.locator(".listening tbody tr").count() == len(detection.events)
    assert detection.duration > 9 and detection.receipt["exit"] == EXIT
    next(pages, None)


def test_a_microphone_that_is_refused_or_stopped_at_once_is_let_go(page):
    page.evaluate("""() => {
        const original = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        window.opened = [];
        navigator.mediaDevices.getUserMedia = async (wanted) => {
            if (window.refuse) throw new DOMException("no", "NotAllowedError");
            const stream = await original(wanted);
            window.opened.push(...stream.getTracks());
            return stream;
        };
        window.refuse = true;
    }""")
    page.locator("#listen").click()
    page.locator("#status.refused", has_text="cannot be used (NotAllowedError): allow it").wait_for()
    assert page.locator("#listen").inner_text() == "Listen"
    page.evaluate(
        "window.refuse = false; document.querySelector('#listen').click(); document.querySelector('#listen').click();"
    )
    page.wait_for_timeout(2000)
    assert page.locator("#listen").inner_text() == "Listen"
    assert page.evaluate("window.opened.map((one) => one.readyState)") == ["ended"]


# ---- for people ------------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_sound_gets_one_friendly_line_and_the_next_is_heard(page, data_dir, tmp_path):
    bad = tmp_path / "holiday <b>.mp3"
    bad.write_bytes(b"this is no sound" * 100)
    page.locator("#file").set_input_files(bad)
    line = page.locator("#status.refused")
    line.wait_for()
    assert "holiday <b>.mp3 is no sound that this browser can read" in line.inner_text()
    detect(page, data_dir / "soundscapes" / "audio" / "test" / LIVE_SCENE)
    assert page.locator("tr[data-onset]").count() == 2 and page.locator("#status.refused").count() == 0


def test_events_can_be_heard_sorted_and_explained_with_the_keyboard(page, data_dir):
    detect(page, data_dir / "soundscapes" / "audio" / "test" / SCENES[1])
    rows = page.locator("tr[data-onset]")
    rows.first.locator("button.play").press("Enter")
    assert not page.locator("audio").evaluate("audio => audio.paused")
    panel = page.locator(".panel:visible")
    assert panel.count() == 1 and "Of events like this" in panel.inner_text()
    rows.first.locator("button.play").press("Enter")
    assert panel.count() == 0
    page.get_by_role("button", name="confidence").press("Enter")
    values = [float(one.get_attribute("data-value")) for one in page.locator("td.confidence-cell").all()]
    assert values == sorted(values) and len(values) > 1


@pytest.mark.parametrize("width", [360, 1200])
def test_no_sideways_scrolling_and_all_has_a_name(page, data_dir, width):
    page.set_viewport_size({"width": width, "height": 740})
    detect(page, data_dir / "soundscapes" / "audio" / "test" / SCENES[1])
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert "Waveform" in page.locator(".recording canvas").get_attribute("aria-label")
    assert page.locator("#status").get_attribute("role") == "status"
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, a[href], canvas, audio")].filter((one) => {
          const named = one.getAttribute("aria-label") || one.labels?.length || one.textContent.trim();
          return one.checkVisibility() && !named;
        }).map((one) => one.outerHTML.slice(0, 200))"""
    )
    assert nameless == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_picture_is_drawn_in_the_colours_of_the_palette(browser, address, data_dir, scheme):
    from modeling_easysed.palette_easysed import THEMES

    pages = opened(browser, address)
    page = next(pages)
    page.emulate_media(color_scheme=scheme)
    detect(page, data_dir / "soundscapes" / "audio" / "test" / SCENES[1])
    drawn = page.locator(".recording canvas").evaluate(
        """(canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const hex = (at) => [0, 1, 2].map((one) => data[at + one].toString(16).padStart(2, "0")).join("");
          const found = new Set();
          for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255) found.add(`#${hex(at)}`);
          return [...found];
        }"""
    )
    decided = page.locator("tr[data-onset]").first.get_attribute("data-decision")
    theme = THEMES[scheme]
    assert {theme.decisions[decided].edge, theme.curve} <= set(drawn)
    assert page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor") == (
        f"rgb({', '.join(str(one) for one in bytes.fromhex(theme.background[1:]))})"
    )
    next(pages, None)
