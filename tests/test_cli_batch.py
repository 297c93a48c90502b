"""`easysed detect --out FOLDER`: manifest, resuming, bad files, workers, and a kill at any moment."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_pipeline import RATE, make_audio, make_pipe
from tiny_training import two_processes

from modeling_easysed import read_events
from modeling_easysed.cli import batch
from modeling_easysed.cli.inputs import Input
from modeling_easysed.cli.main import main as easysed

NUM_GOOD = 6
PLAIN = ["--uncertainty", "none", "--shifts", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    make_pipe().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def audio(tmp_path) -> Path:
    folder = tmp_path / "audio"
    for number in range(NUM_GOOD):
        below = {4: "/".join("abcdefgh"), 5: "Brücke 鳥"}.get(number, ".")
        path = folder / below / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, make_audio(1.0 + 0.2 * number, number), RATE)
    return folder


def detect(model: str, audio: Path, out: Path, *more: str) -> int:
    return easysed(["detect", str(audio), "--model", model, "--out", f"{out}/", *PLAIN, *more])


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def heard(monkeypatch) -> list[str]:
    """The names of the recordings that the model was run on."""
    names, process = [], batch.process

    def spy(pipe, settings, task):
        names.append(task.path.name)
        return process(pipe, settings, task)

    monkeypatch.setattr(batch, "process", spy)
    return names


def test_every_format_of_every_recording_and_a_manifest(model, audio, tmp_path, capsys):
    out = tmp_path / "out"
    assert detect(model, audio, out, "--format", "csv,jsonl,raven", "--plot", f"{tmp_path}/pictures/") == 0
    assert len(list(out.rglob("*.csv"))) == len(list(out.rglob("[0-9].jsonl"))) == NUM_GOOD
    assert len(list(out.rglob("*.selections.txt"))) == len(list((tmp_path / "pictures").rglob("*.png"))) == NUM_GOOD
    (detection,) = read_events(out / "Brücke 鳥" / "5.jsonl")
    assert detection.file == str(audio / "Brücke 鳥" / "5.wav") and detection.duration == 2.0
    entries = [json.loads(line) for line in (out / batch.MANIFEST).read_text(encoding="utf-8").splitlines()]
    assert [entry["file"] for entry in entries] == sorted(entry["file"] for entry in entries)
    assert len(entries) == NUM_GOOD and all(entry["content"].startswith("sha256:") for entry in entries)
    (entry,) = [one for one in entries if one["file"] == detection.file]
    assert entry["num_events"] == len(detection.events) and entry["outputs"]["csv"] == "Brücke 鳥/5.csv"
    error = capsys.readouterr().err
    assert f"{NUM_GOOD} recordings (0.00 h) done" in error and error.count("not calibrated") == 1


def test_only_what_changed_is_done_again(model, audio, tmp_path, heard, capsys):
    out = tmp_path / "out"
    assert detect(model, audio, out, "--format", "csv") == 0 and len(heard) == NUM_GOOD
    before = content_of(out)
    heard.clear()
    assert detect(model, audio, out, "--format", "csv") == 0 and heard == []
    assert f"{NUM_GOOD} were done already" in capsys.readouterr().err and content_of(out) == before
    soundfile.write(audio / "2.wav", make_audio(1.5, 77), RATE)
    (out / "3.csv").unlink()
    os.utime(audio / "1.wav", (1, 1))  # touched, but the same
    assert detect(model, audio, out, "--format", "csv") == 0 and sorted(heard) == ["2.wav", "3.wav"]
    heard.clear()
    assert detect(model, audio, out, "--format", "csv", "--exit", "1") == 0 and len(heard) == NUM_GOOD
    heard.clear()
    assert detect(model, audio, out, "--format", "csv,json", "--exit", "1") == 0 and len(heard) == NUM_GOOD


def test_bad_files_are_named_and_the_others_done(model, audio, tmp_path, capsys):
    good = (audio / "0.wav").read_bytes()
    bad = {
        "empty.wav": (b"", "empty"),
        "text.wav": (b"this is no sound at all, but text", "is not audio"),
        "container.m4a": (b"\x00\x00\x00\x18ftypM4A " + b"\x00" * 40, "m4a"),
        "no_channels.wav": (good[:22] + b"\x00\x00" + good[24:], "is not audio"),
        "header_only.wav": (good[:44], "no samples"),
    }
    for name, (content, _) in bad.items():
        (audio / name).write_bytes(content)
    soundfile.write(audio / "nan.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    (audio / "truncated.wav").write_bytes(good[: len(good) // 2])
    soundfile.write(audio / "one_sample.wav", np.zeros(1), RATE)
    soundfile.write(audio / "eight.wav", np.random.default_rng(0).normal(0, 0.1, (RATE, 8)), RATE)
    soundfile.write(audio / "fast.wav", np.random.default_rng(0).normal(0, 0.1, 192000), 192000)
    shutil.copy(audio / "0.wav", audio / "wrong.mp3")
    out = tmp_path / "out"
    assert detect(model, audio, out, "--format", "json") == 1
    error = capsys.readouterr().err
    summary = error[error.index(" failed:") :]
    for name, (_, reason) in {**bad, "nan.wav": (b"", "NaN")}.items():
        assert any(name in line and reason in line for line in summary.splitlines()), name
    done = {path.stem for path in out.rglob("*.json")}
    assert {"truncated", "one_sample", "eight", "fast", "wrong", "0", "5"} <= done and not done & {
        "nan",
        "empty",
        "text",
    }
    assert f"{len(bad) + 1} failed:" in error


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read_is_named(model, audio, tmp_path, capsys):
    (audio / "0.wav").chmod(0)
    assert detect(model, audio, tmp_path / "out") == 1
    assert "0.wav cannot be read: Permission denied" in capsys.readouterr().err


def test_nothing_but_bad_files_is_exit_status_2(model, tmp_path, capsys):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "empty.wav").write_bytes(b"")
    assert detect(model, tmp_path / "audio", tmp_path / "out") == 2


KILL_SCRIPT = """
import os, signal, sys
from modeling_easysed.cli.main import main
call, left, real = sys.argv[1], int(sys.argv[2]), {"fsync": os.fsync, "replace": os.replace}[sys.argv[1]]
def deadly(*arguments, **named):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **named)
setattr(os, call, deadly)
main(sys.argv[3:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_and_resumed_gives_the_same_folder(model, audio, tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    assert detect(model, audio, unbroken, "--format", "csv,jsonl") == 0
    arguments = ["detect", str(audio), "--model", model, "--out", f"{broken}/", "--format", "csv,jsonl", *PLAIN]
    for call, number in (("replace", 2), ("fsync", 3)):  # between the files of a recording; before its entry is safe
        done = subprocess.run([sys.executable, "-c", KILL_SCRIPT, call, str(number), *arguments], capture_output=True)
        assert done.returncode == -9
        assert any(name.endswith(".part") for name in content_of(broken)) == (call == "replace")
    with (broken / batch.MANIFEST).open("a") as file:
        file.write('{"file": "cut o')
    assert detect(model, audio, broken, "--format", "csv,jsonl") == 0
    assert content_of(broken) == content_of(unbroken)


def test_workers_write_the_same_files(model, audio, tmp_path):
    (audio / "bad.wav").write_bytes(b"")
    for out, workers in (("one", "1"), ("two", "2")):
        assert detect(model, audio, tmp_path / out, "--format", "csv,json", "--workers", workers) == 1
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def test_processes_of_accelerate_share_the_list(model, audio, tmp_path):
    (audio / "bad.wav").write_bytes(b"")
    assert detect(model, audio, tmp_path / "one", "--format", "csv,json") == 1
    command = [
        "-m",
        "modeling_easysed.cli.main",
        "detect",
        str(audio),
        "--model",
        model,
        *PLAIN,
        "--format",
        "csv,json",
    ]
    out = ["--out", f"{tmp_path}/two/"]
    done = subprocess.run([*two_processes(), *command, *out], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count(f"{NUM_GOOD} recordings (0.00 h) done") == 1, done.stderr
    assert done.stderr.count("not calibrated") == 1 and "1 failed:" in done.stderr
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")  # and no manifest of one process is left


def test_processes_need_an_output_folder(model, audio, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert easysed(["detect", str(audio), "--model", model, *PLAIN]) == 2
    assert "several processes share a list only with an output folder" in capsys.readouterr().err


def test_entries_of_a_process_that_was_killed_count(tmp_path):
    batch.Manifest(tmp_path).add({"file": "a.wav", "content": "1", "settings": "s"})
    batch.Manifest(tmp_path, rank=1).add({"file": "b.wav", "content": "2", "settings": "s"})
    assert len(list(tmp_path.iterdir())) == 2
    manifest = batch.Manifest(tmp_path)
    assert manifest.is_done(batch.Task(Path("b.wav"), {}), "2", "s")
    manifest.tidy()
    assert [path.name for path in tmp_path.iterdir()] == [batch.MANIFEST]
    assert set(batch.Manifest(tmp_path).entries) == {"a.wav", "b.wav"}


def light_start(args: argparse.Namespace, num_threads: int) -> None:
    pass


def work_or_die(task: batch.Task) -> dict:
    if task.path.name.startswith("killer"):
        os._exit(9)
    return {"duration": 1.0, "num_events": 0, "warnings": []}


def test_a_worker_that_dies_costs_one_recording(monkeypatch):
    monkeypatch.setattr(batch, "start_worker", light_start)
    monkeypatch.setattr(batch, "work", work_or_die)
    names = [f"{number}.wav" for number in range(12)]
    names[3], names[7] = "killer_a.wav", "killer_b.wav"
    tasks = batch.plan([Input(Path(name), Path(name)) for name in names], Path("out"), ["csv"], None)
    results = list(batch.results_of_workers(argparse.Namespace(workers=2), iter(tasks)))
    assert sorted(task.path.name for task, _ in results) == sorted(names)
    failed = {task.path.name: result["error"] for task, result in results if "error" in result}
    assert set(failed) == {"killer_a.wav", "killer_b.wav"} and all("died" in error for error in failed.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0", "--out", "x/"], "--workers must be at least 1"),
        (["--workers", "2"], "--workers needs an output folder"),
        (["--format", "csv,json"], "several formats need an output folder"),
        (["--format", "csv,doc", "--out", "x/"], "got 'doc'"),
    ],
)
def test_wrong_usage_is_one_line(model, audio, capsys, arguments, message):
    assert easysed(["detect", str(audio), "--model", model, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
