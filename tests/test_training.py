"""Training end to end with a tiny configuration: what a run writes, learns, logs and pushes."""

import csv
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from progress import Display, Progress
from saving import NUM_NAMED, PushError, push, skipped_text
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_training import RATE, weights_of, write_config, write_data
from train import main as train_main
from train import without_paths
from validation import load_validation

from modeling_easysed import EasySEDConfig, EasySEDFeatureExtractor, EasySEDForSoundEventDetection


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", params=["cnn", "transformer"])
def trained(request, data, tmp_path_factory) -> Path:
    tmp_path = tmp_path_factory.mktemp(request.param)
    train_main(["--config", str(write_config(tmp_path, data, request.param))])
    return tmp_path / "run"


# ---- what a run writes -----------------------------------------------------------------------------------------------


def test_writes_model_checkpoints_logs_and_settings(trained):
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= {
        p.name for p in (trained / "model").iterdir()
    }
    assert sorted(p.name for p in (trained / "checkpoints").iterdir()) == ["checkpoint_2", "checkpoint_4"]
    assert json.loads((trained / "settings.json").read_text())["steps"] == 4
    config = EasySEDConfig.from_pretrained(trained / "model")
    assert config.provenance["folds"] == ["1"] and config.provenance["seed"] == 0
    assert config.provenance["num_processes"] == 1 and "early_stop" not in config.provenance
    assert config.id2label == {0: "dog_bark", 1: "rain"}
    assert EasySEDFeatureExtractor.from_pretrained(trained / "model").mel_mean is not None


