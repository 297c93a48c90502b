"""`easysed detect --report`: doubt, sound, parts, the page as text."""

import importlib.util
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_pipeline import RATE, make_audio, make_pipe
from test_plot import make_detection, make_event
from tiny_training import two_processes

from modeling_easysed.cli import batch, report, report_part
from modeling_easysed.cli.errors import CommandError
from modeling_easysed.cli.main import main as easysed
from modeling_easysed.cli.report import PARTS, check_report, write_report
from modeling_easysed.cli.report_part import Stretch, choose_stretches, cut_sound, doubt_of, encode_sound, write_part

pytest.importorskip("matplotlib")

PLAIN = ["--uncertainty", "none", "--shifts", "0", "--device", "cpu"]
EVIL = "<script>alert(1)<&> \"'@@SECTIONS@@.wav"


class Page(HTMLParser):
    """Counts tags, gathers text and the values of attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, name: str) -> list[str]:
        return [value for own, value in self.attributes if own == name]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    make_pipe().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def audio(tmp_path) -> Path:
    folder = tmp_path / "audio"
    for number, name in enumerate(["0.wav", "deep/1.flac", EVIL]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("wb") as file:
            soundfile.write(file, make_audio(1.0 + 0.5 * number, number), RATE, format="WAV")
    return folder


def detect(model: str, audio: Path, page: Path, *more: str) -> int:
    return easysed(["detect", str(audio), "--model", model, "--report", str(page), *PLAIN, *more])


def make_page(folder: Path, detections: dict[str, list], failures: tuple[str, ...] = (), **changes) -> Path:
    """A page of detections {file name: events} of 10 s each, with sound."""
    parts = []
    for number, (name, events) in enumerate(detections.items()):
        path = folder / f"{number}.wav"
        soundfile.write(path, make_audio(10.0, number), RATE)
        parts.append(folder / f"{number}.part")
        with parts[-1].open("wb") as stream:
            write_part(stream, make_detection(events, file=name, **changes), path)
    write_report(folder / "report.html", parts, {"model": "tiny", "goal": {}, "seed": None}, failures)
    return folder / "report.html"


# ---- doubt -----------------------------------------------------------------------------------------------------------


def test_doubt_is_what_may_be_wrong_and_what_is_to_be_heard():
    events = [
        make_event(1.0, 2.0, "dog_bark", "accept", 0.9),
        make_event(3.0, 4.0, "dog_bark", "accept", 0.75),
        make_event(5.0, 6.0, "dog_bark", "review", 0.6),
        make_event(7.0, 8.0, "dog_bark", "reject", 0.2),
    ]
    assert doubt_of(events) == pytest.approx(0.1 + 0.25 + 1.0)
    assert report_part.expected_wrong(events) == pytest.approx(0.35)
    assert doubt_of([]) == 0.0
    assert doubt_of([make_event(1.0, 2.0, "dog_bark", None, None)]) == pytest.approx(0.3)  # its score is 0.7


# ---- sound -----------------------------------------------------------------------------------------------------------


def test_a_short_recording_is_heard_whole():
    assert choose_stretches([], 60.0) == [Stretch(0.0, 60.0)]


def test_of_a_long_recording_the_most_doubtful_is_heard_first_within_the_budget():
    events = [
        make_event(100.0, 110.0, "dog_bark", "accept", 0.99),
        make_event(200.0, 290.0, "dog_bark", "review", 0.5),  # 20 s of it are heard
        make_event(223.0, 224.0, "dog_bark", "review", 0.8),  # from the second of the other's margin on: one stretch
        make_event(300.0, 318.0, "dog_bark", "review", 0.9),
        make_event(400.0, 410.0, "dog_bark", "reject", 0.2),
    ]
    expected = [Stretch(199.0, 221.0), Stretch(222.0, 225.0), Stretch(299.0, 319.0), Stretch(99.0, 111.0)]
    assert choose_stretches(events, 600.0) == sorted(expected)
    assert choose_stretches([], 600.0) == []
    touching = [make_event(0.5, 5.0, "dog_bark", "review"), make_event(5.5, 9.0, "rain $1", "review")]
    assert choose_stretches(touching, 61.0) == [Stretch(0.0, 10.0)]


@pytest.mark.parametrize("rate", [16000, 44100])
def test_stretches_are_cut_where_they_lie(tmp_path, monkeypatch, rate):
    monkeypatch.setattr("modeling_easysed.audio_easysed.BLOCK_SAMPLES", 10_007)
    samples = make_audio(5.0)
    given = np.interp(np.arange(5 * rate) / rate, np.arange(len(samples)) / RATE, samples)
    soundfile.write(tmp_path / "a.wav", given, rate, subtype="FLOAT")
    stretches = [Stretch(0.5, 1.5), Stretch(3.0, 3.25), Stretch(4.5, 5.0)]
    for found, (start, stop) in zip(cut_sound(tmp_path / "a.wav", stretches), stretches, strict=True):
        expected = samples[int(start * RATE) : int(stop * RATE)]
        assert len(found) == len(expected) and np.corrcoef(found, expected)[0, 1] > (0.999 if rate == RATE else 0.9)
    assert cut_sound(tmp_path / "a.wav", []) == []


def test_sound_is_small_and_not_late():
    samples = make_audio(10.0)
    content = encode_sound(samples)
    assert len(content) < 52_000
    heard, rate = soundfile.read(io.BytesIO(content))
    assert rate == 16000 and len(heard) == len(samples)
    lags = range(-40, 41)
    alike = [np.corrcoef(samples[100:-100], np.roll(heard, -lag)[100:-100])[0, 1] for lag in lags]
    assert abs(lags[int(np.argmax(alike))]) <= 16 and max(alike) > 0.9  # within a millisecond


def test_one_sample_and_full_scale_can_be_encoded():
    assert len(soundfile.read(io.BytesIO(encode_sound(np.zeros(1, np.float32))))[0]) >= 1
    loud = soundfile.read(io.BytesIO(encode_sound(3 * make_audio(1.0))))[0]
    assert np.abs(loud).max() < 2.0  # cut at full scale, where it was 3 times that; decoding overshoots


# ---- the page --------------------------------------------------------------------------------------------------------


def test_the_most_doubtful_recording_comes_first_and_the_head_has_the_sums(tmp_path):
    sure = [make_event(1.0, 2.0, "dog_bark", "accept", 0.98)]
    unsure = [make_event(1.0, 2.0, "dog_bark", "accept", 0.9), make_event(3.0, 4.0, "rain $1", "review", 0.5)]
    page = make_page(tmp_path, {"sure.wav": sure, "unsure.wav": unsure, "quiet.wav": []}, ("bad.wav: empty",))
    found = Page(page.read_text(encoding="utf-8"))
    names = [value for value in found.values("aria-label") if value in ("sure.wav", "unsure.wav", "quiet.wav")]
    assert names == ["unsure.wav", "sure.wav", "quiet.wav"]
    for words in (
        "recordings 3",
        "sound 30.00 s",
        "accepted 2",
        "for review 1",
        "rejected 0",
        "expected wrong among the accepted 0.12",
        "failed 1",
        "Doubt is the expected number of wrong events",
        "bad.wav: empty",
        "10.00 s · 44100 Hz · doubt 1.10",
        "goal default seed none",
        "No events.",
    ):
        assert words in found.text, words
    assert found.tags.count("audio") == 3 and found.tags.count("img") == 3


def test_a_checkpoint_without_calibration_is_said_to_have_none(tmp_path):
    page = make_page(tmp_path, {"a.wav": [make_event(1.0, 2.0, "dog_bark", None, None)]})
    found = Page(page.read_text(encoding="utf-8"))
    assert "This checkpoint has no calibration" in found.text and "score 0.70" in found.text
    assert "checkbox" not in found.values("type") and "events 1" in found.text


def test_an_event_shows_its_numbers_and_reasons(tmp_path):
    event = make_event(1.25, 2.5, "rain $1", "review", 0.61)
    event.confidence_low, event.confidence_high = 0.5, 0.7
    event.reasons = ["noisy: <b>", "short & faint"]
    found = Page(make_page(tmp_path, {"a.wav": [event]}).read_text(encoding="utf-8"))
    words = "▶ 1.25 1.15–1.45 2.50 2.20–2.60 rain $1 0.61 0.50–0.70 ? review noisy: <b> short & faint"
    assert words in found.text and "Play rain $1, 1.25 to 2.50" in found.values("aria-label")
    assert "b" not in found.tags


def test_of_a_long_event_the_beginning_is_played_and_what_is_not_embedded_cannot_be(tmp_path, monkeypatch):
    monkeypatch.setattr(report_part, "WHOLE_S", 5.0)
    monkeypatch.setattr(report_part, "EVENT_S", 2.0)
    monkeypatch.setattr(report_part, "BUDGET_S", 5.0)
    events = [make_event(1.0, 4.0, "dog_bark", "review", 0.5), make_event(7.0, 8.0, "dog_bark", "accept", 0.9)]
    found = Page(make_page(tmp_path, {"a.wav": events}).read_text(encoding="utf-8"))
    assert "Play dog bark, 1.00 to 4.00, the first 2 s" in found.values("aria-label")
    assert "dog bark at 7.00: its sound is not embedded" in found.values("aria-label")
    assert found.values("disabled") == [None] and "1 stretch of its sound" in found.text
    assert "Too long to be embedded" in Page(make_page(tmp_path, {"b.wav": []}).read_text(encoding="utf-8")).text


def test_names_cannot_do_anything(tmp_path):
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>@@SECTIONS@@"
    event = make_event(1.0, 2.0, evil, "review")
    detection = make_detection([], file=evil, warnings=[f"clipped: {evil}"], decision_rule=[evil])
    detection.labels[0], detection.events = evil, [event]
    soundfile.write(tmp_path / "a.wav", make_audio(10.0), RATE)
    with (tmp_path / "a.part").open("wb") as stream:
        write_part(stream, detection, tmp_path / "a.wav")
    write_report(tmp_path / "report.html", [tmp_path / "a.part"], {evil: evil}, [evil])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = Page(text)
    assert found.tags.count("script") == 1 and found.tags.count("img") == 1 and "onerror" not in dict(found.attributes)
    assert found.text.count("@@SECTIONS@@") >= 6  # shown as it is, never filled in
    assert "default-src 'none'; script-src 'sha256-" in text and "http" not in re.sub("http-equiv", "", text)


def test_names_that_are_no_text_are_shown_escaped(tmp_path):
    page = make_page(tmp_path, {"caf\udce9.wav": []})
    assert r"caf\udce9.wav" in page.read_text(encoding="utf-8")


# ---- the command -----------------------------------------------------------------------------------------------------


def test_a_folder_becomes_a_page(model, audio, tmp_path, capsys):
    (audio / "bad.wav").write_text("no sound")
    assert detect(model, audio, tmp_path / "report.html", "--format", "jsonl") == 1
    out = capsys.readouterr().out
    detections = [json.loads(line) for line in out.splitlines()]
    found = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert f"recordings 3 sound 4.50 s events {sum(len(one['events']) for one in detections)} failed 1" in found.text
    assert "bad.wav is not audio" in found.text and str(audio / EVIL) in found.text
    assert len(found.values("data-onset")) == sum(len(one["events"]) for one in detections)
    assert found.text.count("not calibrated: ") == 1
    assert [path.name for path in tmp_path.iterdir()].count("report.html") == 1


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_resumed_run_gives_the_report_of_an_uninterrupted_one(model, audio, tmp_path, monkeypatch):
    pages = [tmp_path / f"{name}.html" for name in ("whole", "resumed", "workers", "stdout")]
    assert detect(model, audio, pages[0], "--out", f"{tmp_path}/whole/") == 0
    (audio / "deep").rename(tmp_path / "away")
    assert detect(model, audio, pages[1], "--out", f"{tmp_path}/resumed/") == 0
    assert pages[1].read_bytes() != pages[0].read_bytes()
    (tmp_path / "away").rename(audio / "deep")
    done, process = [], batch.process
    monkeypatch.setattr(
        batch, "process", lambda pipe, settings, task: (done.append(task.path.name), process(pipe, settings, task))[1]
    )
    assert detect(model, audio, pages[1], "--out", f"{tmp_path}/resumed/") == 0
    assert done == ["1.flac"]
    monkeypatch.undo()
    assert detect(model, audio, pages[2], "--out", f"{tmp_path}/workers/", "--workers", "2") == 0
    assert detect(model, audio, pages[3]) == 0
    assert len({page.read_bytes() for page in pages}) == 1
    assert content_of(tmp_path / "whole") == content_of(tmp_path / "resumed") == content_of(tmp_path / "workers")
    assert (tmp_path / "whole" / PARTS / "deep" / "1.html").is_file()


def test_processes_of_accelerate_make_one_page(model, audio, tmp_path):
    (audio / "bad.wav").write_text("no sound")
    command = ["detect", str(audio), "--model", model, *PLAIN, "--format", "csv"]
    for name, launcher in (("one", [sys.executable]), ("two", two_processes())):
        own = ["-m", "modeling_easysed.cli.main", *command, "--out", f"{tmp_path}/{name}/"]
        page = ["--report", str(tmp_path / f"{name}.html")]
        done = subprocess.run([*launcher, *own, *page], capture_output=True, text=True)
        assert done.returncode == 1, done.stderr
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert content_of(tmp_path / "one" / PARTS) == content_of(tmp_path / "two" / PARTS)


def test_a_part_is_never_older_than_its_recording(model, audio, tmp_path):
    page, out = tmp_path / "report.html", f"{tmp_path}/out/"
    assert detect(model, audio, page, "--out", out) == 0
    before = page.read_bytes()
    soundfile.write(audio / "0.wav", make_audio(2.5, 9), RATE)
    assert easysed(["detect", str(audio), "--model", model, "--out", out, *PLAIN]) == 0  # without a report
    assert detect(model, audio, page, "--out", out) == 0
    assert "2.50 s" in page.read_text(encoding="utf-8") and page.read_bytes() != before


def test_a_recording_that_fails_now_is_listed_even_if_it_was_done_before(model, audio, tmp_path):
    page, out = tmp_path / "report.html", f"{tmp_path}/out/"
    assert detect(model, audio, page, "--out", out) == 0
    (audio / "0.wav").write_text("no sound any more")
    assert detect(model, audio, page, "--out", out) == 1
    found = Page(page.read_text(encoding="utf-8"))
    assert (
        "recordings 2" in found.text
        and "0.wav is not audio" in found.text
        and "0.wav" not in found.values("aria-label")
    )


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("report.txt", "--report report.txt: the name must end in one of .html, .htm"),
        ("no/such/report.html", "--report no/such/report.html: its folder does not exist, create it first"),
    ],
)
def test_a_page_that_cannot_be_written_stops_before_the_work(model, audio, capsys, page, message):
    assert easysed(["detect", str(audio), "--model", model, "--report", page]) == 2
    assert capsys.readouterr().err.splitlines() == [f"easysed detect: error: {message}"]


def test_what_the_report_needs(tmp_path, monkeypatch):
    name, real = str(tmp_path / "report.html"), importlib.util.find_spec
    check_report(name)
    monkeypatch.setattr(soundfile, "available_formats", dict)
    with pytest.raises(CommandError, match="--report needs libsndfile 1.1 or later"):
        check_report(name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda one: None if one == "matplotlib" else real(one))
    with pytest.raises(CommandError, match=r"--report needs matplotlib: pip install 'easysed\[plot\]'"):
        check_report(name)


def test_a_page_is_whole_or_not_touched(tmp_path, monkeypatch):
    page = tmp_path / "report.html"
    page.write_text("the old one")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "_copy_sections", full)
    with pytest.raises(CommandError, match="cannot be written: No space left on device"):
        write_report(page, [], {}, [])
    assert page.read_text() == "the old one" and [path.name for path in tmp_path.iterdir()] == ["report.html"]
