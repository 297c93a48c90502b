"""`easysed doctor`: facts, measures, warnings with their next steps, and exit status."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from modeling_easysed.cli import doctor
from modeling_easysed.cli.doctor import NEXT_STEPS, OTHER_NEXT_STEP

RATE = 16000


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser(prog="easysed")
    doctor.add_parser(parser.add_subparsers()).add_argument("--debug", action="store_true")
    return doctor.run(parser.parse_args(["doctor", *map(str, arguments)]))


def sound(duration_s: float = 2.0, rate: int = RATE) -> np.ndarray:
    """Noise that swells and fades: nothing is wrong with it."""
    noise = 0.05 * np.random.default_rng(0).standard_normal(round(duration_s * rate))
    return noise * (0.05 + np.sin(4 * np.pi * np.arange(len(noise)) / rate) ** 2)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A good and a clipped recording, the second one level down."""
    (tmp_path / "audio" / "deep").mkdir(parents=True)
    soundfile.write(tmp_path / "audio" / "good.wav", np.stack([sound(rate=44100)] * 2, axis=1), 44100)
    soundfile.write(tmp_path / "audio" / "deep" / "clipped.flac", np.clip(100 * sound(), -0.5, 0.5), RATE)
    return tmp_path / "audio"


@pytest.fixture
def text_file(tmp_path) -> Path:
    path = tmp_path / "text.wav"
    path.write_text("no audio\n" * 100)
    return path


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


# ---- what is printed -------------------------------------------------------------------------------------------------


def test_a_good_recording(folder, capsys):
    assert run(folder / "good.wav") == 0
    out, err = capsys.readouterr()
    facts, levels, rest, verdict = lines(out)
    assert facts == f"{folder / 'good.wav'}  2.00 s, 44100 Hz, 2 channels"
    assert levels.startswith("  peak -") and ", level -" in levels and "noise floor -" in levels
    assert rest.startswith("  clipped no, offset ") and ", bandwidth 7" in rest  # the resampler takes the rest
    assert verdict == "  good" and err == ""


def test_a_warning_comes_with_its_next_step(folder, capsys):
    assert run(folder / "deep" / "clipped.flac") == 0
    out = lines(capsys.readouterr().out)
    assert out[0].endswith("clipped.flac  2.00 s, 16000 Hz, 1 channel") and "clipped yes" in out[2]
    assert out[3].startswith("  clipped: ") and out[4] == f"    what to do: {NEXT_STEPS['clipped']}"
    assert "  good" not in out


def test_a_folder_has_a_block_for_every_file(folder, capsys):
    assert run(folder) == 0
    out, err = capsys.readouterr()
    assert [block.split("  ")[0] for block in out.split("\n\n")] == [
        str(folder / "good.wav"),
        str(folder / "deep" / "clipped.flac"),
    ]
    assert lines(err) == ["easysed doctor: 1 of 2 recordings are good"]


