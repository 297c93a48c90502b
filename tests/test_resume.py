"""A run that was killed goes on as if nothing had happened: on a CPU in float32 its weights are equal, bit for bit."""

import json
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from averaged_weights import AveragedWeights
from checkpoints import Checkpoints
from safetensors.torch import load_file
from settings import load_settings
from tiny_training import ROOT, TRAIN, environment, run, weights_of, write_config, write_data
from train import Trainer
from train import main as train_main

STEPS = 40


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def config(data, tmp_path_factory) -> Path:
    """Dropout, hidden labels and early stop are on: their states must survive."""
    folder = tmp_path_factory.mktemp("config")
    model = {"dropout": 0.3}
    schedule = {"steps": STEPS, "checkpoint_every": 3, "validate_every": 5, "early_stop_patience": 100}
    return write_config(folder, data, model=model, batch_size=4, num_workers=1, **schedule)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train_main(["--config", str(config), "--output_dir", str(folder)])
    return folder


def assert_same_run(one: Path, other: Path) -> None:
    """Saved weights, averaged weights of the last checkpoint, and records without their times."""
    for file in ("model/model.safetensors", f"checkpoints/checkpoint_{STEPS}/average_0.safetensors"):
        weights, others = load_file(one / file), load_file(other / file)
        assert weights.keys() == others.keys()
        assert [name for name in weights if not torch.equal(weights[name], others[name])] == [], file
    logs = [json.loads((folder / "model" / "training_log.json").read_text()) for folder in (one, other)]
    for name in ("steps", "stopped_early", "losses", "validations"):
        assert logs[0][name] == logs[1][name], name
    provenance = [json.loads((folder / "model" / "config.json").read_text())["provenance"] for folder in (one, other)]
    assert provenance[0]["early_stop"] == provenance[1]["early_stop"]


def kill_at(step: int, command: list[str]) -> None:
    """Runs a training and kills it, without a warning, when it says that it has come to `step`."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment()) as process:
        for line in process.stderr:
            if re.match(rf"step {step}/", line):
                process.send_signal(signal.SIGKILL)
                break
        process.stderr.close()
    assert process.returncode == -signal.SIGKILL


def test_killed_at_a_random_step(config, whole, tmp_path):
    step = random.Random().randrange(5, STEPS - 15)
    command = [sys.executable, str(TRAIN), "--config", str(config), "--output_dir", str(tmp_path)]
    kill_at(step, command)
    newest = max(int(folder.name.split("_")[1]) for folder in (tmp_path / "checkpoints").glob("checkpoint_*"))
    assert step - 3 <= newest < STEPS, f"killed at step {step}"
    assert not (tmp_path / "model").exists()
    train_main([*command[2:], "--resume"])
    assert_same_run(tmp_path, whole)


DIES_WHILE_WRITING = """
import os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
import torch, train

whole_save, num_saves = torch.save, 0

def half_a_save(value, path, *arguments, **options):
    global num_saves
    num_saves += 1
    whole_save(value, path, *arguments, **options)
    if "partial_9" in str(path):
        with open(path, "r+b") as file:
            file.truncate(os.path.getsize(path) // 2)
            file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

torch.save = half_a_save
train.main()
"""


def test_killed_while_it_writes_a_checkpoint(config, whole, tmp_path, capsys):
    arguments = ["--config", str(config), "--output_dir", str(tmp_path)]
    done = run([sys.executable, "-c", DIES_WHILE_WRITING, str(TRAIN.parent), *arguments])
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    folders = sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir())
    assert folders == ["checkpoint_3", "checkpoint_6", "partial_9"]
    train_main([*arguments, "--resume"])
    assert f"warning: {tmp_path / 'checkpoints' / 'partial_9'} is half-written and ignored" in capsys.readouterr().err
    assert_same_run(tmp_path, whole)
    assert not list((tmp_path / "checkpoints").glob("partial_*"))


def test_the_state_of_dropout_counts(config, whole, tmp_path):
    """The comparison above would notice: without the generator's state, other masks give other weights."""
    settings, _ = load_settings(["--config", str(config), "--output_dir", str(tmp_path)])
    trainer = Trainer(settings, [])
    trainer.load(whole / "checkpoints" / f"checkpoint_{STEPS}")
    batch = trainer.batches[0]
    masked = trainer.learner.model.train()(**batch).loss.item()
    trainer.load(whole / "checkpoints" / f"checkpoint_{STEPS}")
    assert trainer.learner.model.train()(**batch).loss.item() == masked
    torch.manual_seed(12345)
    assert trainer.learner.model.train()(**batch).loss.item() != masked


def test_patience_and_best_weights_survive(data, tmp_path, monkeypatch):
    """Best at step 1, killed after step 2, out of patience at step 3: the resumed run saves the weights of step 1."""
    seen = []

    def score(model, validation) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"f1_1": 0.0, "f1_2": 0.0, "f1_3": 0.5, "bce": 1.0}

    monkeypatch.setattr("train.frame_scores", score)
    config = write_config(tmp_path, data, validate_every=1, checkpoint_every=1, early_stop_patience=2, steps=9)
    settings, _ = load_settings(["--config", str(config)])
    broken = Trainer(settings, [])
    broken.start(resume=False)
    broken.settings.steps = 2  # as if killed after its checkpoint; the schedule still knows nine steps
    broken.train_loop()
    broken.accelerator.end_training()
    train_main(["--config", str(config), "--resume"])
    assert len(seen) == 3
    saved = weights_of(tmp_path / "run")
    assert all(torch.equal(value, seen[0][name]) for name, value in saved.items())
    train_main(["--config", str(config), "--resume"])  # it is over: nothing is trained, everything is saved again
    assert len(seen) == 3
    again = weights_of(tmp_path / "run")
    assert all(torch.equal(value, again[name]) for name, value in saved.items())


