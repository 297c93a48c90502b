"""What trained teachers say about every training sample, computed once and learned from by any number of students.

A folder: targets.json says whose they are and of which samples; labels.npy (samples, classes) and frame_labels.npy
(samples, output frames, classes) hold mean logits, half precision. A sample is the same in every run of the same
settings, so that its number is all that a student needs. Source: Hinton et al. 2015, Distilling the Knowledge in a
Neural Network (an ensemble into one network); Beyer et al. 2022, Knowledge distillation: A good teacher is patient and
consistent (teacher and student see the same augmented sample)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from settings import Settings

from modeling_easysed import EasySEDConfig
from modeling_easysed.losses_easysed import bernoulli_kl

SOFT = ("soft_labels", "soft_frame_labels")
FILES = {"soft_labels": "labels.npy", "soft_frame_labels": "frame_labels.npy"}
SAMPLE_SETTINGS = (
    "split",
    "folds",
    "exclude_licenses",
    "exclude_labels",
    "synthetic_outside",
    "scene_fraction",
    "weak_fraction",
    "features",
    "recipe",
)


def samples_of(settings: Settings, config: EasySEDConfig) -> dict[str, Any]:
    """Everything that decides what sample number n is, in plain values: equal here, equal samples."""
    described = {name: getattr(settings, name) for name in SAMPLE_SETTINGS}
    described |= {
        "seed": settings.seed_of_samples,
        "clips": Path(settings.clips).name,
        "outside": None if settings.outside is None else Path(settings.outside).name,
        "labels": [config.id2label[index] for index in range(config.num_labels)],
        "frame_duration_s": config.frame_duration_s,
    }
    return json.loads(json.dumps(described))


class SoftTargets:
    """Soft targets on disk, read sample by sample.

    Args:
        folder: what `teach.py` wrote.
        settings: of the student's run, whose samples must be the teachers'.
        config: of the student.

    Attributes:
        teachers: backbone and seed of each, for the student's provenance.

    Raises:
        ValueError: when they are of other samples, unfinished, or of fewer samples than the run has.
        FileNotFoundError: when there are none.
    """

    def __init__(self, folder: Path, settings: Settings, config: EasySEDConfig) -> None:
        about = read_about(folder)
        own = samples_of(settings, config)
        for name, value in about["samples"].items():
            if own[name] != value:
                raise ValueError(f"soft_targets {folder.name} are of samples with {name}={value}, got {own[name]}")
        needed = settings.steps * settings.batch_size
        if about["done"] < needed:
            raise ValueError(f"soft_targets {folder.name} hold {about['done']} samples, the run has {needed}")
        self.teachers = about["teachers"]
        self.logits = {name: np.load(folder / file, mmap_mode="r") for name, file in FILES.items()}

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """soft_labels (classes,) and soft_frame_labels (output frames, classes) of sample `number`, logits."""
        return {name: torch.from_numpy(values[number].astype(np.float32)) for name, values in self.logits.items()}


def read_about(folder: Path) -> dict[str, Any]:
    """targets.json.

    Raises:
        FileNotFoundError: when there is none.
    """
    path = folder / "targets.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: soft_targets must be a folder that teach.py wrote")
    return json.loads(path.read_text(encoding="utf-8"))


class SoftTargetWriter:
    """Writes soft targets in order of the samples; opened again, it goes on where it was.

    Args:
        folder: where they go.
        about: {"samples": as `samples_of` says, "teachers": of whom}.
        num_samples, num_frames, num_classes: the arrays' shapes.

    Attributes:
        done: how many samples are written.

    Raises:
        ValueError: when the folder holds other targets.
    """

    def __init__(
        self, folder: Path, about: dict[str, Any], num_samples: int, num_frames: int, num_classes: int
    ) -> None:
        self.folder, self.about, self.done = folder, {**about, "num_samples": num_samples}, 0
        clip_shape, frame_shape = (num_samples, num_classes), (num_samples, num_frames, num_classes)
        shapes = dict(zip(SOFT, (clip_shape, frame_shape), strict=True))
        is_new = not (folder / "targets.json").is_file()
        if not is_new:
            before = read_about(folder)
            self.done = before.pop("done")
            if before != self.about:
                raise ValueError(f"{folder} holds soft targets of other samples or teachers: choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        mode = "w+" if is_new else "r+"
        self.logits = {
            name: np.lib.format.open_memmap(folder / FILES[name], mode=mode, dtype=np.float16, shape=shape)
            for name, shape in shapes.items()
        }
        self._note()

    def add(self, labels: torch.Tensor, frame_labels: torch.Tensor) -> None:
        """The next samples' logits: (samples, classes) and (samples, output frames, classes)."""
        end = self.done + len(labels)
        for name, values in zip(SOFT, (labels, frame_labels), strict=True):
            self.logits[name][self.done : end] = values.numpy()
        self.done = end

    def flush(self) -> None:
        """From here a killed run goes on."""
        for values in self.logits.values():
            values.flush()
        self._note()

    def _note(self) -> None:
        text = json.dumps({**self.about, "done": self.done}, indent=1) + "\n"
        unfinished = self.folder / "targets.json.unfinished"
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(self.folder / "targets.json")


# ---- the loss --------------------------------------------------------------------------------------------------------


def taught_losses(
    exit_logits: torch.Tensor,
    exit_frame_logits: torch.Tensor,
    targets: tuple[torch.Tensor, torch.Tensor],
    temperature: float,
) -> dict[str, torch.Tensor]:
    """What every exit, the deepest too, learns from the teachers.

    Args:
        exit_logits: (exits, batch, classes); exit_frame_logits: (exits, batch, frames, classes).
        targets: the teachers' logits (batch, classes) and (batch, frames, classes).
        temperature: T of the soft targets.

    Returns:
        {"taught_frame_k": scalar, "taught_clip_k": scalar}, exits counted from 1.
    """
    clip_targets, frame_targets = targets
    parts = {}
    for index in range(len(exit_logits)):
        parts[f"taught_frame_{index + 1}"] = bernoulli_kl(exit_frame_logits[index], frame_targets, temperature)
        parts[f"taught_clip_{index + 1}"] = bernoulli_kl(exit_logits[index], clip_targets, temperature)
    return parts


def taught_weights(names: Sequence[str], config: EasySEDConfig, teacher_weight: float) -> dict[str, float]:
    """The weight of each of these parts: `teacher_weight` times that of frames or clips."""
    kinds = {"taught_frame": config.frame_loss_weight, "taught_clip": config.clip_loss_weight}
    return {name: teacher_weight * kinds[name.rsplit("_", 1)[0]] for name in names}