def test_json_of_one_file_is_an_object(folder, capsys):
    assert run(folder / "good.wav", "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["file"], found["sampling_rate"], found["num_channels"]) == (str(folder / "good.wav"), 44100, 2)
    assert found["duration"] == 2.0 and found["is_good"] and found["findings"] == []
    assert found["measures"]["bandwidth_hz"] == pytest.approx(8000, rel=0.02) and found["measures"]["cutoff_hz"] is None


def test_json_of_several_is_an_array(folder, capsys):
    assert run(folder, "--format", "json") == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["is_good"] and not second["is_good"]
    (finding,) = second["findings"]
    assert finding["warning"].startswith("clipped: ") and finding["next_step"] == NEXT_STEPS["clipped"]
    assert run(folder / "deep", "--format", "json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 1


def test_silence_is_json_without_infinities(tmp_path, capsys):
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    assert run(tmp_path / "silent.wav", "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["next_step"] for one in found["findings"]] == [NEXT_STEPS["silent"]]
    assert found["measures"]["peak_db"] == -120.0


# ---- next steps ------------------------------------------------------------------------------------------------------


def every_fault() -> dict[str, tuple[np.ndarray, int]]:
    """One recording for every key word that an array can give."""
    good = sound()
    return {
        "silent": (np.zeros(RATE), RATE),
        "silent when mixed": (np.stack([good, -good], axis=1), RATE),
        "out of range": (20000 * good, RATE),
        "clipped": (np.clip(100 * good, -1, 1), RATE),
        "too short": (good[2000:4000], RATE),
        "band-limited": (sound(rate=8000), 8000),
        "too quiet": (0.002 * good, RATE),
        "off centre": (good + 0.2, RATE),
        "noisy": (0.05 * np.random.default_rng(0).standard_normal(2 * RATE), RATE),
    }


@pytest.mark.parametrize("key_word", every_fault())
def test_every_warning_has_its_next_step(tmp_path, key_word):
    samples, rate = every_fault()[key_word]
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    (finding,) = doctor.examine(tmp_path / "a.wav").findings
    assert finding.warning.startswith(f"{key_word}: ") and finding.next_step == NEXT_STEPS[key_word]


def test_a_damaged_file_has_its_next_step(tmp_path):
    soundfile.write(tmp_path / "a.flac", sound(4.0), RATE)
    content = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(content[: len(content) // 2])
    (finding,) = doctor.examine(tmp_path / "a.flac").findings
    assert finding.warning.startswith("damaged: ") and finding.next_step == NEXT_STEPS["damaged"]
    assert set(every_fault()) | {"damaged"} == set(NEXT_STEPS)


def test_a_warning_of_another_kind_has_a_next_step_too(folder, monkeypatch):
    monkeypatch.setattr("modeling_easysed.input_easysed.all_warnings", lambda *_: ["odd: something new"])
    (finding,) = doctor.examine(folder / "good.wav").findings
    assert finding.next_step == OTHER_NEXT_STEP


# ---- failures and exit status ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["table", "json"])
def test_some_inputs_failed(folder, text_file, kind, capsys):
    assert run(text_file, folder, "no/such.wav", "--format", kind) == 1
    out, err = capsys.readouterr()
    assert "good.wav" in out and "clipped.flac" in out and "text.wav" not in out
    if kind == "json":
        assert len(json.loads(out)) == 2
    assert lines(err)[0] == "easysed doctor: error: no/such.wav: does not exist, check the path"
    assert lines(err)[1].startswith(f"easysed doctor: error: {text_file} is not audio that can be read")
    assert lines(err)[2:] == [
        "easysed doctor: 1 of 2 recordings are good",
        "easysed doctor: 2 of 4 inputs failed, the others are done",
    ]


def test_all_inputs_failed(text_file, capsys):
    assert run(text_file, "--format", "json") == 2
    out, err = capsys.readouterr()
    assert out == "" and len(lines(err)) == 1 and "is not audio" in err
    assert run(text_file, "no.wav", "--format", "json") == 2
    out, err = capsys.readouterr()
    assert json.loads(out) == [] and lines(err)[-1] == "easysed doctor: all 2 inputs failed"


def test_nothing_to_do(tmp_path, capsys):
    assert run("no.wav") == 2
    assert lines(capsys.readouterr().err) == ["easysed doctor: error: no.wav: does not exist, check the path"]
    assert run(tmp_path) == 2
    assert "no audio files in this folder" in capsys.readouterr().err


def test_unexpected_errors_are_one_line_and_debug_shows_them(folder, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("modeling_easysed.input_easysed.measure_input", fail)
    path = folder / "good.wav"
    assert run(path) == 2
    assert lines(capsys.readouterr().err) == [f"easysed doctor: error: {path}: a bug"]
    assert run(path, "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_neither_torch_nor_transformers_is_imported(folder):
    script = (
        "import argparse, sys; from modeling_easysed.cli import doctor; "
        "assert 'numpy' not in sys.modules; "  # `easysed --help` stays quick
        "parser = argparse.ArgumentParser(); doctor.add_parser(parser.add_subparsers()); "
        "doctor.run(parser.parse_args(['doctor', sys.argv[1]])); "
        "print('IMPORTED', {'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=60)
    assert lines(done.stdout)[-1] == "IMPORTED set()", done.stderr
    assert lines(done.stderr) == ["easysed doctor: 1 of 2 recordings are good"]
