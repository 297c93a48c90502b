"""Every flag of every command is exercised by a test: those that no other file shows, and a check that none is left."""

import argparse
import inspect
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import distractors
import finetune
import numpy as np
import pytest
import rare_event_decision
import soundfile
import soundscapes
import tune_decoding
from test_pipeline import RATE, make_audio, make_pipe

import modeling_easysed.hub
from modeling_easysed import DEFAULT_CHECKPOINT
from modeling_easysed.cli import detect, stream
from modeling_easysed.cli.main import build_parser
from modeling_easysed.cli.main import main as easysed
from modeling_easysed.model_cards.write_card import main as write_card_main

ROOT = Path(__file__).resolve().parents[1]
TESTED_BY = {  # command: files that call it
    "detect": ("test_cli.py", "test_cli_batch.py", "test_formats_cli.py", "test_report.py", "test_every_flag.py"),
    "stream": ("test_cli_stream.py", "test_every_flag.py"),
    "cluster": ("test_cluster.py", "test_every_flag.py"),
    "doctor": ("test_doctor.py",),
    "models": ("test_cli.py",),
    "export": ("test_export_cli.py", "test_export_web.py"),
    "app": ("test_app.py", "test_space.py", "test_space_api.py"),
    "push": ("test_push.py", "test_push_space.py", "test_every_flag.py"),
}
SCRIPT = re.compile(r'add_argument\(\s*f?"(--[a-z_-]+)"')
DEBUG = "--debug"  # of all commands, by one and the same line: tests/test_cli.py


def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = [one for one in build_parser()._actions if isinstance(one, argparse._SubParsersAction)]
    return action.choices


def flags_of(parser: argparse.ArgumentParser) -> list[str]:
    flags = [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]
    return [flag for flag in flags if flag not in ("--help", DEBUG)]


@pytest.mark.parametrize("command", sorted(commands()))
def test_a_test_gives_every_flag(command):
    source = "".join(
        (ROOT / "tests" / name).read_text() for name in TESTED_BY[command] if (ROOT / "tests" / name).exists()
    )
    assert [flag for flag in flags_of(commands()[command]) if f'"{flag}"' not in source] == []


@pytest.mark.parametrize("script", sorted((ROOT / "training").glob("*.py")), ids=lambda path: path.stem)
def test_a_test_gives_every_flag_of_a_script(script):
    source = "".join(path.read_text() for path in (ROOT / "tests").glob("*.py"))
    names = [flag.removeprefix("--") for flag in SCRIPT.findall(script.read_text())]
    ways = ('"--{}"', '"{}": ', "{}=")  # as a word of a command, or as a value that becomes one
    assert [name for name in names if not any(way.format(name) in source for way in ways)] == []


# ---- detect, stream, cluster: what is asked for arrives --------------------------------------------------------------

TRUST = ["--uncertainty", "exits", "--passes", "7", "--shifts", "1", "--seed", "5", "--exit", "2"]
TRUST += ["--min-precision", "0.7", "--min-recall", "0.6", "--max-false-alarms-per-hour", "3"]
GIVEN = {"uncertainty": "exits", "passes": 7, "shifts": 1, "seed": 5, "exit": 2}
GOALS = {"min_precision": 0.7, "min_recall": 0.6, "max_false_alarms_per_hour": 3.0}


@pytest.mark.parametrize("command", ["detect", "cluster"])
def test_every_setting_of_trust_reaches_the_pipeline(command):
    out = ["--out", "set"] if command == "cluster" else []
    args = build_parser().parse_args([command, "a.wav", *out, "--device", "cpu", *TRUST])
    assert detect.settings_of(args) == {**GIVEN, **GOALS} and args.device == "cpu"


