"""`easysed detect --format`: all formats through the command, with a pipeline that needs no network."""

import io
import json
import sys
from types import SimpleNamespace

import polars
import pytest
from event_files import full_event, make_detection, make_event

from modeling_easysed import read_events
from modeling_easysed.cli import detect
from modeling_easysed.cli.batch import MANIFEST
from modeling_easysed.cli.main import main
from modeling_easysed.formats.names import FORMATS, SUFFIXES

EVENTS = {"a.wav": [make_event(), full_event("dog bark")], "b.wav": [make_event("rain", 1.0, 2.0)], "silent.wav": []}


@pytest.fixture
def audio(tmp_path, monkeypatch):
    """A folder with three recordings; what they hold is only told, by a pipeline that opens nothing."""
    folder = tmp_path / "audio"
    folder.mkdir()
    for name in EVENTS:
        (folder / name).write_bytes(b"")

    def pipe(path, **_settings):
        return make_detection(EVENTS[path.name], file=str(path))

    pipe.receipt_of = lambda **settings: settings
    monkeypatch.setattr(detect, "load_pipeline", lambda args: pipe)
    return folder


def found_rows(detections) -> list[tuple]:
    return [(event.onset, event.offset, event.label) for one in detections for event in one.events]


EXPECTED = [(0.5, 1.25, "dog_bark"), (3.21, 4.08, "dog bark")]


@pytest.mark.parametrize("format", FORMATS)
def test_one_recording_to_stdout(audio, tmp_path, capsysbinary, format):
    assert main(["detect", str(audio / "a.wav"), "--format", format]) == 0
    (tmp_path / "events").write_bytes(capsysbinary.readouterr().out)
    assert found_rows(read_events(tmp_path / "events", format)) == EXPECTED


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "audacity"])
def test_several_recordings_to_one_file(audio, tmp_path, capsys, format):
    path = tmp_path / f"events{SUFFIXES[format]}"
    assert main(["detect", str(audio), "--out", str(path)]) == 0  # the name tells the format
    found = read_events(path)
    files = [one.file for one in found]
    assert files[:2] == [str(audio / "a.wav"), str(audio / "b.wav")]
    assert (str(audio / "silent.wav") in files) == (format in ("json", "jsonl"))
    assert found_rows(found) == [*EXPECTED, (1.0, 2.0, "rain")] and capsys.readouterr().out == ""


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_gets_one_file_per_recording(audio, tmp_path, format):
    target = tmp_path / "out"
    assert main(["detect", str(audio), "--format", format, "--out", f"{target}/"]) == 0
    expected = [f"{name.removesuffix('.wav')}{SUFFIXES[format]}" for name in EVENTS]
    assert sorted(path.name for path in target.iterdir()) == sorted([*expected, MANIFEST])
    assert found_rows(read_events(target / f"a{SUFFIXES[format]}")) == EXPECTED
    assert found_rows(read_events(target / f"silent{SUFFIXES[format]}")) == []


@pytest.mark.parametrize(
    ("options", "start"),
    [
        (["--out", "a.txt"], "{audio}/a.wav  5.00 s, 2 events"),
        (["--out", "a.JSON"], "{{"),
        (["--out", "a.json", "--format", "table"], "{audio}/a.wav  5.00 s, 2 events"),
        (["--out", "a.selections.txt"], "Selection\tView\t"),
        (["--out", "a.labels.txt"], "0.500000\t1.250000\tdog_bark (score 0.91)\n"),
    ],
)
def test_the_name_of_the_output_tells_the_format(audio, tmp_path, monkeypatch, options, start):
    monkeypatch.chdir(tmp_path)
    assert main(["detect", str(audio / "a.wav"), *options]) == 0
    assert (tmp_path / options[1]).read_text().startswith(start.format(audio=audio))


@pytest.mark.parametrize("options", [[], ["--out", "all.labels.txt"]])
def test_one_label_track_of_several_recordings_is_refused(audio, tmp_path, monkeypatch, capsys, options):
    monkeypatch.chdir(tmp_path)
    assert main(["detect", str(audio), "--format", "audacity", *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == (
        "easysed detect: error: --format audacity: a label track holds one recording; for several, or a folder, write "
        "one track each: --out labels/\n"
    )
    assert not (tmp_path / "all.labels.txt").exists()


def test_parquet_is_not_written_to_a_terminal(audio, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["detect", str(audio), "--format", "parquet"]) == 2
    assert capsys.readouterr() == (
        "",
        "easysed detect: error: --format parquet is binary, not for a terminal: --out events.parquet, or redirect the "
        "output\n",
    )


def test_parquet_needs_pyarrow_before_the_work(audio, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["detect", str(audio), "--out", str(tmp_path / "a.parquet")]) == 2
    assert capsys.readouterr().err == (
        'easysed detect: error: --format parquet needs pyarrow: pip install "easysed[parquet]"\n'
    )


def test_parquet_goes_to_a_pipe(audio, monkeypatch):
    """A pipe cannot seek, nor tell where it is."""

    class Pipe(io.RawIOBase):
        content = b""

        def writable(self) -> bool:
            return True

        def write(self, data) -> int:
            self.content += bytes(data)
            return len(data)

    pipe = Pipe()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=pipe, isatty=lambda: False))
    assert main(["detect", str(audio), "--format", "parquet"]) == 0
    assert polars.read_parquet(pipe.content)["label"].to_list() == ["dog_bark", "dog bark", "rain"]


def test_what_an_interrupted_run_leaves(audio, tmp_path, monkeypatch):
    """Lines that were written stay; a Parquet file without its end could not be read, so the old one stays."""

    def pipe(path, **_settings):
        if path.name == "b.wav":
            raise KeyboardInterrupt
        return make_detection(EVENTS[path.name], file=str(path))

    monkeypatch.setattr(detect, "load_pipeline", lambda args: pipe)
    for suffix in (".jsonl", ".parquet"):
        (tmp_path / f"events{suffix}").write_text("before")
        assert main(["detect", str(audio), "--out", str(tmp_path / f"events{suffix}")]) == 130
    assert json.loads((tmp_path / "events.jsonl").read_text())["file"] == str(audio / "a.wav")
    assert (tmp_path / "events.parquet").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audio", "events.jsonl", "events.parquet"]


def test_an_output_that_cannot_be_written_is_one_line(audio, tmp_path, capsys):
    (tmp_path / "out" / "a.rttm").mkdir(parents=True)
    assert main(["detect", str(audio), "--format", "rttm", "--out", str(tmp_path / "out")]) == 1
    assert "a.rttm cannot be written: Is a directory\n" in capsys.readouterr().err
