"""Losses against numbers worked out by hand."""

import math

import pytest
import torch

from modeling_easysed.losses_easysed import (
    bernoulli_kl,
    class_cross_entropy,
    class_kl,
    distillation_losses,
    hint_loss,
    known_bce,
    part_weights,
    total_loss,
)


def test_known_bce_leaves_unknown_out():
    logits = torch.tensor([[0.0, 2.0, 5.0]])
    targets = torch.tensor([[1.0, 0.0, -1.0]])
    expected = (math.log(2) + math.log(1 + math.exp(2))) / 2
    assert known_bce(logits, targets).item() == pytest.approx(expected, abs=1e-6)
    assert known_bce(logits, torch.full((1, 3), -1.0)).item() == 0.0


def test_bernoulli_kl_by_hand():
    """Teacher 0.75, student 0.5, T = 1: 0.75 ln(1.5) + 0.25 ln(0.5)."""
    student, teacher = torch.tensor([[0.0]]), torch.tensor([[math.log(3.0)]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert bernoulli_kl(student, teacher, 1.0).item() == pytest.approx(expected, abs=1e-6)
    assert bernoulli_kl(teacher, teacher, 3.0).item() == pytest.approx(0.0, abs=1e-6)


def test_bernoulli_kl_scales_with_temperature():
    """For small logits KL at T is KL at 1 over T^2, so that T^2 brings it back."""
    student, teacher = torch.tensor([[0.02]]), torch.tensor([[-0.03]])
    cold, hot = bernoulli_kl(student, teacher, 1.0), bernoulli_kl(student, teacher, 4.0)
    assert cold.item() == pytest.approx(0.05**2 / 8, rel=0.02)
    assert hot.item() == pytest.approx(cold.item(), rel=0.02)


def test_masked_frames_do_not_count():
    student, teacher = torch.zeros(1, 2, 1), torch.tensor([[[0.0], [9.0]]])
    assert bernoulli_kl(student, teacher, 1.0, mask=torch.tensor([[1, 0]])).item() == pytest.approx(0.0, abs=1e-6)
    first, second = torch.zeros(1, 2, 2), torch.tensor([[[1.0, 1.0], [5.0, 5.0]]])
    assert hint_loss(first, second, mask=torch.tensor([[1, 0]])).item() == pytest.approx(1.0)
    assert hint_loss(first, second).item() == pytest.approx(13.0)


def test_no_gradient_into_the_teacher():
    student, teacher = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    (bernoulli_kl(student, teacher, 2.0) + hint_loss(student, teacher)).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None


WEIGHTS = {
    "frame_weight": 2.0,
    "clip_weight": 0.5,
    "class_weight": 0.1,
    "distillation_weight": 0.3,
    "hint_weight": 0.03,
}


def test_a_student_shares_its_weight_between_labels_and_teacher():
    names = ["frame_1", "clip_1", "class_1", "soft_frame_1", "soft_clip_1", "soft_class_1", "hint_1"]
    names += ["frame_2", "clip_2", "class_2"]
    assert part_weights(names, **WEIGHTS) == pytest.approx(
        {"frame_1": 1.4, "clip_1": 0.35, "class_1": 0.07, "soft_frame_1": 0.6, "soft_clip_1": 0.15}
        | {"soft_class_1": 0.03, "hint_1": 0.03, "frame_2": 2.0, "clip_2": 0.5, "class_2": 0.1}
    )


def test_without_soft_targets_labels_keep_their_weight():
    assert part_weights(["frame_1", "clip_1"], **WEIGHTS) == {"frame_1": 2.0, "clip_1": 0.5}


def test_the_total_is_the_weighted_sum():
    parts = {"frame_1": torch.tensor(3.0), "hint_1": torch.tensor(2.0)}
    assert total_loss(parts, {"frame_1": 2.0, "hint_1": 0.5}).item() == pytest.approx(7.0)


def test_class_cross_entropy_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0], [5.0, 5.0], [1.0, 2.0]])
    targets = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, -1.0]])
    # softmax (3/4, 1/4); two classes share the mass: log 2; no class, and an unknown one: left out
    assert class_cross_entropy(logits, targets).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert class_cross_entropy(logits, torch.zeros(4, 2)).item() == 0.0


def test_class_kl_by_hand_and_without_gradient_to_the_teacher():
    student = torch.tensor([[0.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[math.log(3.0), 0.0]], requires_grad=True)
    divergence = class_kl(student, teacher, 1.0)
    assert divergence.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    # at T = 2 the teacher's odds are the square root of 3 to 1, and the result counts four times
    share = math.sqrt(3) / (1 + math.sqrt(3))
    expected = 4 * (share * math.log(2 * share) + (1 - share) * math.log(2 * (1 - share)))
    assert class_kl(student, teacher, 2.0).item() == pytest.approx(expected)
    divergence.backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


def test_soft_targets_of_the_deepest_exit_or_of_all():
    logits = torch.tensor([[[0.0]], [[1.0]], [[2.0]]])  # three exits, one clip, one class
    frames, embeddings = logits.unsqueeze(2), torch.zeros(3, 1, 1, 4)
    deepest = distillation_losses(logits, frames, embeddings, 1.0)
    ensemble = distillation_losses(logits, frames, embeddings, 1.0, from_ensemble=True)
    assert deepest["soft_clip_2"] == bernoulli_kl(logits[1], logits[2], 1.0)
    assert ensemble["soft_clip_1"] == bernoulli_kl(logits[0], torch.ones(1, 1), 1.0)  # the mean of 0, 1 and 2
    assert ensemble["soft_clip_2"] == 0 and ensemble["soft_frame_2"] == 0


def test_no_gradient_reaches_the_exits_through_an_ensemble_target():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    frames, embeddings = torch.randn(2, 3, 5, 4), torch.zeros(2, 3, 5, 8)
    distillation_losses(logits, frames, embeddings, 1.0, from_ensemble=True)["soft_clip_1"].backward()
    assert logits.grad[0].abs().sum() > 0 and logits.grad[1].abs().sum() == 0
