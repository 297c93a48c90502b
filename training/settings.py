"""Settings of a training run: one YAML file, overridden by `--key value` on the command line."""

import argparse
import dataclasses
import inspect
import math
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import yaml
from soundscapes import Recipe

from modeling_easysed import EasySEDConfig, EasySEDFeatureExtractor

SECTIONS = {"features": EasySEDFeatureExtractor, "model": EasySEDConfig, "recipe": Recipe}
KIND_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
MINIMA = {
    "seed": 0,
    "synthetic_outside": 0,
    "steps": 1,
    "batch_size": 1,
    "gradient_accumulation": 1,
    "warmup_steps": 0,
    "weight_decay": 0,
    "teacher_weight": 0,
    "num_threads": 1,
    "num_workers": 0,
    "validate_every": 1,
    "checkpoint_every": 1,
    "log_every": 1,
    "early_stop_patience": 1,
}
POSITIVE = ("learning_rate", "max_gradient_norm")
SHARES = ("weak_fraction", "scene_fraction")


@dataclass
class Settings:
    """What `train.py` reads.

    Attributes:
        output_dir: checkpoints, logs and the final model.
        clips: what to learn from: a folder or a data set of the Hub, as `data.read_training_data` reads it.
        split, folds: which part of it may be seen; None = all of it.
        exclude_licenses: clips under these licences are left out (what is released may not be derived from them).
        exclude_labels: classes that are left out, and recordings in which they sound.
        streaming: whether a data set of the Hub is streamed; None = as the reader thinks best.
        outside: folder of sounds of no target class (its `train` split is used), or None.
        synthetic_outside: so many synthetic sounds of no target class beside them (see distractors.py).
        scene_fraction: share of the samples that are crops of strongly labelled recordings instead of mixed
            soundscapes; None = 0 without such recordings, 1 without isolated clips, 0.5 with both.
        validation: folder of strongly labelled soundscapes for the score during training, or None.
        seed: of everything random.
        sample_seed: of the samples alone, so that several runs learn from the same; None = seed.
        steps: optimiser steps.
        batch_size: soundscapes per optimiser step, over all processes and micro-batches together.
        gradient_accumulation: micro-batches per step and process. Batch norm sees one micro-batch at a time.
        learning_rate: peak; warmup_steps to it, then cosine to zero.
        weight_decay: AdamW's; max_gradient_norm: clipping.
        ema_decay: of the averaged weights, which are what is evaluated and saved.
        weak_fraction: share of the soundscapes whose frame labels are hidden, clip labels kept.
        mixed_precision: "no", "bf16" or "auto" (bf16 where the processor has it in hardware).
        num_threads: torch threads per process on the CPU, or None for torch's choice.
        num_workers: processes that prepare batches ahead, per training process; 0 = none, each batch when it is due;
            None = one where a CPU learns, as many as there are processors for it (8 at most) where a GPU does.
        validate_every, checkpoint_every: steps.
        log_every: steps between two entries in TensorBoard, and between two lines where stderr is no terminal.
        early_stop_patience: validations in a row without a better F1 of the deepest exit after which training stops;
            the best weights are then saved instead of the last. None = never.
        soft_targets: folder that `teach.py` wrote: what trained teachers say about every sample, which every exit
            learns from as well; None = from labels alone.
        teacher_weight: of these soft targets, against labels; what labels count for stays as it is.
        features: arguments of EasySEDFeatureExtractor.
        model: arguments of EasySEDConfig.
        recipe: arguments of Recipe.

    Raises:
        ValueError: for a value that breaks a rule; the message names the setting, the rule and the value.
    """

    output_dir: str = "runs/default"
    clips: str = "../shared/data/esc10"
    split: str | None = None
    folds: list[str] | None = None
    exclude_licenses: list[str] = field(default_factory=list)
    exclude_labels: list[str] = field(default_factory=list)
    streaming: bool | None = None
    outside: str | None = None
    synthetic_outside: int = 0
    scene_fraction: float | None = None
    validation: str | None = None
    seed: int = 0
    sample_seed: int | None = None
    steps: int = 1500
    batch_size: int = 16
    gradient_accumulation: int = 1
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    weight_decay: float = 0.02
    max_gradient_norm: float = 5.0
    ema_decay: float = 0.995
    weak_fraction: float = 0.0
    mixed_precision: str = "auto"
    num_threads: int | None = None
    num_workers: int | None = None
    validate_every: int = 250
    checkpoint_every: int = 250
    log_every: int = 10
    early_stop_patience: int | None = None
    soft_targets: str | None = None
    teacher_weight: float = 1.0
    features: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(Settings).items():
            setattr(self, name, typed(name, getattr(self, name), kind))
        self.folds = None if self.folds is None else [str(fold) for fold in self.folds]
        self._check_ranges()
        self._check_sections()
        if self.mixed_precision not in ("no", "bf16", "auto"):
            raise ValueError(f"mixed_precision must be no, bf16 or auto, got {self.mixed_precision!r}")
        if self.early_stop_patience is not None and self.validation is None:
            raise ValueError("early_stop_patience needs a validation folder to measure F1 on, got validation: null")

    @property
    def seed_of_samples(self) -> int:
        return self.seed if self.sample_seed is None else self.sample_seed

    def _check_ranges(self) -> None:
        for name, minimum in MINIMA.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise ValueError(f"{name} must be at least {minimum}, got {value}")
        for name in POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0, got {getattr(self, name)}")
        for name in SHARES:
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], got {value}")
        if not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(f"ema_decay must be in [0, 1), got {self.ema_decay}")

    def _check_sections(self) -> None:
        built = {}
        for section, kind in SECTIONS.items():
            values = getattr(self, section)
            unknown = sorted(set(values) - known_keys(section))
            if unknown:
                raise ValueError(f"{section} has no setting {', '.join(unknown)}: see {kind.__name__}")
            try:
                built[section] = kind(**values)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{section}: {error}") from error
        features, model = built["features"], built["model"]
        for name, own, other in (
            ("feature_size", "num_mel_bins", model.num_mel_bins),
            ("sampling_rate", "sampling_rate", model.sampling_rate),
            ("hop_length_samples", "hop_length_samples", model.hop_length_samples),
        ):
            if getattr(features, name) != other:
                raise ValueError(f"features.{name} must be model.{own}={other}, got {getattr(features, name)}")


