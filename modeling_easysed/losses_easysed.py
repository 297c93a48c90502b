"""Losses as plain functions of tensors to a scalar: supervision by frames and by clips, and self-distillation.

Targets below 0 mean "unknown" and are left out, so that strongly and weakly labelled clips share a batch.
Source: Zhang et al. 2019, Be Your Own Teacher, ICCV, section 3 (soft targets and hint from the deepest exit)."""

from collections.abc import Iterable

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


def class_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Softmax cross-entropy over classes: which of the classes is it, rather than whether each of them sounds.

    Independent classes are never told apart from each other; this term does, and takes nothing from detection.

    Args:
        logits: (batch, classes).
        targets: (batch, classes) in [0, 1]; several classes share the mass. A clip without any class, or with an
            unknown (negative) one, is left out.

    Returns:
        Scalar mean over the clips that count; 0 when none does.
    """
    counts = ((targets >= 0).all(-1) & (targets.sum(-1) > 0)).to(logits.dtype)
    shares = targets.clamp_min(0).to(logits.dtype)
    shares = shares / shares.sum(-1, keepdim=True).clamp_min(1e-6)
    losses = -(shares * F.log_softmax(logits, dim=-1)).sum(-1)
    return (losses * counts).sum() / counts.sum().clamp_min(1)


def class_kl(student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL divergence between the softmax distributions over classes, softened by T and scaled by T^2.

    Args:
        student_logits: (batch, classes).
        teacher_logits: the same shape; no gradient flows into it.
        temperature: T > 0.

    Returns:
        Scalar mean over the batch. Source: Zhang et al. 2019, Be Your Own Teacher, equation 3.
    """
    soft = F.log_softmax(teacher_logits.detach() / temperature, dim=-1)
    own = F.log_softmax(student_logits / temperature, dim=-1)
    return F.kl_div(own, soft, log_target=True, reduction="batchmean") * temperature**2


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
    with_classes: bool = False,
) -> dict[str, torch.Tensor]:
    """Frame and clip losses of every exit.

    Args:
        exit_logits: (exits, batch, classes).
        exit_frame_logits: (exits, batch, frames, classes).
        labels: (batch, classes) or None; frame_labels: (batch, frames, classes) or None; negative = unknown.
        with_classes: also the cross-entropy over classes, from `labels`.

    Returns:
        {"frame_1": scalar, ..., "clip_1": scalar, ..., "class_1": scalar, ...}, exits counted from 1.
    """
    parts = {}
    for index in range(len(exit_logits)):
        if frame_labels is not None:
            parts[f"frame_{index + 1}"] = known_bce(exit_frame_logits[index], frame_labels)
        if labels is not None:
            parts[f"clip_{index + 1}"] = known_bce(exit_logits[index], labels)
            if with_classes:
                parts[f"class_{index + 1}"] = class_cross_entropy(exit_logits[index], labels)
    return parts


def distillation_losses(
    exit_logits: torch.Tensor,
    exit_frame_logits: torch.Tensor,
    exit_embeddings: torch.Tensor,
    temperature: float,
    mask: torch.Tensor | None = None,
    with_classes: bool = False,
    from_ensemble: bool = False,
) -> dict[str, torch.Tensor]:
    """What every student exit learns from the deepest exit, or from all exits together.

    Args:
        exit_logits: (exits, batch, classes).
        exit_frame_logits: (exits, batch, frames, classes).
        exit_embeddings: (exits, batch, frames, features).
        temperature: T of the soft targets.
        mask: (batch, frames), 1 = real frame.
        with_classes: also the divergence over classes.
        from_ensemble: soft targets are the exits' mean logits, not those of the deepest; hints stay the deepest's.

    Returns:
        {"soft_frame_k", "soft_clip_k", "soft_class_k", "hint_k"} for the exits k below the deepest.
    """
    parts = {}
    clip_target = exit_logits.mean(0) if from_ensemble else exit_logits[-1]
    frame_target = exit_frame_logits.mean(0) if from_ensemble else exit_frame_logits[-1]
    for index in range(len(exit_logits) - 1):
        name = index + 1
        parts[f"soft_frame_{name}"] = bernoulli_kl(exit_frame_logits[index], frame_target, temperature, mask)
        parts[f"soft_clip_{name}"] = bernoulli_kl(exit_logits[index], clip_target, temperature)
        if with_classes:
            parts[f"soft_class_{name}"] = class_kl(exit_logits[index], clip_target, temperature)
        parts[f"hint_{name}"] = hint_loss(exit_embeddings[index], exit_embeddings[-1], mask)
    return parts


def part_weights(
    names: Iterable[str],
    frame_weight: float,
    clip_weight: float,
    class_weight: float,
    distillation_weight: float,
    hint_weight: float,
) -> dict[str, float]:
    """The weight of every part: the deepest exit learns from labels, a student (1 - alpha) from labels, alpha from it.

    Args:
        names: of what `supervised_losses` and `distillation_losses` return.
        frame_weight, clip_weight, class_weight: of these losses, for labels and soft targets alike.
        distillation_weight: alpha in [0, 1]; counts only where there are soft targets.
        hint_weight: lambda of the hint loss.
    """
    names = set(names)
    kinds = {"frame": frame_weight, "clip": clip_weight, "class": class_weight, "hint": hint_weight}
    weights = {}
    for name in names:
        kind, index = name.removeprefix("soft_").rsplit("_", 1)
        share = 1.0
        if name.startswith("soft_"):
            share = distillation_weight
        elif kind != "hint" and f"soft_frame_{index}" in names:
            share = 1.0 - distillation_weight
        weights[name] = kinds[kind] * share
    return weights


def total_loss(parts: dict[str, torch.Tensor], weights: dict[str, float]) -> torch.Tensor:
    """Weighted sum of the parts, a scalar."""
    return torch.stack([weights[name] * value for name, value in parts.items()]).sum()
