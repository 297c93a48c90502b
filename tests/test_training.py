"""Training end to end with a tiny configuration: save, resume, load where the package cannot be imported."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from augment import augment_features
from settings import Settings, load_settings
from train import AveragedWeights, Trainer, batches, checkpoint_number
from train import main as train_main

from modeling_easysed import EasySEDConfig, EasySEDFeatureExtractor, EasySEDForSoundEventDetection

RATE = 16000
TINY = {
    "steps": 4,
    "batch_size": 2,
    "warmup_steps": 1,
    "validate_every": 2,
    "checkpoint_every": 2,
    "mixed_precision": "no",
    "weak_fraction": 0.3,
    "features": {"feature_size": 32},
    "recipe": {"duration_s": 2.0, "num_variants": 1, "texture_duration_s": [0.5, 1.0]},
    "model": {
        "num_mel_bins": 32,
        "stem_channels": 4,
        "stage_channels": [4, 6],
        "stage_depths": [1, 1],
        "temporal_channels": 8,
        "temporal_dilations": [1],
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "exit_layers": [1, 2],
        "exit_hidden_size": 8,
        "exit_dilations": [1],
    },
}


def write_clip(path: Path, frequency_hz: float, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * frequency_hz * time_s) * (time_s > 0.3) * (time_s < 0.8)
    noise = np.random.default_rng(seed).standard_normal(RATE) * 1e-3
    soundfile.write(path, 0.5 * tone + noise, RATE)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Six clips of two classes in ESC-10's layout, and a validation split of two soundscapes."""
    folder = tmp_path_factory.mktemp("data")
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "label", "fold"])
        for number in range(6):
            label, frequency_hz = [("dog_bark", 500.0), ("rain", 3000.0)][number % 2]
            write_clip(folder / "audio" / f"{number}.wav", frequency_hz, number)
            writer.writerow([f"audio/{number}.wav", label, 1 + number // 4])
    for name in ("a.wav", "b.wav"):
        write_clip(folder / "audio" / "validation" / name, 500.0, 9)
    (folder / "validation.tsv").write_text(
        "filename\tonset\toffset\tevent_label\tsource\tsnr_db\na.wav\t0.3\t0.8\tdog_bark\tx\t20\nb.wav\t\t\t\t\t\n"
    )
    return folder


def write_config(tmp_path: Path, data: Path, backbone: str = "cnn", **overrides) -> Path:
    values = {**TINY, "clips": str(data), "validation": str(data), "folds": [1], "output_dir": str(tmp_path / "run")}
    values["model"] = {**TINY["model"], "backbone": backbone}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**values, **overrides}))
    return path


@pytest.fixture(scope="module", params=["cnn", "transformer"])
def trained(request, data, tmp_path_factory) -> Path:
    tmp_path = tmp_path_factory.mktemp(request.param)
    train_main(["--config", str(write_config(tmp_path, data, request.param))])
    return tmp_path / "run"


def test_writes_model_checkpoints_logs_and_settings(trained):
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= {
        p.name for p in (trained / "model").iterdir()
    }
    assert [checkpoint_number(p) for p in sorted((trained / "checkpoints").iterdir())] == [0, 1]
    assert list((trained / "logs").rglob("events.out.tfevents.*"))
    assert json.loads((trained / "settings.json").read_text())["steps"] == 4
    config = EasySEDConfig.from_pretrained(trained / "model")
    assert config.provenance["folds"] == ["1"] and config.provenance["seed"] == 0
    assert config.id2label == {0: "dog_bark", 1: "rain"}
    assert EasySEDFeatureExtractor.from_pretrained(trained / "model").mel_mean is not None


