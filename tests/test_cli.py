"""The command line: formats, streams, exit status, and one clear line for everything that goes wrong."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny import tiny_model

from modeling_easysed import EasySEDFeatureExtractor, bundled
from modeling_easysed.cli import detect
from modeling_easysed.cli.inputs import Input, collect, output_names
from modeling_easysed.cli.main import main
from modeling_easysed.cli.terminal import warning_line
from modeling_easysed.detection_easysed import ROW_COLUMNS

RATE = 16000


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A tiny checkpoint whose random exits find events in noise."""
    network = tiny_model(window_s=2.0, context_s=0.6)
    for head in network.exits:
        torch.nn.init.normal_(head.classifier.weight, generator=torch.Generator().manual_seed(1))
        torch.nn.init.zeros_(head.classifier.bias)
    folder = tmp_path_factory.mktemp("model") / "tiny-sed"
    network.save_pretrained(folder)
    EasySEDFeatureExtractor(feature_size=32, mel_mean=[-40.0] * 32, mel_std=[15.0] * 32).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def audio(tmp_path) -> Path:
    """A folder with two recordings, one of them one level down, and things that are no recordings."""
    folder = tmp_path / "audio"
    (folder / "deep").mkdir(parents=True)
    for name, num_seconds in (("a.wav", 3), ("deep/b.flac", 2)):
        samples = 0.2 * np.random.default_rng(num_seconds).standard_normal(num_seconds * RATE)
        samples *= np.repeat([0.02, 1.0] * num_seconds, RATE // 2)  # steady noise would be warned about
        soundfile.write(folder / name, samples, RATE)
    (folder / "notes.txt").write_text("notes")
    (folder / ".hidden.wav").write_text("no audio")
    return folder


@pytest.fixture
def text_file(tmp_path) -> str:
    path = tmp_path / "text.wav"
    path.write_text("no audio\n" * 100)
    return str(path)


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


# ---- formats ---------------------------------------------------------------------------------------------------------


def test_json_of_one_file_is_an_object(model, audio, capsys):
    assert main(["detect", str(audio / "a.wav"), "--model", model, "--format", "json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["file"] == str(audio / "a.wav") and found["duration"] == 3.0 and found["events"]
    assert found["receipt"]["model"] == "tiny-sed" and found["receipt"]["exit"] == "auto"
    assert lines(err) == [f"easysed detect: warning: {found['warnings'][0]}"]


def test_json_of_a_folder_is_an_array(model, audio, capsys):
    assert main(["detect", str(audio), "--model", model, "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert [found["file"] for found in json.loads(out)] == [str(audio / "a.wav"), str(audio / "deep" / "b.flac")]
    assert len(lines(err)) == 1  # the warning that is the same for all files is said once
    assert main(["detect", str(audio / "deep"), "--model", model, "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1


def test_jsonl_is_one_line_per_file(model, audio, capsys):
    assert main(["detect", str(audio), "--model", model, "--format", "jsonl"]) == 0
    found = [json.loads(line) for line in lines(capsys.readouterr().out)]
    assert [Path(one["file"]).name for one in found] == ["a.wav", "b.flac"]


def test_csv_has_one_row_per_event(model, audio, capsys):
    assert main(["detect", str(audio), "--model", model, "--format", "csv"]) == 0
    out = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(out)))
    assert tuple(rows[0]) == ROW_COLUMNS
    assert main(["detect", str(audio), "--model", model, "--format", "json"]) == 0
    events = [event for one in json.loads(capsys.readouterr().out) for event in one["events"]]
    assert [(float(row["onset"]), row["label"]) for row in rows] == [(one["onset"], one["label"]) for one in events]
    assert {row["confidence"] for row in rows} == {""}


def test_table_has_a_line_per_event(model, audio, capsys):
    assert main(["detect", str(audio / "a.wav"), "--model", model]) == 0
    head, columns, *rows = lines(capsys.readouterr().out)
    assert head.startswith(f"{audio / 'a.wav'}  3.00 s, {len(rows)} event")
    assert columns.split() == ["onset", "offset", "label", "score"]
    assert all(row.split()[2] in ("dog_bark", "rain", "rooster") for row in rows)


def test_the_exit_can_be_chosen(model, audio, capsys):
    assert (
        main(["detect", str(audio / "a.wav"), "--model", model, "--format", "json", "--exit", "1", "--seed", "7"]) == 0
    )
    receipt = json.loads(capsys.readouterr().out)["receipt"]
    assert (receipt["exit"], receipt["seed"]) == (1, 7)


# ---- outputs ---------------------------------------------------------------------------------------------------------


def test_trust_settings_reach_the_receipt(model, audio, capsys):
    options = ["--uncertainty", "mc", "--passes", "3", "--shifts", "1", "--seed", "7"]
    assert main(["detect", str(audio / "a.wav"), "--model", model, "--format", "json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    receipt = found["receipt"]
    assert [receipt[name] for name in ("uncertainty", "passes", "shifts", "seed")] == ["mc", 3, 1, 7]
    assert all(event["uncertainty"]["epistemic"] >= 0 for event in found["events"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--passes", "0"], "passes must be a whole number from 1 to 10000, got 0"),
        (["--shifts", "-1"], "shifts must be a whole number from 0 to 16, got -1"),
        (["--uncertainty", "magic"], "invalid choice: 'magic'"),
        (["--min-precision", "1.5"], r"min_precision must be in (0, 1), got 1.5"),
        (["--min-recall", "0"], r"min_recall must be in (0, 1), got 0.0"),
        (["--max-false-alarms-per-hour", "-2"], "max_false_alarms_per_hour must be a number > 0, got -2.0"),
        (["--min-precision", "0.9"], "a goal needs a calibration"),
    ],
)
def test_bad_trust_settings_are_one_line(model, audio, capsys, options, message):
    assert main(["detect", str(audio / "a.wav"), "--model", model, *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(lines(err)) == 1 and message in err


def test_out_file_holds_what_stdout_would(model, audio, tmp_path, capsys):
    command = ["detect", str(audio), "--model", model, "--format", "csv"]
    assert main(command) == 0
    expected = capsys.readouterr().out
    assert main([*command, "--out", str(tmp_path / "events.csv")]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "events.csv").read_text() == expected


def test_out_folder_gets_one_file_per_recording(model, audio, tmp_path, capsys):
    target = tmp_path / "new"
    assert main(["detect", str(audio), "--model", model, "--format", "json", "--out", f"{target}/"]) == 0
    assert json.loads((target / "a.json").read_text())["file"] == str(audio / "a.wav")
    assert json.loads((target / "deep" / "b.json").read_text())["file"] == str(audio / "deep" / "b.flac")


def test_plots(model, audio, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["detect", str(audio / "a.wav"), "--model", model, "--plot", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert main(["detect", str(audio), "--model", model, "--plot", f"{tmp_path / 'pictures'}/"]) == 0
    assert sorted(path.name for path in (tmp_path / "pictures").rglob("*.png")) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "no/such/file.json"], "--out no/such/file.json: its folder does not exist, create it first"),
        (["--plot", "no/such/file.png"], "--plot no/such/file.png: its folder does not exist, create it first"),
        (["--plot", "picture.txt"], "--plot picture.txt: the name must end in one of .png, .pdf, .svg, .jpg"),
    ],
)
def test_outputs_that_cannot_be_written_stop_before_the_work(model, audio, capsys, options, message):
    assert main(["detect", str(audio / "a.wav"), "--model", model, *options]) == 2
    assert lines(capsys.readouterr().err) == [f"easysed detect: error: {message}"]


def test_one_picture_for_several_recordings_is_refused(model, audio, capsys):
    assert main(["detect", str(audio), "--model", model, "--plot", "a.png"]) == 2
    assert "several recordings need a folder" in capsys.readouterr().err


def test_output_names_never_meet():
    relatives = ["a.wav", "a.flac", "b.wav", "deep/a.wav", "b.wav"]
    inputs = [Input(Path(f"/{number}/{name}"), Path(name)) for number, name in enumerate(relatives)]
    names = output_names(inputs, ".json")
    assert [str(names[one.path]) for one in inputs] == [
        "a.wav.json",
        "a.flac.json",
        "b.wav.json",
        "deep/a.json",
        "b.wav-2.json",
    ]


def test_a_file_given_twice_is_done_once(audio):
    inputs, failures = collect([str(audio), str(audio / "a.wav")])
    assert [one.path.name for one in inputs] == ["a.wav", "b.flac"] and failures == []


# ---- failures --------------------------------------------------------------------------------------------------------


def test_some_inputs_failed(model, audio, text_file, capsys):
    (audio / "phone.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    paths = [text_file, str(audio), "no/such.wav"]
    assert main(["detect", *paths, "--model", model, "--format", "json"]) == 1
    out, err = capsys.readouterr()
    assert len(json.loads(out)) == 2
    errors = [line for line in lines(err) if "error: " in line]
    assert len(errors) == 3
    assert errors[0] == "easysed detect: error: no/such.wav: does not exist, check the path"
    assert text_file in errors[1] and "is not audio that can be read" in errors[1]
    assert "phone.m4a is m4a/mp4/3gp, which is not supported: convert it, ffmpeg -i phone.m4a phone.wav" in errors[2]
    assert lines(err)[-1] == "easysed detect: 3 of 5 inputs failed, the others are done"


def test_all_inputs_failed(model, text_file, capsys):
    assert main(["detect", text_file, "--model", model]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(lines(err)) == 1 and "is not audio" in err
    assert main(["detect", text_file, "no.wav", "--model", model, "--format", "json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out) == [] and lines(err)[-1] == "easysed detect: all 2 inputs failed"


def test_nothing_to_do(tmp_path, capsys):
    assert main(["detect", "no.wav"]) == 2
    assert lines(capsys.readouterr().err) == ["easysed detect: error: no.wav: does not exist, check the path"]
    assert main(["detect", str(tmp_path)]) == 2
    assert "no audio files in this folder" in capsys.readouterr().err


def test_nan_is_one_line(model, tmp_path, capsys):
    samples = np.zeros(RATE, np.float32)
    samples[100] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, RATE, subtype="FLOAT")
    assert main(["detect", str(tmp_path / "nan.wav"), "--model", model]) == 2
    (line,) = lines(capsys.readouterr().err)
    assert "has 1 samples that are NaN or infinite" in line


def test_warnings_name_their_file(model, tmp_path, capsys):
    soundfile.write(tmp_path / "silent.wav", np.zeros((RATE, 2)), RATE)
    assert main(["detect", str(tmp_path / "silent.wav"), "--model", model]) == 0
    assert f"easysed detect: warning: {tmp_path / 'silent.wav'}: silent: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "easysed: error: the following arguments are required: COMMAND"),
        (["listen"], "easysed: error: argument COMMAND: invalid choice: 'listen'"),
        (["detect"], "easysed detect: error: the following arguments are required: PATH"),
        (["detect", "a.wav", "--exit", "0"], "argument --exit: must be 'auto' or a number from 1, got '0'"),
        (["detect", "a.wav", "--format", "xml"], "argument --format: must be one or more of table, json"),
        (["detect", "a.wav", "--loud"], "error: unrecognized arguments: --loud"),
    ],
)
def test_wrong_usage_is_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(lines(err)) == 1
    assert message in err and "--help)" in err


def test_a_broken_model_is_one_line(model, audio, tmp_path, capsys):
    path = str(audio / "a.wav")
    for name, message in (
        ("no-such-model", "model 'no-such-model': name is unknown"),
        (str(audio), "has no config.json"),
        (str(tmp_path / "none"), "folder does not exist"),
    ):
        assert main(["detect", path, "--model", name]) == 2
        (line,) = lines(capsys.readouterr().err)
        assert line.startswith("easysed detect: error: ") and message in line
    assert main(["detect", path, "--model", model, "--exit", "9"]) == 2
    assert "--exit must be auto or 1 to 3" in capsys.readouterr().err
    assert main(["detect", path, "--model", model, "--device", "nonsense"]) == 2
    assert lines(capsys.readouterr().err)[0].endswith("; try --device cpu")


def test_unexpected_errors_are_one_line_and_debug_shows_them(model, audio, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(detect, "_check_outputs", fail)
    command = ["detect", str(audio / "a.wav"), "--model", model]
    assert main(command) == 2
    assert lines(capsys.readouterr().err) == ["easysed detect: error: a bug (unexpected; --debug shows where)"]
    assert main([*command, "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_one_line(model, audio, monkeypatch, capsys):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(detect, "load_pipeline", interrupt)
    assert main(["detect", str(audio / "a.wav"), "--model", model]) == 130
    assert lines(capsys.readouterr().err) == ["easysed: interrupted"]


# ---- models ----------------------------------------------------------------------------------------------------------


def test_models_lists_bundled_and_cached(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("modeling_easysed.cli.models.BUNDLED_CHECKPOINTS", {bundled.DEFAULT_CHECKPOINT: model})
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--owner--broken" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"model_type": "easysed"}')
    (snapshot / "README.md").write_text("---\nlicense: cc-by-4.0\n---\nlicense: none\n")
    assert main(["models", "--format", "json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    network = tiny_model()
    assert first["name"] == "easysed-cnn" and first["is_default"] and first["source"] == "bundled"
    assert first["classes"] == ["dog_bark", "rain", "rooster"] and first["num_exits"] == network.num_exits
    assert first["num_parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert first["size_bytes"] == (Path(model) / "model.safetensors").stat().st_size
    assert (second["name"], second["source"], second["license"]) == ("owner/broken", "cached", "cc-by-4.0")
    assert "model.safetensors" in second["problem"]
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert "easysed-cnn (default)" in out and "dog_bark, rain, rooster" in out and "cannot be used: " in out


def test_no_models_is_said_on_stderr(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("modeling_easysed.cli.models.BUNDLED_CHECKPOINTS", {})
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert main(["models", "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == [] and "no checkpoint is bundled or cached" in err


# ---- the process -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["detect", "--help"],
        ["models"],
        ["detect", "no.wav"],
        ["doctor", "no.wav"],
        ["--version"],
        ["export", "--help"],
    ],
)
def test_cheap_commands_do_not_import_torch(arguments):
    script = (
        "import sys; from modeling_easysed.cli.main import main; main(sys.argv[1:]); "
        "print('IMPORTED', {'torch', 'transformers', 'numpy', 'soundfile', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60)
    assert lines(done.stdout)[-1] == "IMPORTED set()", done.stderr


def test_nothing_but_our_lines_reaches_the_screen(model, audio):
    command = [sys.executable, "-m", "modeling_easysed.cli.main", "detect", str(audio), "--model", model]
    done = subprocess.run([*command, "--format", "jsonl"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert len([json.loads(line) for line in lines(done.stdout)]) == 2
    (line,) = lines(done.stderr)
    assert line.startswith("easysed detect: warning: not calibrated: ")


def test_real_recordings_from_the_shell(model, data_dir, capsys):
    paths = [str(data_dir / "esc10" / "audio" / name) for name in ("5-186924-A.ogg", "1-100032-A.ogg")]
    assert main(["detect", *paths, "--model", model, "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert [one["sampling_rate"] for one in json.loads(out)] == [44100, 44100]
    assert "clipped: " in err


def test_a_warning_names_its_recording_unless_it_is_about_the_model():
    own, general = "clipped: 3 % of the samples lie flat", "min_precision=0.9 cannot be guaranteed"
    assert warning_line(Path("a.wav"), own) == f"a.wav: {own}"
    assert warning_line(Path("a.wav"), general) == general