@pytest.mark.parametrize("command", ["detect", "cluster", "stream"])
def test_the_runtime_that_is_asked_for_is_loaded(command):
    """Beside whole detections of both, tests/test_runtime.py."""
    paths = {"detect": ["a.wav"], "cluster": ["a.wav", "--out", "set"], "stream": []}[command]
    for runtime, kind in (("torch", "TorchDetector"), ("onnx", "OnnxDetector")):
        args = build_parser().parse_args([command, *paths, "--device", "cpu", "--runtime", runtime])
        args.debug = False
        assert type(detect.load_pipeline(args)).__name__ == kind


@pytest.mark.parametrize(
    ("goal", "sentence"),
    [
        (["--min-precision", "0.6"], "accepted events are right in at least 60 %"),
        (["--min-recall", "0.3"], "at least 30 %"),
        (["--max-false-alarms-per-hour", "40"], "at most 40 false alarms per hour"),
    ],
)
def test_a_goal_is_told_with_the_events(goal, sentence, tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", make_audio(2.0), RATE)
    plain = ["--uncertainty", "none", "--shifts", "0", "--exit", "1", "--format", "json", "--device", "cpu"]
    assert easysed(["detect", str(tmp_path / "a.wav"), "--model", DEFAULT_CHECKPOINT, *plain, *goal]) == 0
    assert sentence in " ".join(json.loads(capsys.readouterr().out)["decision_rule"])


def test_every_setting_of_a_stream(monkeypatch, tmp_path, capsys):
    make_pipe().save_pretrained(tmp_path / "model")
    given = {}

    class Recorder:
        warnings, latency_s, duration, sampling_rate = [], 1.0, 0.0, 8000

        def __init__(self, pipe, rate, **settings):
            given.update(rate=rate, device=pipe.device.type, **settings)

        def push(self, block):
            given["channels"] = np.asarray(block).shape[1:]
            return []

        def close(self):
            return []

    monkeypatch.setattr("modeling_easysed.stream_easysed.EventStream", Recorder)
    monkeypatch.setattr(detect, "load_pipeline", lambda args: make_pipe())
    monkeypatch.setattr(stream, "load_pipeline", lambda args: make_pipe(), raising=False)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\x00" * 16000)))
    source = [
        "--source",
        "stdin",
        "--sampling-rate",
        "8000",
        "--channels",
        "2",
        "--encoding",
        "f32",
        "--duration",
        "0.1",
    ]
    assert easysed(["stream", "--model", str(tmp_path / "model"), *source, "--device", "cpu", *TRUST]) == 0
    assert {**GIVEN, **GOALS}.items() <= given.items() and given["rate"] == 8000 and given["device"] == "cpu"


# ---- push ------------------------------------------------------------------------------------------------------------


def test_every_wish_reaches_the_hub(monkeypatch, tmp_path, capsys):
    asked = {}

    def push(model, repo_id, exits, **wishes):
        asked.update(model=model, repo_id=repo_id, exits=exits, **wishes)
        return ["https://hub/me/x"]

    monkeypatch.setattr(modeling_easysed.hub, "push", push)
    wishes = ["--exits", "1,2", "--private", "--tag", "v2", "--results", "r.json", "--clips", "c", "--license", "mit"]
    for spelling in ("--base_model", "--base-model"):
        assert easysed(["push", str(tmp_path), "me/x", *wishes, spelling, "me/base"]) == 0
        assert capsys.readouterr().out == "https://hub/me/x\n"
        progress = asked.pop("progress")
        assert callable(progress) and asked == {
            "model": str(tmp_path),
            "repo_id": "me/x",
            "exits": [1, 2],
            "private": True,
            "tag": "v2",
            "results": Path("r.json"),
            "clips": Path("c"),
            "license": "mit",
            "base_model": "me/base",
        }
        asked.clear()


# ---- scripts ---------------------------------------------------------------------------------------------------------


def test_fine_tuning_takes_every_setting():
    words = {
        "base": "b", "positives": "p", "background": "g", "label": "l", "output_dir": "o", "rehearsal": "r",
        "old_data": "d", "old_split": "dev", "seed": 3, "gap_s": 0.5, "max_false_alarms_per_hour": 2.0,
        "max_background_hours": 1.5, "fine_tune": "never", "fine_tune_steps": 9, "calibration": "none",
    }  # fmt: skip
    argv = [str(word) for name, value in words.items() for word in (f"--{name}", value)]
    settings = finetune.parse([*argv, "--rehearsal_folds", "1", "2"])
    assert vars(settings) == {**words, "rehearsal_folds": ["1", "2"]}
    fields = set(inspect.signature(rare_event_decision.Settings).parameters)
    assert fields == {*words, "rehearsal_folds"}


@pytest.mark.parametrize(("objective", "weight"), [("event_f1", 0.0), ("both", 0.3), ("segment_f1", 1.0)])
@pytest.mark.parametrize("method", ["boxes", "threshold"])
def test_tuning_takes_every_setting(objective, weight, method, monkeypatch, tmp_path, capsys):
    asked = []

    def tune_checkpoint(folder, data, split, search, name):
        asked.append((data, split, search, name))
        return {"id": "12345678"}

    monkeypatch.setattr(tune_decoding, "tune_checkpoint", tune_checkpoint)
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(tune_decoding, "local_checkpoint", lambda name: tmp_path)
    words = ["--model", "m", "--data", "d", "--split", "dev", "--pooling", "0.25", "--threshold_pooling", "0.75"]
    monkeypatch.setattr(sys, "argv", ["tune_decoding.py", *words, "--objective", objective, "--method", method])
    assert tune_decoding.main() == 0 and "wrote decoding 12345678" in capsys.readouterr().out
    assert asked == [("d", "dev", tune_decoding.Search(method, weight, 0.25, 0.75), objective)]
    assert json.loads((tmp_path / "config.json").read_text()) == {"decoding": {"id": "12345678"}}


def test_soundscapes_and_distractors_to_disk(monkeypatch, tmp_path, capsys):
    clips = tmp_path / "clips"
    (clips / "audio").mkdir(parents=True)
    rows = ["file_name,label,fold"]
    for number in range(4):
        soundfile.write(clips / "audio" / f"{number}.wav", make_audio(2.0, number), RATE)
        rows.append(f"audio/{number}.wav,{('dog', 'rain')[number % 2]},{1 + number // 2}")
    (clips / "metadata.csv").write_text("\n".join(rows) + "\n")
    words = ["--data", str(clips), "--folds", "1,2", "--num", "3", "--seed", "4", "--split", "dev"]
    monkeypatch.setattr(sys, "argv", ["soundscapes.py", *words, "--out", str(tmp_path / "scapes")])
    soundscapes.main()
    assert len(list((tmp_path / "scapes" / "audio" / "dev").iterdir())) == 3
    assert (tmp_path / "scapes" / "dev.tsv").read_text().startswith("filename\t")
    for seed in ("0", "0", "1"):
        monkeypatch.setattr(
            sys, "argv", ["distractors.py", "--num", "2", "--seed", seed, "--out", f"{tmp_path}/o{seed}"]
        )
        distractors.main()
    first, other = (sorted((tmp_path / name).iterdir()) for name in ("o0", "o1"))
    assert len(first) == len(other) == 2 and first[0].read_bytes() != other[0].read_bytes()


def test_a_card_takes_a_name_and_a_licence(tmp_path, capsys):
    make_pipe().save_pretrained(tmp_path)
    assert write_card_main(["--model", str(tmp_path), "--name", "me/owls", "--license", "cc-by-4.0"]) == 0
    text = (tmp_path / "README.md").read_text()
    assert "# me/owls" in text and "license: cc-by-4.0" in text


def test_help_of_every_command_names_its_flags():
    for name, parser in commands().items():
        done = subprocess.run(
            [sys.executable, "-m", "modeling_easysed.cli.main", name, "--help"],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert done.returncode == 0 and all(flag in done.stdout for flag in flags_of(parser)), name