def typed(name: str, value: Any, kind: Any) -> Any:
    """The value as its setting's type; YAML reads 3e-3 as text, so text counts as a number where one is wanted.

    Raises:
        ValueError: when it has another type.
    """
    options = get_args(kind) if get_origin(kind) not in (list, dict) and get_args(kind) else (kind,)
    if value is None and NoneType in options:
        return None
    wanted = next(option for option in options if option is not NoneType)
    base = get_origin(wanted) or wanted
    if base is float and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if math.isfinite(number):
            return number
    elif isinstance(value, base) and not (isinstance(value, bool) and base is not bool):
        return value
    raise ValueError(f"{name} must be {KIND_NAMES.get(base, 'a mapping')}, got {value!r}")


def known_keys(section: str | None) -> set[str]:
    """What may stand in a section, or at the top."""
    kind = Settings if section is None else SECTIONS[section]
    if dataclasses.is_dataclass(kind):
        return {f.name for f in dataclasses.fields(kind)}
    return set(inspect.signature(kind).parameters) - {"kwargs"}


def _target(values: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """Where an override goes: `seed`, `model.dropout`, or `dropout` alone when it is a field of the model's."""
    section, _, name = key.rpartition(".")
    if section in SECTIONS:
        return values.setdefault(section, {}), name
    for candidate in (None, "model", "recipe"):
        if key in known_keys(candidate):
            return (values if candidate is None else values.setdefault(candidate, {})), key
    raise ValueError(f"unknown setting --{key}: name a field of Settings, model.FIELD, recipe.FIELD or features.FIELD")


# ---- the command line ------------------------------------------------------------------------------------------------


class Options(NamedTuple):
    """What the command line says beside the settings: go on from the newest checkpoint; where to push, or None."""

    resume: bool
    push_to_hub: str | None


def load_settings(argv: list[str] | None = None) -> tuple[Settings, Options]:
    """Reads `--config FILE [--resume] [--push_to_hub REPO] [--key value ...]`; values are YAML: `--folds [1,2]`.

    Raises:
        ValueError: for a file that is no mapping, an unknown key, or a value that breaks a rule.
        FileNotFoundError: when there is no such file.
    """
    parser = argparse.ArgumentParser(
        description="Train an EasySED model: teacher and students in one run.",
        epilog="--key value overrides any setting of the file, --model.key, --recipe.key and --features.key likewise.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see training/configs")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in output_dir")
    parser.add_argument("--push_to_hub", metavar="REPO", help="push the model and its students there at the end")
    arguments, rest = parser.parse_known_args(argv)
    values = _read_yaml(arguments.config.read_text(encoding="utf-8"), str(arguments.config))
    if not isinstance(values, dict):
        raise ValueError(f"{arguments.config} must hold settings as key: value, got {type(values).__name__}")
    if len(rest) % 2 or not all(key.startswith("--") for key in rest[::2]):
        raise ValueError(f"overrides must be pairs of --key value, got {rest}")
    for key, value in zip(rest[::2], rest[1::2], strict=True):
        section, name = _target(values, key.removeprefix("--"))
        section[name] = _read_yaml(value, key)
    unknown = sorted(set(values) - known_keys(None))
    if unknown:
        raise ValueError(f"unknown settings {unknown} in {arguments.config}")
    return Settings(**values), Options(arguments.resume, arguments.push_to_hub)


def _read_yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where} must be YAML: {' '.join(str(error).split())}") from error
