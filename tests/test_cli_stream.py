"""`easysed stream`: raw PCM in, JSON lines out; the microphone through a stand-in."""

import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from test_pipeline import RATE, loudness_window, make_pipe
from test_stream import bursts

from modeling_easysed.cli import stream as command
from modeling_easysed.cli.main import main as easysed

SPANS = [(1.0, 1.6), (3.5, 5.0)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    make_pipe().save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def loud_is_an_event(monkeypatch):
    monkeypatch.setattr("modeling_easysed.listening_easysed.sample_window", loudness_window)


def feed(monkeypatch, content: bytes) -> None:
    raw = io.BytesIO(content)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False, buffer=SimpleNamespace(read1=raw.read)))


def encoded(samples: np.ndarray, encoding: str, channels: int) -> bytes:
    scale = {"s16": 2**15 - 1, "s32": 2**31 - 1, "f32": 1}[encoding]
    return np.repeat((samples * scale)[:, None], channels, axis=1).astype(command.ENCODINGS[encoding]).tobytes()


def lines_of(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def check_events(events: list[dict]) -> None:
    assert [event["label"] for event in events] == ["dog_bark"] * 2
    for event, span in zip(events, SPANS, strict=True):
        assert (event["onset"], event["offset"]) == pytest.approx(span, abs=0.06)


@pytest.mark.parametrize(("encoding", "channels"), [("s16", 1), ("s32", 2), ("f32", 3)])
def test_raw_pcm_becomes_one_line_per_event(model, monkeypatch, capsys, encoding, channels):
    feed(monkeypatch, encoded(bursts(*SPANS, duration_s=8.0), encoding, channels) + b"\x00")
    arguments = ["--encoding", encoding, "--channels", str(channels), "--uncertainty", "none", "--device", "cpu"]
    assert easysed(["stream", "--source", "stdin", "--model", model, *arguments]) == 0
    output = capsys.readouterr()
    check_events([json.loads(line) for line in output.out.splitlines()])
    assert "listening at 16000 Hz" in output.err and "not calibrated" in output.err


def test_every_setting_reaches_the_stream(model, monkeypatch, capsys):
    given = {}

    class Recorder:
        warnings, latency_s, duration, sampling_rate = [], 1.0, 0.0, 8000

        def __init__(self, pipe, rate, **settings):
            given.update(rate=rate, **settings)

        def push(self, block):
            return []

        def close(self):
            return []

    monkeypatch.setattr("modeling_easysed.stream_easysed.EventStream", Recorder)
    feed(monkeypatch, b"\x00" * 100)
    settings = [
        "--sampling-rate",
        "8000",
        "--window",
        "1.8",
        "--exit",
        "2",
        "--uncertainty",
        "exits",
        "--passes",
        "5",
        "--shifts",
        "1",
        "--seed",
        "3",
    ]
    assert easysed(["stream", "--source", "stdin", "--model", model, *settings]) == 0
    expected = {"rate": 8000, "window_s": 1.8, "exit": 2, "uncertainty": "exits", "passes": 5, "shifts": 1, "seed": 3}
    assert given == expected


def test_the_duration_ends_it(model, monkeypatch, capsys):
    feed(monkeypatch, encoded(bursts(*SPANS, duration_s=8.0), "s16", 1))
    arguments = ["--duration", "4.25", "--uncertainty", "none"]
    assert easysed(["stream", "--source", "stdin", "--model", model, *arguments]) == 0
    first, second = lines_of(capsys)
    assert first["offset"] == pytest.approx(1.6, abs=0.06) and second["offset"] == 4.25


def test_what_still_sounds_is_told_when_asked_for(model, monkeypatch, capsys):
    monkeypatch.setattr(command, "READ_BYTES", RATE // 4)
    feed(monkeypatch, encoded(bursts(*SPANS, duration_s=8.0), "s16", 1))
    assert easysed(["stream", "--source", "stdin", "--model", model, "--sounding", "--uncertainty", "none"]) == 0
    lines = lines_of(capsys)
    check_events([line for line in lines if "sounding" not in line])
    updates = [line["sounding"] for line in lines if "sounding" in line]
    assert [] in updates and any(one and one[0]["label"] == "dog_bark" for one in updates)


def test_the_microphone_until_ctrl_c(model, monkeypatch, capsys):
    samples, opened = bursts(*SPANS, duration_s=8.0), {}

    class InputStream:
        def __init__(self, rate, size, name, channels, dtype, callback):
            opened.update(rate=rate, name=name, channels=channels)
            for start in range(0, len(samples), size):
                status = SimpleNamespace(input_overflow=start == size)
                callback(samples[start : start + size, None], size, None, status)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            opened["closed"] = True

    class Queue(command.queue.Queue):
        def get(self):
            if self.empty():
                raise KeyboardInterrupt
            return super().get()

    fake = SimpleNamespace(
        InputStream=InputStream,
        PortAudioError=RuntimeError,
        query_devices=lambda name, kind: {"default_samplerate": 16000.0},
        check_input_settings=lambda **settings: opened.update(checked=settings),
    )
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr(command.queue, "Queue", Queue)
    assert easysed(["stream", "--model", model, "--uncertainty", "none", "--microphone", "3"]) == 0
    output = capsys.readouterr()
    check_events([json.loads(line) for line in output.out.splitlines()])
    assert output.err.count("some sound was lost") == 1
    assert opened == {
        "checked": {"device": 3, "channels": 1, "samplerate": 16000},
        "rate": 16000,
        "name": 3,
        "channels": 1,
        "closed": True,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--channels", "0"], "--channels must be at least 1"),
        (["--duration", "0"], "--duration must be more than 0"),
        (["--window", "0.5"], "window_s must be more than"),
        (["--sampling-rate", "7"], "sampling_rate"),
        (["--exit", "9"], "--exit must be auto or 1 to 3"),
        (["--min-recall", "0.5"], "calibration"),
    ],
)
def test_wrong_usage_is_one_line(model, monkeypatch, capsys, arguments, message):
    feed(monkeypatch, b"")
    assert easysed(["stream", "--source", "stdin", "--model", model, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_a_missing_microphone_library_is_one_line_with_the_next_step(model, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert easysed(["stream", "--model", model]) == 2
    assert "pip install 'easysed[stream]'" in capsys.readouterr().err


def test_a_terminal_is_no_source(model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert easysed(["stream", "--source", "stdin", "--model", model]) == 2
    assert "raw PCM" in capsys.readouterr().err
