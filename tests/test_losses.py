"""Losses against numbers worked out by hand."""

import math

import pytest
import torch

from modeling_easysed.losses_easysed import bernoulli_kl, hint_loss, known_bce, total_loss


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


def test_total_loss_weights():
    one = torch.tensor(1.0)
    parts = {"frame_1": one, "clip_1": one, "frame_2": one, "soft_frame_1": one, "soft_clip_1": one, "hint_1": one}
    # student: (1 - 0.3) (1 + 0.5) + 0.3 (1 + 0.5) + 0.03; teacher: 1
    assert total_loss(parts, 1.0, 0.5, 0.3, 0.03).item() == pytest.approx(0.7 * 1.5 + 0.3 * 1.5 + 0.03 + 1.0)
    assert total_loss({"frame_1": one}, 2.0, 0.5, 0.3, 0.03).item() == pytest.approx(2.0)