def test_says_whose_recordings_it_learned_from(trained):
    with (trained / "model" / "attribution.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [f"audio/{number}.wav" for number in range(4)]
    assert rows[1] == {"file": "audio/1.wav", "author": "author 1", "license": "CC0", "source_url": ""}


def test_training_log(trained):
    log = json.loads((trained / "model" / "training_log.json").read_text())
    assert log["steps"] == 4 and log["stopped_early"] is False and log["skipped_files"] == []
    assert [entry["step"] for entry in log["losses"]] == [1, 2, 3, 4]
    assert [entry["step"] for entry in log["validations"]] == [2, 4]
    assert log["steps_per_second"] == pytest.approx(1 / log["step_time_s"], rel=1e-2)
    assert 0 <= log["data_wait_share"] <= 1 and log["wall_time_s"] >= 4 * log["step_time_s"] * 0.99


def test_tensorboard_has_every_part_its_weight_and_the_rest(trained):
    events = EventAccumulator(str(trained / "logs" / "easysed"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    log = json.loads((trained / "model" / "training_log.json").read_text())
    parts = set(log["losses"][0]) - {"step", "learning_rate", "loss"}
    assert {"frame_1", "clip_1", "soft_frame_1", "soft_clip_1", "hint_1"} <= parts
    assert {f"train/{name}" for name in parts} | {f"weight/{name}" for name in parts} <= tags
    num_exits = EasySEDConfig.from_pretrained(trained / "model").kept_exits
    assert {f"validation/f1_{index + 1}" for index in range(num_exits)} | {"validation/bce"} <= tags
    assert {"loss", "learning_rate", "data_wait_share"} <= tags
    logged = {name: events.Scalars(f"train/{name}")[0].value for name in parts}
    weights = {name: events.Scalars(f"weight/{name}")[0].value for name in parts}
    total = sum(weights[name] * value for name, value in logged.items())
    assert events.Scalars("loss")[0].value == pytest.approx(total, rel=1e-5)


def test_log_entries_are_means_over_their_steps(data, tmp_path, trained):
    backbone = EasySEDConfig.from_pretrained(trained / "model").backbone
    train_main(["--config", str(write_config(tmp_path, data, backbone, log_every=2))])
    each = json.loads((trained / "model" / "training_log.json").read_text())["losses"]
    means = json.loads((tmp_path / "run" / "model" / "training_log.json").read_text())["losses"]
    assert [entry["step"] for entry in means] == [2, 4]
    for name in ("loss", "frame_1", "hint_1"):
        assert means[1][name] == pytest.approx((each[2][name] + each[3][name]) / 2, rel=1e-6)


FRESH_PROCESS = """
import sys, torch
assert not any("easysed" in name for name in sys.modules)
try:
    import modeling_easysed
    raise SystemExit("the package must not be importable here")
except ImportError:
    pass
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification
folder, out, num_threads = sys.argv[1:]
torch.set_num_threads(int(num_threads))
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForAudioClassification.from_pretrained(folder, trust_remote_code=True).eval()
trunk = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
samples = torch.sin(torch.arange(16000) / 7.0)
features = extractor(samples, sampling_rate=16000)
with torch.no_grad():
    output = model(**features)
    assert torch.equal(trunk(**features).last_hidden_state, model.easysed(**features).last_hidden_state)
torch.save({"frames": output.exit_frame_logits, "buffers": dict(model.named_buffers()),
            "features": features["input_values"]}, out)
"""


def test_fresh_process_without_the_package_gives_equal_outputs_and_buffers(trained, tmp_path):
    # -S -E: no site hooks of an editable install, no PYTHONPATH; the libraries' own folder alone is added
    libraries = str(Path(torch.__file__).parents[1])
    code = f"import sys; sys.path.append({libraries!r})\n" + FRESH_PROCESS
    arguments = [str(trained / "model"), str(tmp_path / "out.pt"), str(torch.get_num_threads())]
    command = [sys.executable, "-S", "-E", "-c", code, *arguments]
    environment = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    other = torch.load(tmp_path / "out.pt", weights_only=True)
    model = EasySEDForSoundEventDetection.from_pretrained(trained / "model").eval()
    extractor = EasySEDFeatureExtractor.from_pretrained(trained / "model")
    features = extractor(torch.sin(torch.arange(16000) / 7.0), sampling_rate=RATE)
    assert torch.equal(features["input_values"], other["features"])
    with torch.no_grad():
        assert torch.equal(model(**features).exit_frame_logits, other["frames"])
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, other["buffers"][name]), name


# ---- a loss that is none ---------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_its_checkpoints(data, tmp_path, capsys):
    config = write_config(tmp_path, data, learning_rate=1e30, max_gradient_norm=1e30, steps=30, checkpoint_every=1)
    with pytest.raises(SystemExit) as stopped:
        train_main(["--config", str(config)])
    assert stopped.value.code == 1
    assert "error: the loss became nan by step" in capsys.readouterr().err
    assert list((tmp_path / "run" / "checkpoints").iterdir())


# ---- early stop ------------------------------------------------------------------------------------------------------


def scripted(monkeypatch, f1_scores: list[float]) -> list[dict[str, torch.Tensor]]:
    """Validation gives these scores in turn; what it was asked to score is kept."""
    seen: list[dict[str, torch.Tensor]] = []

    def score(model, validation) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"f1_1": 0.0, "f1_2": 0.0, "f1_3": f1_scores[len(seen) - 1], "bce": 1.0}

    monkeypatch.setattr("train.frame_scores", score)
    return seen


def test_stops_early_and_saves_the_best_weights(data, tmp_path, monkeypatch, capsys):
    seen = scripted(monkeypatch, [0.2, 0.5, 0.5, 0.1, 0.9])
    config = write_config(tmp_path, data, steps=40, validate_every=1, early_stop_patience=2)
    train_main(["--config", str(config)])
    assert len(seen) == 4  # the second 0.5 is no improvement, 0.1 the second validation without one
    saved = weights_of(tmp_path / "run")
    assert all(torch.equal(value, seen[1][name]) for name, value in saved.items())
    assert not all(torch.equal(value, seen[3][name]) for name, value in saved.items())
    assert EasySEDConfig.from_pretrained(tmp_path / "run" / "model").provenance["early_stop"] == {
        "patience": 2,
        "stopped_early": True,
        "last_step": 4,
        "saved_step": 2,
        "frame_f1": 0.5,
    }
    assert "stopped early: best F1 at step 2" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoints" / "checkpoint_4").is_dir()


def test_saves_the_best_weights_when_patience_lasts(data, tmp_path, monkeypatch):
    seen = scripted(monkeypatch, [0.2, 0.5, 0.4])
    config = write_config(tmp_path, data, steps=3, validate_every=1, early_stop_patience=2)
    train_main(["--config", str(config)])
    saved = weights_of(tmp_path / "run")
    assert all(torch.equal(value, seen[1][name]) for name, value in saved.items())


def test_without_patience_the_last_weights_are_saved(data, tmp_path, monkeypatch):
    seen = scripted(monkeypatch, [0.9, 0.5, 0.4, 0.3, 0.2])
    config = write_config(tmp_path, data, steps=5, validate_every=1)
    train_main(["--config", str(config)])
    assert len(seen) == 5
    saved = weights_of(tmp_path / "run")
    assert all(torch.equal(value, seen[4][name]) for name, value in saved.items())


def test_patience_starts_anew_with_every_improvement():
    progress = Progress()
    improved = [progress.add_validation({}, f1, 2) for f1 in (0.0, 0.0, 0.3, 0.2)]
    assert improved == [True, False, True, False] and not progress.stopped_early
    assert not progress.add_validation({}, 0.3, 2) and progress.stopped_early


# ---- the Hub ---------------------------------------------------------------------------------------------------------


def fake_hub(monkeypatch, push_function) -> None:
    module = types.ModuleType("modeling_easysed.hub")
    module.push = push_function
    monkeypatch.setitem(sys.modules, "modeling_easysed.hub", module)
    monkeypatch.setattr("modeling_easysed.hub", module, raising=False)


def test_pushes_the_saved_model(data, tmp_path, monkeypatch, capsys):
    calls = []

    def fake_push(folder, repo_id, exits=None):
        assert (Path(folder) / "model.safetensors").is_file() and (Path(folder) / "attribution.csv").is_file()
        calls.append((folder, repo_id, exits))
        return [f"https://hub/{repo_id}"]

    fake_hub(monkeypatch, fake_push)
    train_main(["--config", str(write_config(tmp_path, data)), "--push_to_hub", "me/sounds"])
    assert calls == [(tmp_path / "run" / "model", "me/sounds", None)]
    assert "https://hub/me/sounds" in capsys.readouterr().out


def test_a_failed_push_keeps_the_model_and_says_how_to_try_again(data, tmp_path, monkeypatch, capsys):
    def fake_push(folder, repo_id, exits=None):
        raise ConnectionError("no route\nto the Hub")

    fake_hub(monkeypatch, fake_push)
    with pytest.raises(SystemExit) as stopped:
        train_main(["--config", str(write_config(tmp_path, data)), "--push_to_hub", "me/sounds"])
    assert stopped.value.code == 1
    folder = tmp_path / "run" / "model"
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == (
        f"train.py: error: the model is saved in {folder}, but pushing it to me/sounds failed: no route to the Hub; "
        f"try again with: easysed push {folder} me/sounds"
    )
    assert EasySEDForSoundEventDetection.from_pretrained(folder).num_exits == 3


def test_a_push_error_without_words_has_its_kind(monkeypatch):
    def fake_push(folder, repo_id, exits=None):
        raise TimeoutError

    fake_hub(monkeypatch, fake_push)
    with pytest.raises(PushError, match="failed: TimeoutError; try again with: easysed push here me/sounds"):
        push(Path("here"), "me/sounds")


# ---- what is said ----------------------------------------------------------------------------------------------------


def test_plain_lines_where_stderr_is_no_terminal(data, tmp_path, capsys):
    config = write_config(tmp_path, data, log_every=2, steps=5)
    train_main(["--config", str(config)])
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line.startswith("step ") and "left" in line]
    assert [line.split("  ")[0] for line in lines] == ["step 2/5", "step 4/5", "step 5/5"]
    assert "loss" in lines[0] and "F1" not in lines[0] and "F1" in lines[1] and lines[2].endswith("00:00 left")
    assert "1 process on cpu, precision no, 2 soundscapes a step in 1 parts, 2 classes" in shown.err
    assert "waiting for data (data_wait_share)" in shown.out and "5 steps" in shown.out


