"""Teachers: their mean is the target, their features are their own, and nothing of them is learned."""

import pytest
import torch
from teachers import Teachers, renormalization, taught_losses, taught_weights
from tiny import tiny_config, tiny_model
from tiny_training import write_config, write_data
from train import main

from modeling_easysed import EasySEDFeatureExtractor, EasySEDForSoundEventDetection
from modeling_easysed.losses_easysed import bernoulli_kl


def extractor(mean: float = 0.0, deviation: float = 1.0) -> EasySEDFeatureExtractor:
    return EasySEDFeatureExtractor(feature_size=32, mel_mean=[mean] * 32, mel_std=[deviation] * 32)


def saved(tmp_path, name: str, features: EasySEDFeatureExtractor, *arguments, **overrides) -> str:
    tiny_model(*arguments, **overrides).save_pretrained(tmp_path / name)
    features.save_pretrained(tmp_path / name)
    return str(tmp_path / name)


def test_targets_are_the_mean_of_the_deepest_exits_on_the_teachers_own_features(tmp_path):
    names = [
        saved(tmp_path, "cnn", extractor(2.0, 4.0), "cnn", 1),
        saved(tmp_path, "transformer", extractor(), "transformer", 2),
    ]
    teachers = Teachers(names, extractor(-1.0, 2.0), tiny_config())
    log_mel = torch.randn(2, 20, 32)
    logits, frame_logits = teachers((log_mel + 1.0) / 2.0)
    with torch.no_grad():
        expected = [tiny_model("cnn", 1)((log_mel - 2.0) / 4.0), tiny_model("transformer", 2)(log_mel)]
    torch.testing.assert_close(logits, (expected[0].logits + expected[1].logits) / 2, atol=1e-5, rtol=1e-4)
    mean = (expected[0].frame_logits + expected[1].frame_logits) / 2
    torch.testing.assert_close(frame_logits, mean, atol=1e-5, rtol=1e-4)


def test_teachers_stay_frozen_and_in_evaluation_mode(tmp_path):
    teachers = Teachers([saved(tmp_path, "cnn", extractor())], extractor(), tiny_config()).train()
    assert not any(module.training for module in teachers.modules())
    assert not any(parameter.requires_grad for parameter in teachers.parameters())


def test_renormalization_by_hand():
    factor, summand = renormalization(extractor(1.0, 2.0), extractor(3.0, 4.0))
    # 5 dB: (5 - 1) / 2 = 2 for the student, (5 - 3) / 4 = 0.5 for the teacher
    assert 2 * factor[0] + summand[0] == pytest.approx(0.5)
    bare = EasySEDFeatureExtractor(feature_size=32)
    assert torch.equal(renormalization(bare, bare), torch.stack([torch.ones(32), torch.zeros(32)]))


@pytest.mark.parametrize(
    ("overrides", "what"), [({"frame_stride": 2}, "frame_stride=4"), ({"hop_length_samples": 80}, "hop_length_samples")]
)
def test_a_teacher_on_another_time_line(tmp_path, overrides, what):
    name = saved(tmp_path, "other", extractor(), **overrides)
    with pytest.raises(ValueError, match=f"teacher .*other must have the student's {what}"):
        Teachers([name], extractor(), tiny_config())


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


def test_a_run_learns_from_its_teacher(tmp_path):
    """The command itself: the model of a first run is the second one's teacher."""
    data = write_data(tmp_path / "data")
    config = str(write_config(tmp_path, data))
    base = ["--config", config, "--num_workers", "0"]
    main([*base, "--output_dir", str(tmp_path / "first")])
    teacher = str(tmp_path / "first" / "model")
    main([*base, "--output_dir", str(tmp_path / "second"), "--seed", "1", "--teachers", f"[{teacher}]"])
    taught = EasySEDForSoundEventDetection.from_pretrained(tmp_path / "second" / "model")
    assert taught.config.provenance["teachers"] == [{"backbone": "cnn", "seed": 0}]
    log = (tmp_path / "second" / "model" / "training_log.json").read_text()
    assert "taught_frame_1" in log


def test_an_unknown_teacher_is_one_line(tmp_path, capsys):
    config = str(write_config(tmp_path, write_data(tmp_path / "data")))
    with pytest.raises(SystemExit) as error:
        main(["--config", config, "--teachers", "[nobody]"])
    assert error.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("train.py: error: ") and "nobody" in last
