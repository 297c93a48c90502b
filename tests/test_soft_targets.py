"""Soft targets: what teachers say about a sample is what the student is given with it, and of no other sample."""

import json
from pathlib import Path

import numpy as np
import pytest
import teach
import torch
from batches import TrainingBatches, fit_feature_extractor, read_sounds
from settings import load_settings
from soft_targets import SoftTargets, SoftTargetWriter, taught_losses, taught_weights
from teachers import Teachers
from tiny import tiny_config
from tiny_training import write_config, write_data
from train import main, without_paths

from modeling_easysed import EasySEDConfig, EasySEDForSoundEventDetection
from modeling_easysed.losses_easysed import bernoulli_kl


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> tuple[Path, list[str], str]:
    """A folder, the arguments of all runs in it, and the model of a first run, which has taught its `targets`."""
    folder = tmp_path_factory.mktemp("taught")
    config = str(write_config(folder, write_data(folder / "data")))
    base = ["--config", config, "--num_workers", "0", "--sample_seed", "5"]
    main([*base, "--output_dir", str(folder / "first")])
    teacher = str(folder / "first" / "model")
    assert teach.main([*base, "--teachers", teacher, "--out", str(folder / "targets")]) == 0
    return folder, base, teacher


def batches_of(arguments: list[str]) -> TrainingBatches:
    settings, _ = load_settings(arguments)
    sounds, _ = read_sounds(settings)
    extractor = fit_feature_extractor(settings, sounds)
    config = EasySEDConfig(**settings.model, id2label=dict(enumerate(sounds.labels)))
    return TrainingBatches(sounds, extractor, config, settings)


def test_a_sample_has_its_own_targets(taught):
    folder, base, teacher = taught
    batches = batches_of([*base, "--seed", "3"])
    batches.soft_targets = SoftTargets(folder / "targets", batches.settings, batches.config)
    batch = batches[2]
    logits, frame_logits = Teachers([teacher], batches.extractor, batches.config)(batch["input_values"])
    # half precision, and bfloat16 where the processor has it
    torch.testing.assert_close(batch["soft_labels"], logits, atol=0.05, rtol=0.02)
    torch.testing.assert_close(batch["soft_frame_labels"], frame_logits, atol=0.05, rtol=0.02)
    assert batch["soft_frame_labels"].shape == batch["frame_labels"].shape


def test_a_sample_seed_alone_decides_the_samples(taught):
    _, base, _ = taught
    first, again = batches_of([*base, "--seed", "1"])[0], batches_of([*base, "--seed", "2"])[0]
    other = batches_of([*base, "--seed", "1", "--sample_seed", "6"])[0]
    assert torch.equal(first["input_values"], again["input_values"])
    assert not torch.equal(first["input_values"], other["input_values"])


def test_a_run_learns_from_soft_targets(taught):
    folder, base, _ = taught
    main([*base, "--output_dir", str(folder / "second"), "--seed", "1", "--soft_targets", str(folder / "targets")])
    model = EasySEDForSoundEventDetection.from_pretrained(folder / "second" / "model")
    assert model.config.provenance["teachers"] == [{"backbone": "cnn", "seed": 0}]
    assert model.config.provenance["sample_seed"] == 5
    assert "taught_frame_1" in (folder / "second" / "model" / "training_log.json").read_text()


def test_the_command_names_targets_without_their_path():
    assert without_paths(["--soft_targets", "/home/me/runs/targets"]) == ["--soft_targets", "targets"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["--sample_seed", "6"], "soft_targets targets are of samples with seed=5, got 6"),
        (["--recipe.max_polyphony", "2"], "soft_targets targets are of samples with recipe="),
        (["--steps", "5"], "soft_targets targets hold 8 samples, the run has 10"),
    ],
)
def test_targets_of_other_samples(taught, override, message):
    folder, base, _ = taught
    batches = batches_of([*base, *override])
    with pytest.raises(ValueError, match=message):
        SoftTargets(folder / "targets", batches.settings, batches.config)


def test_a_killed_run_goes_on(taught, tmp_path):
    """Half of the targets are there, and half a batch: the rest is added, and all are what an unbroken run wrote."""
    folder, base, teacher = taught
    out = tmp_path / "targets"
    arguments = [*base, "--teachers", teacher, "--out", str(out)]
    assert teach.main(arguments) == 0
    about = json.loads((out / "targets.json").read_text())
    for name in ("labels.npy", "frame_labels.npy"):
        values = np.load(out / name, mmap_mode="r+")
        values[4:] = 0
        values.flush()
    (out / "targets.json").write_text(json.dumps({**about, "done": 5}))
    assert teach.main(arguments) == 0
    for name in ("labels.npy", "frame_labels.npy"):
        np.testing.assert_array_equal(np.load(out / name), np.load(folder / "targets" / name))


def test_another_teachers_folder_is_refused(taught, capsys):
    folder, base, teacher = taught
    assert teach.main([*base, "--teachers", teacher, teacher, "--out", str(folder / "targets")]) == 2
    assert "holds soft targets of other samples or teachers" in capsys.readouterr().err


def test_an_unknown_teacher_is_one_line(taught, tmp_path, capsys):
    _, base, _ = taught
    assert teach.main([*base, "--teachers", "nobody", "--out", str(tmp_path / "targets")]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("teach.py: error: ") and "nobody" in last


def test_no_targets_is_one_line(taught, tmp_path, capsys):
    _, base, _ = taught
    with pytest.raises(SystemExit) as error:
        main([*base, "--output_dir", str(tmp_path / "run"), "--soft_targets", str(tmp_path)])
    assert error.value.code == 2
    assert "soft_targets must be a folder that teach.py wrote" in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_writer_keeps_the_order(tmp_path):
    writer = SoftTargetWriter(tmp_path / "new", {"samples": {}, "teachers": []}, 3, 2, 1)
    writer.add(torch.tensor([[1.0]]), torch.ones(1, 2, 1))
    writer.add(torch.tensor([[2.0], [3.0]]), torch.full((2, 2, 1), 4.0))
    writer.flush()
    assert np.load(tmp_path / "new" / "labels.npy").ravel().tolist() == [1, 2, 3]
    assert json.loads((tmp_path / "new" / "targets.json").read_text())["done"] == 3


def test_every_exit_is_taught():
    exits, frames = torch.randn(3, 2, 4), torch.randn(3, 2, 5, 4)
    targets = (torch.randn(2, 4), torch.randn(2, 5, 4))
    parts = taught_losses(exits, frames, targets, 1.0)
    assert set(parts) == {f"taught_{kind}_{index}" for kind in ("frame", "clip") for index in (1, 2, 3)}
    assert parts["taught_clip_3"] == bernoulli_kl(exits[2], targets[0], 1.0)
    config = tiny_config(frame_loss_weight=2.0, clip_loss_weight=0.5)
    assert taught_weights(["taught_frame_1", "taught_clip_2"], config, 3.0) == {
        "taught_frame_1": 6.0,
        "taught_clip_2": 1.5,
    }
