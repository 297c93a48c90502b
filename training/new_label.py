"""A base with one more class: the new rows of its classifiers on frozen features, then all weights with distillation.

Phase 1 fits the new row of every exit to cached embeddings: a logistic regression, seconds long, which cannot touch
the old classes. Phase 2 goes on with all weights at a low rate, held to the frozen base on the old classes."""

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from averaged_weights import AveragedWeights
from rare_event_scenes import SceneSet
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from modeling_easysed import EasySEDConfig, EasySEDForSoundEventDetection
from modeling_easysed.exits_easysed import INITIAL_CLASS_LOGIT, pool_clip
from modeling_easysed.losses_easysed import bernoulli_kl, known_bce

INITIAL_DEVIATION = 0.02  # as the model's own classifiers begin
BATCH_SCENES = 16
ROW_STEPS, ROW_BATCH, ROW_RATE, ROW_DECAY = 300, 48, 0.03, 1e-3
STATISTICS_STEP, SMALLEST_DEVIATION = 3, 1e-3  # scenes of which the channels' means and deviations are taken
TUNING_STEPS, TUNING_BATCH, TUNING_RATE, TUNING_DECAY = 600, 8, 1e-3, 0.01
WARMUP_SHARE = 1 / 15
AVERAGE_DECAY = 0.98
POSITIVE_SHARE = 0.4  # of a batch
CROP_S = 5.0
MAX_GRADIENT_NORM = 5.0


# ---- the model -------------------------------------------------------------------------------------------------------


def with_new_label(base: EasySEDForSoundEventDetection, label: str, seed: int) -> EasySEDForSoundEventDetection:
    """A copy of the base, in evaluation mode, whose classifiers have one more row: the last class.

    The old weights are those of the base, bit for bit. The base's decoding and calibration, which know no such class,
    are left out.
    """
    labels = {**base.config.id2label, base.config.num_labels: label}
    kept = {key: value for key, value in base.config.to_dict().items() if key not in ("id2label", "label2id")}
    config = EasySEDConfig.from_dict({**kept, "id2label": labels, "decoding": None, "calibration": None})
    model = EasySEDForSoundEventDetection(config)
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, value in base.state_dict().items():
        if ".classifier." in name:
            new = torch.full_like(value[:1], INITIAL_CLASS_LOGIT)
            if name.endswith("weight"):
                new = INITIAL_DEVIATION * torch.randn(new.shape, generator=generator).to(new)
            value = torch.cat([value, new])
        weights[name] = value
    model.load_state_dict(weights)
    return model.to(device=base.device, dtype=base.dtype).eval()


@torch.no_grad()
def set_new_rows(model: EasySEDForSoundEventDetection, weights: torch.Tensor, biases: torch.Tensor) -> None:
    """Writes the last class of every exit: weights (exits, size), biases (exits,)."""
    for head, weight, bias in zip(model.exits, weights, biases, strict=True):
        head.classifier.weight[-1] = weight.to(head.classifier.weight)
        head.classifier.bias[-1] = bias.to(head.classifier.bias)


# ---- what the frozen base says ---------------------------------------------------------------------------------------


@dataclass
class Frozen:
    """What the base makes of scenes, computed once.

    Attributes:
        embeddings: (exits, scenes, output frames, size), float16.
        frame_logits: (exits, scenes, output frames, old classes), float16.
        logits: (exits, scenes, old classes).
    """

    embeddings: torch.Tensor
    frame_logits: torch.Tensor
    logits: torch.Tensor


@torch.inference_mode()
def run_frozen(base: EasySEDForSoundEventDetection, scenes: SceneSet, name: str) -> Frozen:
    """The base on every scene."""
    parts: list[list[torch.Tensor]] = [[], [], []]
    for start in tqdm(range(0, len(scenes), BATCH_SCENES), name, leave=False, disable=not sys.stderr.isatty()):
        output = base(scenes.features[start : start + BATCH_SCENES].to(base.device).float())
        parts[0].append(output.exit_embeddings.half().cpu())
        parts[1].append(output.exit_frame_logits.half().cpu())
        parts[2].append(output.exit_logits.float().cpu())
    return Frozen(*(torch.cat(part, dim=1) for part in parts))