def test_a_new_run_does_not_write_into_another(config, whole):
    settings, _ = load_settings(["--config", str(config), "--output_dir", str(whole)])
    with pytest.raises(ValueError, match="holds another run: pass --resume or another --output_dir"):
        Trainer(settings, []).start(resume=False)


def test_nothing_to_resume_is_said(data, tmp_path, capsys):
    train_main(["--config", str(write_config(tmp_path, data)), "--resume"])
    assert f"no checkpoint in {tmp_path / 'run'}: starting at step 0" in capsys.readouterr().err


def test_a_checkpoint_of_another_model(config, whole, tmp_path):
    arguments = ["--config", str(config), "--output_dir", str(whole), "--model.temporal_channels", "0"]
    settings, _ = load_settings(arguments)
    with pytest.raises(ValueError, match="average_0.safetensors belongs to another model: resume with the settings"):
        Trainer(settings, []).start(resume=True)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


class OneProcess:
    is_main_process = True

    def wait_for_everyone(self) -> None:
        pass


def test_checkpoints_are_whole_or_not_there(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path / "checkpoints", OneProcess())
    assert checkpoints.newest() is None
    checkpoints.write(9, lambda folder: (folder / "file").write_text("nine"))

    def fail(folder: Path) -> None:
        (folder / "file").write_text("te")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoints.write(10, fail)
    assert checkpoints.newest().name == "checkpoint_9"
    assert "partial_10 is half-written and ignored" in capsys.readouterr().err
    checkpoints.write(10, lambda folder: (folder / "file").write_text("ten"))
    assert checkpoints.newest().name == "checkpoint_10"  # by number: as text, 9 would come after 10
    assert (checkpoints.newest() / "file").read_text() == "ten" and capsys.readouterr().err == ""


def test_the_newest_two_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, OneProcess())
    for step in (8, 9, 10, 11):
        checkpoints.write(step, lambda folder: None)
    assert [folder.name for folder in checkpoints.complete()] == ["checkpoint_10", "checkpoint_11"]


# ---- averaged weights ------------------------------------------------------------------------------------------------


def test_averaged_weights_follow_the_model():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = AveragedWeights(model, decay=0.5)
    model.weight.data.fill_(1.0)
    average.update(model, step=1000)
    assert average.values["weight"].item() == pytest.approx(0.5)
    average.update(model, step=0)  # (1 + 0) / (10 + 0) of the old
    assert average.values["weight"].item() == pytest.approx(0.95)


def test_averaged_weights_count_as_the_model_does():
    model = torch.nn.BatchNorm1d(2)
    average = AveragedWeights(model, decay=0.5)
    model(torch.randn(4, 2))
    average.update(model, step=1000)
    assert average.values["num_batches_tracked"].item() == 1
    torch.testing.assert_close(average.values["running_mean"], model.running_mean / 2)


def test_swapped_in_and_out_again():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = AveragedWeights(model, decay=0.5)
    model.weight.data.fill_(1.0)
    with pytest.raises(KeyboardInterrupt), average.swapped_in(model):
        assert model.weight.item() == 0.0
        raise KeyboardInterrupt
    assert model.weight.item() == 1.0


def test_averaged_weights_on_disk(tmp_path):
    model = torch.nn.BatchNorm1d(2)
    average = AveragedWeights(model, decay=0.5)
    average.values["running_mean"].fill_(3.0)
    average.save(tmp_path / "average.safetensors")
    other = AveragedWeights(torch.nn.BatchNorm1d(2), decay=0.5)
    other.load(tmp_path / "average.safetensors")
    assert other.values["running_mean"].tolist() == [3.0, 3.0]
    with pytest.raises(ValueError, match="belongs to another model"):
        AveragedWeights(torch.nn.Linear(1, 1), 0.5).load(tmp_path / "average.safetensors")
