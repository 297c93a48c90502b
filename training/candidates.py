"""Candidate events of a model on labelled recordings, with their evidence and their truth, for many settings at once.

The trunk runs once per recording and view: exits and methods of uncertainty share it. `calibrate.py` and `evaluate.py`
work on what is here."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from event_truth import Truth, judge_boxes
from tqdm import tqdm

from modeling_easysed import EasySEDFeatureExtractor, EasySEDForSoundEventDetection
from modeling_easysed.audio_easysed import read_audio
from modeling_easysed.calibration_easysed import setting_name
from modeling_easysed.decoding_easysed import decoding_for_exit
from modeling_easysed.evidence_easysed import Evidence, find_candidates
from modeling_easysed.recording_easysed import (
    RecordingSamples,
    frame_line,
    recording_features,
    sample_recording,
)
from modeling_easysed.sampling_easysed import METHODS, Sampling

FLOOR = 0.05  # candidates with a lower score are almost never right
SHIFTS, PASSES = 2, 20

Setting = tuple[int, str, int]  # exit (0 = auto), method, shifts


@dataclass
class Candidates:
    """All candidates of one setting on a set of recordings.

    Attributes:
        evidence, truth: one entry per candidate; truth is all wrong where no references were given.
        recording: (candidates,) index of the recording.
        files, durations: of the recordings, in order.
        num_events: (recordings,) events of the truth.
        frame_exits: per recording the exit of every output frame.
    """

    evidence: list[Evidence]
    truth: list[Truth]
    recording: np.ndarray
    files: list[str]
    durations: np.ndarray
    num_events: np.ndarray
    frame_exits: list[np.ndarray]

    @property
    def right(self) -> np.ndarray:
        return np.array([one.right for one in self.truth], dtype=bool)

    @property
    def label(self) -> np.ndarray:
        return np.array([one.box.class_index for one in self.evidence], dtype=np.int64)

    @property
    def score(self) -> np.ndarray:
        return np.array([one.box.score for one in self.evidence])


def all_settings(num_exits: int, monte_carlo_blocks: int = 0) -> list[Setting]:
    """Every exit, every method that the model knows, with and without shifts."""
    exits = range(1, num_exits + 1)
    methods = [method for method in METHODS if method != "moments" or monte_carlo_blocks == 0]
    return [(index, method, shifts) for index in exits for method in methods for shifts in (0, SHIFTS)]


@contextlib.contextmanager
def shared_trunk(model: Any) -> Iterator[dict]:
    """Inside, hidden states of a window are computed once and kept until the dict that is handed out is cleared.

    Args:
        model: of PyTorch, or a `Network`.
    """
    trunk = model if hasattr(model, "stages") else model.easysed
    stages, kept = trunk.stages, {}

    def remembered(values: Any, *mask: torch.Tensor | None) -> Iterable[Any]:
        content = values if isinstance(values, np.ndarray) else values.cpu().numpy()
        key = (content.shape, hash(content.tobytes()))
        if key not in kept:
            kept[key] = list(stages(values, *mask))
        return kept[key]

    trunk.stages = remembered
    try:
        yield kept
    finally:
        del trunk.stages


def read_sources(paths: dict[str, Path], sampling_rate: int) -> Iterator[tuple[str, np.ndarray, float]]:
    """(file, samples, duration in seconds) of every recording."""
    for name, path in paths.items():
        clip = read_audio(path, sampling_rate)
        yield name, clip.samples, clip.duration


def collect_candidates(
    model: EasySEDForSoundEventDetection,
    extractor: EasySEDFeatureExtractor,
    sources: Iterable[tuple[str, np.ndarray, float]],
    references: dict[str, list],
    settings: list[Setting],
    doubt_limits: list[float] | None = None,
    num_sources: int | None = None,
) -> dict[Setting, Candidates]:
    """Candidates of every setting.

    Args:
        model, extractor: of one checkpoint.
        sources: (file, samples at the model's rate, duration).
        references: {file: [[onset, offset, label], ...]}; a file that is not in it has no events.
        settings: what to compute; exit 0 stands for "auto" and needs `doubt_limits`.
        doubt_limits: of the exits above the deepest.
        num_sources: for the progress bar.
    """
    classes = [model.config.id2label[index] for index in range(model.config.num_labels)]
    found = {one: Candidates([], [], np.zeros(0, np.int64), [], np.zeros(0), np.zeros(0), []) for one in settings}
    rows: dict[Setting, list[int]] = {one: [] for one in settings}
    files, durations, num_events = [], [], []
    bar = tqdm(sources, desc="listening", unit="file", total=num_sources, disable=not sys.stderr.isatty())
    with shared_trunk(model) as kept:
        for number, (name, samples, duration) in enumerate(bar):
            kept.clear()
            features = recording_features(extractor, samples)
            for one in settings:
                recording = sample_setting(model, extractor, samples, features, one, doubt_limits)
                line = frame_line(recording)
                decoding = decoding_for_exit(model.config.decoding, one[0] if one[0] > 0 else model.num_exits)
                evidence = find_candidates(recording, line.probabilities, line, decoding, duration, FLOOR, extractor)
                found[one].evidence += evidence
                found[one].truth += judge_boxes([each.box for each in evidence], references.get(name, []), classes)
                found[one].frame_exits.append(recording.frame_exits)
                rows[one] += [number] * len(evidence)
            files.append(name)
            durations.append(duration)
            num_events.append(len(references.get(name, [])))
    for one in settings:
        found[one].recording = np.array(rows[one], dtype=np.int64)
        found[one].files, found[one].durations = files, np.array(durations)
        found[one].num_events = np.array(num_events)
    return found


def sample_setting(
    model: EasySEDForSoundEventDetection,
    extractor: EasySEDFeatureExtractor,
    samples: np.ndarray,
    features: np.ndarray,
    setting: Setting,
    doubt_limits: list[float] | None,
) -> RecordingSamples:
    """One recording under one setting."""
    exit_index, method, shifts = setting
    limits = [] if exit_index > 0 or doubt_limits is None else doubt_limits
    deepest = exit_index if exit_index > 0 else None
    sampling = Sampling(method, PASSES, 0)
    return sample_recording(model, extractor, samples, sampling, shifts, deepest, limits, features)


def name_of(setting: Setting) -> str:
    """E.g. "exit 4, mc+shifts"; "auto, mc+shifts"."""
    exit_index, method, shifts = setting
    return f"{'auto' if exit_index == 0 else f'exit {exit_index}'}, {setting_name(method, shifts)}"


__all__ = ["Candidates", "Setting", "all_settings", "collect_candidates", "name_of", "read_sources", "shared_trunk"]