# ---- phase 1: new rows on cached embeddings --------------------------------------------------------------------------


@dataclass
class NewRows:
    """Rows of several fits at one exit: weight (fits, size) and bias (fits,)."""

    weight: torch.Tensor
    bias: torch.Tensor

    def probabilities(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(..., frames, size) to (..., frames, fits)."""
        return torch.sigmoid(F.linear(embeddings.float(), self.weight, self.bias))


def fit_new_rows(
    embeddings: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, dropout: float, seed: int
) -> NewRows:
    """Logistic regressions of frames, many at once: each has its own weights of the scenes and sees the same batches.

    Args:
        embeddings: (scenes, output frames, size) of one exit.
        targets: (scenes, output frames) in [0, 1].
        weights: (fits, scenes) what each scene counts for; 0 = held out.
        dropout: of whole channels of the embedding, as in front of the model's classifier.
        seed: of rows, batches and dropout.
    """
    generator = torch.Generator().manual_seed(seed)
    size = embeddings.shape[-1]
    mean, deviation = channel_statistics(embeddings, dropout)
    initial = INITIAL_DEVIATION * torch.randn(1, size, generator=generator)
    weight = nn.Parameter(initial.repeat(len(weights), 1))
    bias = nn.Parameter(torch.full((len(weights),), INITIAL_CLASS_LOGIT))
    optimizer = torch.optim.AdamW([weight, bias], lr=ROW_RATE, weight_decay=ROW_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ROW_STEPS)
    is_positive = targets.amax(1) > 0
    pools = [torch.nonzero(pool)[:, 0] for pool in (is_positive, ~is_positive)]
    num_positive = round(POSITIVE_SHARE * ROW_BATCH)
    for _ in range(ROW_STEPS):
        drawn = [
            pool[torch.randint(len(pool), (number,), generator=generator)]
            for pool, number in zip(pools, (num_positive, ROW_BATCH - num_positive), strict=True)
        ]
        chosen = torch.cat(drawn)
        kept = torch.rand(ROW_BATCH, 1, size, generator=generator) >= dropout
        hidden = (embeddings[chosen].float() * kept / (1 - dropout) - mean) / deviation
        logits = F.linear(hidden, weight, bias)
        # (batch, frames, fits)
        target = targets[chosen, :, None].expand_as(logits)
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)
        loss = (losses * weights[:, chosen].t()).mean(0).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    own = weight.detach() / deviation
    return NewRows(own, bias.detach() - own @ mean)


def channel_statistics(embeddings: torch.Tensor, dropout: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation (size,) of every channel of embeddings (scenes, frames, size) after dropout.

    Channels differ a hundredfold in size; without this, what tells a sound apart in a faint one is never learned.
    """
    frames = embeddings[::STATISTICS_STEP].float().flatten(0, 1)
    mean = frames.mean(0)
    variance = frames.square().mean(0) / (1 - dropout) - mean.square()
    return mean, variance.clamp_min(SMALLEST_DEVIATION**2).sqrt()


def scene_weights(groups: np.ndarray, chosen: set[int], allowed: np.ndarray) -> np.ndarray:
    """What scenes (scenes,) count for: every chosen recording the same in all, everything without the sound 1.

    Args:
        groups: (scenes,) recording of the new sound, -1 for none.
        chosen: recordings to learn from.
        allowed: (scenes,) False = held out.
    """
    weights = ((groups < 0) & allowed).astype(np.float64)
    is_chosen = np.isin(groups, sorted(chosen)) & allowed
    num_positive = (groups >= 0).sum()
    for group in chosen:
        own = is_chosen & (groups == group)
        if own.any():
            weights[own] = num_positive / len(chosen) / own.sum()
    return weights


# ---- phase 2: all weights --------------------------------------------------------------------------------------------


@dataclass
class TuningData:
    """What phase 2 learns from: scenes, and what the frozen base says of them."""

    scenes: list[SceneSet]
    frozen: list[Frozen]

    def pools(self, is_held: list[np.ndarray]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """(set, scene) of all that are not held out: those with the new sound, those without."""
        with_sound, without = [], []
        for number, (scenes, held) in enumerate(zip(self.scenes, is_held, strict=True)):
            for index in np.flatnonzero(~held).tolist():
                (with_sound if scenes.groups[index] >= 0 else without).append((number, index))
        return with_sound, without

    def batch(self, chosen: list[tuple[int, int]], crop: slice | None, stride: int) -> dict[str, torch.Tensor]:
        """Features, targets and the base's logits of scenes, cut to `crop` output frames."""
        columns: dict[str, list[torch.Tensor]] = {"features": [], "targets": [], "frame_logits": [], "logits": []}
        for number, index in chosen:
            scenes, frozen = self.scenes[number], self.frozen[number]
            inside = slice(0, scenes.targets.shape[1]) if crop is None else crop
            columns["features"].append(scenes.features[index, inside.start * stride : inside.stop * stride])
            columns["targets"].append(scenes.targets[index, inside])
            columns["frame_logits"].append(frozen.frame_logits[:, index, inside])
            columns["logits"].append(frozen.logits[:, index])
        dims = {"features": 0, "targets": 0, "frame_logits": 1, "logits": 1}
        return {name: torch.stack(values, dim=dims[name]).float() for name, values in columns.items()}


@contextmanager
def frozen_norms(model: nn.Module) -> Iterator[None]:
    """Training mode inside, with the statistics of batch norms as they are; evaluation mode after it."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    try:
        yield
    finally:
        model.eval()


def tuning_loss(
    model: EasySEDForSoundEventDetection, batch: dict[str, torch.Tensor], is_cropped: bool
) -> dict[str, torch.Tensor]:
    """What phase 2 minimises, part by part: the new class at every exit, and the distance to the base on the old ones.

    Both are sums over exits; the distance is a sum over the old classes as well, so that each of them weighs as much
    as the new one.

    Args:
        model: with the new class last.
        batch: features (batch, frames, mels), targets (batch, output frames), frame_logits (exits, batch, output
            frames, old classes) and logits (exits, batch, old classes) of the base.
        is_cropped: the base heard whole scenes: its clip logits are pooled anew from the frames of the crop.
    """
    output = model(batch["features"])
    frames, clips = output.exit_frame_logits.float(), output.exit_logits.float()
    num_old, config = frames.shape[-1] - 1, model.config
    target = batch["targets"].unsqueeze(-1)
    old_clips = batch["logits"]
    if is_cropped:
        old_clips = torch.stack([pool_clip(one, None, config.clip_pooling) for one in batch["frame_logits"]])
    parts = {"new": torch.zeros(()), "old": torch.zeros(())}
    for index in range(len(frames)):
        parts["new"] = parts["new"] + config.frame_loss_weight * known_bce(frames[index, ..., -1:], target)
        parts["new"] = parts["new"] + config.clip_loss_weight * known_bce(
            clips[index, :, -1:], (target.amax(1) > 0).float()
        )
        for weight, own, base in (
            (config.frame_loss_weight, frames[index, ..., :-1], batch["frame_logits"][index]),
            (config.clip_loss_weight, clips[index, :, :-1], old_clips[index]),
        ):
            parts["old"] = parts["old"] + weight * num_old * bernoulli_kl(own, base, 1.0)
    return parts


def fine_tune(
    model: EasySEDForSoundEventDetection,
    data: TuningData,
    is_held: list[np.ndarray],
    accelerator: Accelerator,
    seed: int,
    steps: int = TUNING_STEPS,
    name: str = "fine-tuning",
) -> EasySEDForSoundEventDetection:
    """A copy of the model after phase 2: the averaged weights, in evaluation mode.

    Args:
        model: after phase 1.
        data: scenes; is_held: (scenes,) per set, True = held out.
        accelerator: of the run.
        seed: of batches and dropout.
        steps: optimiser steps.
        name: of the progress bar.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 7])
    tuned = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(tuned.parameters(), lr=TUNING_RATE, weight_decay=TUNING_DECAY)
    schedule = get_cosine_schedule_with_warmup(optimizer, round(WARMUP_SHARE * steps), steps)
    prepared, optimizer, schedule = accelerator.prepare(tuned, optimizer, schedule)
    average = AveragedWeights(accelerator.unwrap_model(prepared), AVERAGE_DECAY)
    pools, config = data.pools(is_held), model.config
    sizes = [round(POSITIVE_SHARE * TUNING_BATCH), TUNING_BATCH - round(POSITIVE_SHARE * TUNING_BATCH)]
    num_frames = data.scenes[0].targets.shape[1]
    length = min(round(CROP_S / config.frame_duration_s), num_frames)
    is_cropped = config.backbone != "ast"  # whose clip logits come from a token of the whole scene
    bar = tqdm(range(steps), name, leave=False, disable=not sys.stderr.isatty())
    for step in bar:
        chosen = [
            pool[i]
            for pool, size in zip(pools, sizes, strict=True)
            for i in rng.integers(len(pool), size=size).tolist()
        ]
        start = int(rng.integers(num_frames - length)) if length < num_frames else 0
        crop = slice(start, start + length) if is_cropped else None
        batch = {
            key: value.to(accelerator.device) for key, value in data.batch(chosen, crop, config.frame_stride).items()
        }
        with frozen_norms(prepared), accelerator.autocast():
            parts = tuning_loss(prepared, batch, is_cropped)
        loss = parts["new"] + parts["old"]
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(prepared.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        average.update(accelerator.unwrap_model(prepared), step)
        bar.set_postfix_str(", ".join(f"{key} {value.item():.2f}" for key, value in parts.items()), refresh=False)
    result = accelerator.unwrap_model(prepared)
    with average.swapped_in(result):
        averaged = copy.deepcopy(result)
    accelerator.free_memory()
    return averaged.eval()


@torch.no_grad()
def blended(
    start: EasySEDForSoundEventDetection, tuned: EasySEDForSoundEventDetection, share: float
) -> EasySEDForSoundEventDetection:
    """A model whose weights lie between two, `share` of the way from `start`: most of what was learned, less forgotten.

    Source: Wortsman et al. 2022, Robust Fine-Tuning of Zero-Shot Models, CVPR.
    """
    model = copy.deepcopy(start)
    for own, other in zip(model.parameters(), tuned.parameters(), strict=True):
        own.lerp_(other, share)
    return model


@torch.no_grad()
def mean_model(models: list[EasySEDForSoundEventDetection]) -> EasySEDForSoundEventDetection:
    """A model whose weights are the means of others' that began alike; buffers are those of the first.

    Source: Wortsman et al. 2022, Model Soups: Averaging Weights of Multiple Fine-Tuned Models, ICML.
    """
    mean = copy.deepcopy(models[0])
    for own, *others in zip(mean.parameters(), *(model.parameters() for model in models), strict=True):
        own.copy_(torch.stack([other.detach() for other in others]).mean(0))
    return mean


__all__ = [
    "Frozen",
    "NewRows",
    "TuningData",
    "blended",
    "fine_tune",
    "fit_new_rows",
    "frozen_norms",
    "mean_model",
    "run_frozen",
    "scene_weights",
    "set_new_rows",
    "tuning_loss",
    "with_new_label",
]
