"""Settings of a training run: one YAML file, overridden by `--key value` on the command line."""

import argparse
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from soundscapes import Recipe

from modeling_easysed import EasySEDConfig


@dataclass
class Settings:
    """What `train.py` reads.

    Attributes:
        output_dir: checkpoints, logs and the final model.
        clips: folder of isolated labelled clips (ESC-10's layout); folds: which of them may be seen.
        exclude_licenses: clips under these licences are left out (what is released may not be derived from them).
        outside: folder of sounds of no target class (its `train` split is used), or None.
        synthetic_outside: so many synthetic sounds of no target class beside them (see distractors.py).
        validation: folder of strongly labelled soundscapes for the score during training, or None.
        seed: of everything random.
        steps: optimiser steps; batch_size: soundscapes per step and process.
        learning_rate: peak; warmup_steps to it, then cosine to zero.
        weight_decay: AdamW's; max_gradient_norm: clipping.
        ema_decay: of the averaged weights, which are what is evaluated and saved.
        weak_fraction: share of the soundscapes whose frame labels are hidden, clip labels kept.
        mixed_precision: "no", "bf16" or "auto" (bf16 where the processor has it in hardware).
        num_threads: torch threads per process on the CPU, or None for torch's choice.
        validate_every, checkpoint_every: steps.
        features: arguments of EasySEDFeatureExtractor.
        model: arguments of EasySEDConfig.
        recipe: arguments of Recipe.
    """

    output_dir: str = "runs/default"
    clips: str = "../shared/data/esc10"
    folds: list[str] = field(default_factory=lambda: ["1", "2", "3"])
    exclude_licenses: list[str] = field(default_factory=list)
    outside: str | None = None
    synthetic_outside: int = 0
    validation: str | None = None
    seed: int = 0
    steps: int = 1500
    batch_size: int = 16
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    weight_decay: float = 0.02
    max_gradient_norm: float = 5.0
    ema_decay: float = 0.995
    weak_fraction: float = 0.0
    mixed_precision: str = "auto"
    num_threads: int | None = None
    validate_every: int = 250
    checkpoint_every: int = 250
    features: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folds = [str(fold) for fold in self.folds]
        if self.mixed_precision not in ("no", "bf16", "auto"):
            raise ValueError(f"mixed_precision must be no, bf16 or auto, got {self.mixed_precision!r}")
        for name in ("steps", "batch_size", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.weak_fraction <= 1.0:
            raise ValueError(f"weak_fraction must be in [0, 1], got {self.weak_fraction}")


def _known_keys(section: str | None) -> set[str]:
    kinds = {None: Settings, "recipe": Recipe, "model": EasySEDConfig}
    return {f.name for f in dataclasses.fields(kinds[section])} if section in kinds else set()


def _target(values: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """Where an override goes: `seed`, `model.dropout`, or `dropout` alone when it is a field of the model's."""
    section, _, name = key.rpartition(".")
    if section:
        return values.setdefault(section, {}), name
    for candidate in (None, "model", "recipe"):
        if key in _known_keys(candidate):
            return (values if candidate is None else values.setdefault(candidate, {})), key
    raise ValueError(f"unknown setting --{key}: name a field of Settings, model.FIELD, recipe.FIELD or features.FIELD")


def load_settings(argv: list[str] | None = None) -> tuple[Settings, bool]:
    """Reads `--config FILE [--resume] [--key value ...]`; values are YAML, so `--folds [1,2]` is a list.

    Returns:
        The settings, and whether to resume from the newest checkpoint in `output_dir`.

    Raises:
        ValueError: for an unknown key or a value that breaks a rule.
    """
    parser = argparse.ArgumentParser(description="Train an EasySED model: teacher and students in one run.")
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see training/configs")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in output_dir")
    arguments, rest = parser.parse_known_args(argv)
    values = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))
    if len(rest) % 2 or not all(key.startswith("--") for key in rest[::2]):
        raise ValueError(f"overrides must be pairs of --key value, got {rest}")
    for key, value in zip(rest[::2], rest[1::2], strict=True):
        section, name = _target(values, key.removeprefix("--"))
        section[name] = yaml.safe_load(value)
    unknown = sorted(set(values) - _known_keys(None))
    if unknown:
        raise ValueError(f"unknown settings {unknown} in {arguments.config}")
    return Settings(**values), arguments.resume