FRESH_PROCESS = """
import sys, torch
assert not any("easysed" in name for name in sys.modules)
try:
    import modeling_easysed
    raise SystemExit("the package must not be importable here")
except ImportError:
    pass
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification
folder, out = sys.argv[1:]
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
    command = [sys.executable, "-S", "-E", "-c", code, str(trained / "model"), str(tmp_path / "out.pt")]
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


def test_resumed_run_equals_an_unbroken_one(data, tmp_path):
    config = str(write_config(tmp_path, data))
    train_main(["--config", config, "--output_dir", str(tmp_path / "whole")])
    broken = str(tmp_path / "broken")
    settings, _ = load_settings(["--config", config, "--output_dir", broken])
    trainer = Trainer(settings)
    trainer.settings.steps = 2  # stops as if killed after its checkpoint; the schedule still knows four steps
    trainer.train_loop()
    trainer.accelerator.end_training()
    train_main(["--config", config, "--output_dir", broken, "--resume"])
    whole = EasySEDForSoundEventDetection.from_pretrained(tmp_path / "whole" / "model").state_dict()
    resumed = EasySEDForSoundEventDetection.from_pretrained(tmp_path / "broken" / "model").state_dict()
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=1e-6, msg=name)


def test_a_new_run_does_not_write_into_another(data, tmp_path):
    settings, _ = load_settings(["--config", str(write_config(tmp_path, data))])
    (tmp_path / "run" / "checkpoints" / "checkpoint_0").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds another run: pass --resume or another --output_dir"):
        Trainer(settings).start(resume=False)


def test_learns_two_tones(data, tmp_path):
    """The same loop on an easy task: after some steps the loss of frames is well below that of a constant guess."""
    settings, _ = load_settings(
        ["--config", str(write_config(tmp_path, data)), "--steps", "60", "--learning_rate", "0.01"]
    )
    trainer = Trainer(settings)
    labels = iter(batches(trainer.mixer, trainer.extractor, trainer.config, settings, 1000, 0, 1))
    held_out = {k: torch.cat([next(labels)[k] for _ in range(1)]) for k in ("input_values",)}
    losses = [trainer.train_step(next(labels))["train/frame_3"] for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])
    assert held_out["input_values"].shape[0] == 2


def test_batches_depend_on_step_and_rank_alone(data, tmp_path):
    settings, _ = load_settings(["--config", str(write_config(tmp_path, data))])
    trainer = Trainer(settings)
    arguments = (trainer.mixer, trainer.extractor, trainer.config, settings)
    stream = batches(*arguments, 0, 0, 2)
    next(stream)
    second, direct = next(stream), next(batches(*arguments, 1, 0, 2))
    other_rank = next(batches(*arguments, 1, 1, 2))
    assert all(torch.equal(second[name], direct[name]) for name in second)
    assert not torch.equal(second["input_values"], other_rank["input_values"])


def test_training_features_are_the_extractors(data, tmp_path, monkeypatch):
    """What the network sees in training is what the extractor gives in inference, augmentation aside."""
    monkeypatch.setattr("train.augment_features", lambda log_mel, rng: log_mel)
    settings, _ = load_settings(["--config", str(write_config(tmp_path, data))])
    trainer = Trainer(settings)
    batch = next(batches(trainer.mixer, trainer.extractor, trainer.config, settings, 0, 0, 1))
    for row in range(2):
        samples = trainer.mixer.mix(settings.seed, row).samples
        features = trainer.extractor(samples, sampling_rate=RATE)["input_values"][0]
        torch.testing.assert_close(batch["input_values"][row], features, rtol=0, atol=1e-4)


def test_averaged_weights_follow_the_model():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = AveragedWeights(model, decay=0.5)
    model.weight.data.fill_(1.0)
    average.update(model, step=1000)
    assert average.model.weight.item() == pytest.approx(0.5)
    average.update(model, step=0)  # (1 + 0) / (10 + 0) of the old
    assert average.model.weight.item() == pytest.approx(0.95)


def test_augmentation_keeps_shape_and_time():
    log_mel = torch.randn(3, 20, 64)
    first = augment_features(log_mel, np.random.default_rng(0))
    assert first.shape == log_mel.shape
    assert torch.equal(first, augment_features(log_mel, np.random.default_rng(0)))
    change = first - log_mel
    kept = change.std(1) < 1e-4  # the same offset at all times, except in masked mels
    assert kept.float().mean() > 0.7 and change.abs().max() > 0.5


def test_overrides(tmp_path, data):
    config = str(write_config(tmp_path, data))
    settings, resume = load_settings(
        ["--config", config, "--seed", "5", "--dropout", "0.3", "--recipe.max_polyphony", "2", "--folds", "[1,2]"]
    )
    assert (settings.seed, settings.model["dropout"], settings.folds, resume) == (5, 0.3, ["1", "2"], False)
    assert settings.recipe["max_polyphony"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stepz", "3"], "unknown setting --stepz"),
        (["--steps"], "overrides must be pairs of --key value"),
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["--mixed_precision", "fp8"], "mixed_precision must be no, bf16 or auto, got 'fp8'"),
        (["--weak_fraction", "2"], r"weak_fraction must be in \[0, 1\], got 2"),
    ],
)
def test_bad_settings(tmp_path, data, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_settings(["--config", str(write_config(tmp_path, data)), *arguments])


def test_unknown_key_in_the_file(tmp_path, data):
    with pytest.raises(ValueError, match="unknown settings \\['stepz'\\]"):
        load_settings(["--config", str(write_config(tmp_path, data, stepz=3))])


def test_missing_data_is_one_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="metadata.csv not found: the data folder must hold"):
        Trainer(Settings(clips=str(tmp_path / "nowhere")))


def test_no_clip_in_the_folds(data):
    with pytest.raises(ValueError, match=r"no row of .* has fold in \['9'\]"):
        Trainer(Settings(clips=str(data), folds=["9"]))