class Terminal:
    """A stderr that is one."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_a_bar_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress(losses=[{"loss": 0.25}], validations=[{"step": 1, "f1_1": 0.1, "f1_2": 0.75, "bce": 1.0}])
    display = Display(progress, steps=3, log_every=1, is_shown=True)
    progress.add_step(1.0, 0.1)
    display.update()
    display.bar.refresh()
    display.close()
    assert "loss 0.250  F1 0.750" in terminal.text and "1/3" in terminal.text
    assert "step 1/3" not in terminal.text


def test_other_processes_are_silent(capsys):
    progress = Progress()
    display = Display(progress, steps=1, log_every=1, is_shown=False)
    progress.add_step(1.0, 0.0)
    display.update()
    display.say("nothing")
    display.close()
    assert capsys.readouterr().err == ""


def test_share_of_waiting():
    progress = Progress()
    assert progress.data_wait_share == 0.0
    progress.add_step(loop_s=2.0, wait_s=0.5)
    progress.add_step(loop_s=2.0, wait_s=0.1)
    assert progress.data_wait_share == pytest.approx(0.15)
    assert progress.summary()["step_time_s"] == 2.0 and progress.summary()["steps_per_second"] == 0.5


def test_skipped_files_are_counted_and_named(data, tmp_path, capsys):
    broken = write_data(tmp_path / "broken")
    (broken / "audio" / "2.wav").write_bytes(b"no audio")
    train_main(["--config", str(write_config(tmp_path, broken))])
    said = capsys.readouterr().err
    assert "1 file was skipped:\n  audio/2.wav: " in said
    log = json.loads((tmp_path / "run" / "model" / "training_log.json").read_text())
    assert log["skipped_files"][0][0] == "audio/2.wav"


def test_many_skipped_files():
    text = skipped_text([(f"{number}.wav", "is empty") for number in range(NUM_NAMED + 3)])
    assert text.startswith("23 files were skipped:\n  0.wav: is empty\n")
    assert text.endswith("  and 3 more, see training_log.json")


def test_the_command_in_the_provenance_has_no_paths():
    argv = ["--config", "a.yaml", "--resume", "--output_dir", "/here", "--seed", "1", "--push_to_hub", "me/x"]
    assert without_paths(argv) == ["--config", "a.yaml", "--seed", "1"]


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clips", "/nowhere"], "/nowhere must be a folder"),
        (["--folds", "[9]"], "folds of .* must be of 1, 2, got"),
        (["--batch_size", "3", "--gradient_accumulation", "2"], "batch_size must be a multiple of 2"),
        (["--steps", "0"], "steps must be at least 1"),
        (["--validation", "/nowhere"], "validation.tsv not found"),
    ],
)
def test_errors_are_one_line(data, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        train_main(["--config", str(write_config(tmp_path, data)), *arguments])
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("train.py: error: ")
    with pytest.raises(ValueError, match=message):
        raise ValueError(said[0])


def test_other_processes_say_which_they_are(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        train_main(["--config", str(write_config(tmp_path, data)), "--steps", "0"])
    assert capsys.readouterr().err == "train.py: error in process 1: steps must be at least 1, got 0\n"


def test_validation_without_a_known_event(data, tmp_path):
    config = EasySEDConfig(id2label={0: "rooster"}, num_mel_bins=32)
    with pytest.raises(ValueError, match=r"validation.tsv .* must hold an event of one of the classes \['rooster'\]"):
        load_validation(str(data), "validation", EasySEDFeatureExtractor(feature_size=32), config)
