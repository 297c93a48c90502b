"""Teachers: their mean is the target, their features are their own, and nothing of them is learned."""

import pytest
import torch
from teachers import Teachers, renormalization
from tiny import tiny_config, tiny_model

from modeling_easysed import EasySEDFeatureExtractor


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
