"""Losses as plain functions of tensors to a scalar: supervision by frames and by clips, and self-distillation.

Targets below 0 mean "unknown" and are left out, so that strongly and weakly labelled clips share a batch.
Source: Zhang et al. 2019, Be Your Own Teacher, ICCV, section 3 (soft targets and hint from the deepest exit)."""

import torch
from torch.nn import functional as F


def known_bce(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy over the targets that are known.

    Args:
        logits: any shape, logits.
        targets: the same shape, in [0, 1]; negative = unknown.

    Returns:
        Scalar; 0 when nothing is known.
    """
    known = (targets >= 0).to(logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, targets.clamp_min(0).to(logits.dtype), reduction="none")
    return (losses * known).sum() / known.sum().clamp_min(1)


def bernoulli_kl(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """KL divergence from the teacher's Bernoulli probabilities to the student's, softened by T and scaled by T^2.

    Args:
        student_logits: (..., classes).
        teacher_logits: the same shape; no gradient flows into it.
        temperature: T > 0.
        mask: (...), 1 = counts; None = everything counts.

    Returns:
        Scalar mean over what counts. Source: Hinton et al. 2015 for T^2; independent classes instead of a softmax.
    """
    soft = torch.sigmoid(teacher_logits.detach() / temperature)
    cross = F.binary_cross_entropy_with_logits(student_logits / temperature, soft, reduction="none")
    entropy = F.binary_cross_entropy_with_logits(teacher_logits.detach() / temperature, soft, reduction="none")
    divergence = (cross - entropy).mean(-1) * temperature**2
    if mask is None:
        return divergence.mean()
    mask = mask.to(divergence.dtype)
    return (divergence * mask).sum() / mask.sum().clamp_min(1)


def hint_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Mean squared distance of two embeddings (batch, frames, features); no gradient into the teacher's."""
    distance = (student - teacher.detach()).square().mean(-1)
    if mask is None:
        return distance.mean()
    mask = mask.to(distance.dtype)
    return (distance * mask).sum() / mask.sum().clamp_min(1)


def supervised_losses(
    exit_logits: torch.Tensor,
    exit_frame_logits: torch.Tensor,
    labels: torch.Tensor | None,
    frame_labels: torch.Tensor | None,
) -> dict[str, torch.Tensor]:
    """Frame and clip losses of every exit.

    Args:
        exit_logits: (exits, batch, classes).
        exit_frame_logits: (exits, batch, frames, classes).
        labels: (batch, classes) or None; frame_labels: (batch, frames, classes) or None; negative = unknown.

    Returns:
        {"frame_1": scalar, ..., "clip_1": scalar, ...}, exits counted from 1.
    """
    parts = {}
    for index in range(len(exit_logits)):
        if frame_labels is not None:
            parts[f"frame_{index + 1}"] = known_bce(exit_frame_logits[index], frame_labels)
        if labels is not None:
            parts[f"clip_{index + 1}"] = known_bce(exit_logits[index], labels)
    return parts


def distillation_losses(
    exit_logits: torch.Tensor,
    exit_frame_logits: torch.Tensor,
    exit_embeddings: torch.Tensor,
    temperature: float,
    mask: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """What every student exit learns from the deepest exit.

    Args:
        exit_logits: (exits, batch, classes).
        exit_frame_logits: (exits, batch, frames, classes).
        exit_embeddings: (exits, batch, frames, features).
        temperature: T of the soft targets.
        mask: (batch, frames), 1 = real frame.

    Returns:
        {"soft_frame_k", "soft_clip_k", "hint_k"} for the exits k below the deepest.
    """
    parts = {}
    for index in range(len(exit_logits) - 1):
        name = index + 1
        parts[f"soft_frame_{name}"] = bernoulli_kl(exit_frame_logits[index], exit_frame_logits[-1], temperature, mask)
        parts[f"soft_clip_{name}"] = bernoulli_kl(exit_logits[index], exit_logits[-1], temperature)
        parts[f"hint_{name}"] = hint_loss(exit_embeddings[index], exit_embeddings[-1], mask)
    return parts


def total_loss(
    parts: dict[str, torch.Tensor],
    frame_weight: float,
    clip_weight: float,
    distillation_weight: float,
    hint_weight: float,
) -> torch.Tensor:
    """Weighted sum: the deepest exit learns from labels, a student (1 - alpha) from labels and alpha from the teacher.

    Args:
        parts: what `supervised_losses` and `distillation_losses` return, in one dict.
        frame_weight, clip_weight: weights of frames and clips, for labels and soft targets alike.
        distillation_weight: alpha in [0, 1]; counts only where the parts hold soft targets.
        hint_weight: lambda of the hint loss.

    Returns:
        Scalar.
    """
    total = torch.zeros((), device=next(iter(parts.values())).device)
    for name, value in parts.items():
        kind, index = name.rsplit("_", 1)
        if kind == "hint":
            weight = hint_weight
        else:
            weight = clip_weight if "clip" in kind else frame_weight
            is_student = f"soft_frame_{index}" in parts
            weight *= distillation_weight if kind.startswith("soft") else 1.0 - distillation_weight * is_student
        total = total + weight * value
    return total
