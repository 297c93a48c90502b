"""Candidates of a new class on held-out scenes, with the evidence that calibration needs, for many settings at once.

As `candidates.py` does it for labelled recordings, but every scene is heard by the model that did not hear its fold,
and only the new class counts: what else sounds in the background is not known."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from candidates import FLOOR, SHIFTS, Setting, sample_setting, shared_trunk
from event_truth import Truth, judge_boxes
from rare_event_data import SCENE_S, RareEventData
from rare_event_scenes import SceneMixer
from rare_event_validation import Phase
from tqdm import tqdm

from modeling_easysed import EasySEDFeatureExtractor, EasySEDForSoundEventDetection
from modeling_easysed.decoding_easysed import decoding_for_exit
from modeling_easysed.evidence_easysed import Evidence, find_candidates
from modeling_easysed.recording_easysed import frame_line, recording_features

NEVER_A_CANDIDATE = 1.0  # floor of the old classes
QUIET = 0.02  # where a plain pass stays below it, no method of uncertainty comes near the floor of candidates


@dataclass
class HeldOutScene:
    """Samples (samples,), events [onset, offset, label], fold, and the recording of the new sound, -1 for none."""

    samples: np.ndarray
    events: list[list]
    fold: int
    group: int


@dataclass
class NewCandidates:
    """Candidates of the new class in one setting.

    Attributes:
        evidence, truth: one entry per candidate.
        scene: (candidates,) index of the scene.
    """

    evidence: list[Evidence]
    truth: list[Truth]
    scene: np.ndarray

    @property
    def right(self) -> np.ndarray:
        return np.array([one.right for one in self.truth], dtype=bool)


def held_out_scenes(
    data: RareEventData, mixer: SceneMixer, tested: list[int], num_mixtures: int, num_background: int
) -> list[HeldOutScene]:
    """Mixtures of all recordings in turn, and background spread over all of it; at most as many as there are.

    Args:
        data: what they are mixed of; mixer: how; tested: the clip of every test scene.
        num_mixtures, num_background: how many are wanted.
    """
    scenes = []
    for number, clip in list(enumerate(tested))[:num_mixtures]:
        mixture, positive = mixer.test(number, clip), data.positives[clip]
        events = [[onset, offset, data.label] for onset, offset in mixture.events]
        scenes.append(
            HeldOutScene(mixture.samples, events, int(data.positive_folds[clip]), data.groups.index(positive.group))
        )
    num_background = min(num_background, len(data.background))
    for place in range(num_background):
        index = place * len(data.background) // num_background
        samples = data.background[index].astype(np.float32)
        scenes.append(HeldOutScene(samples, [], int(data.background_folds[index]), -1))
    return scenes


def collect_new_candidates(
    phase: Phase, extractor: EasySEDFeatureExtractor, scenes: list[HeldOutScene], settings: list[Setting]
) -> dict[Setting, NewCandidates]:
    """Candidates of the last class on every scene, by the model that did not hear its fold.

    Args:
        phase: with the decoding of all classes in its fold models' configs.
        extractor: of the base.
        scenes: see `held_out_scenes`.
        settings: exits from 1 on.
    """
    config = phase.model.config
    classes = [config.id2label[index] for index in range(config.num_labels)]
    floor = np.full(len(classes), NEVER_A_CANDIDATE)
    floor[-1] = FLOOR
    found = {one: NewCandidates([], [], np.zeros(0, np.int64)) for one in settings}
    rows: dict[Setting, list[int]] = {one: [] for one in settings}
    for number, scene in enumerate(tqdm(scenes, "held-out scenes", leave=False, disable=not sys.stderr.isatty())):
        model = phase.fold_models[scene.fold]
        features = recording_features(extractor, scene.samples)
        first = first_active_exit(model, features)
        with shared_trunk(model):
            for one in settings:
                if one[0] < first:
                    continue
                recording = sample_setting(model, extractor, scene.samples, features, one, None)
                line = frame_line(recording)
                decoding = decoding_for_exit(config.decoding, one[0])
                evidence = find_candidates(recording, line.probabilities, line, decoding, SCENE_S, floor, extractor)
                found[one].evidence += evidence
                found[one].truth += judge_boxes([each.box for each in evidence], scene.events, classes)
                rows[one] += [number] * len(evidence)
    for one in settings:
        found[one].scene = np.array(rows[one], dtype=np.int64)
    return found


def first_active_exit(model: EasySEDForSoundEventDetection, features: np.ndarray) -> int:
    """The shallowest exit that hears the last class in features (frames, mels); one after the deepest for none.

    Deeper exits may gather the shallower ones as an ensemble, so these count as well.
    """
    with torch.inference_mode():
        logits = model(torch.from_numpy(features)[None].to(model.device)).exit_frame_logits[..., -1].float()
    active = torch.nonzero(torch.sigmoid(logits).amax((1, 2)) >= QUIET)[:, 0]
    return int(active[0]) + 1 if len(active) > 0 else model.num_exits + 1


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch inside: on one recording at a time, more of them wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def parse_setting(exit_index: int, name: str) -> Setting:
    """The setting behind a key of config.json, e.g. "mc+shifts"."""
    method, _, shifts = name.partition("+")
    return exit_index, method, SHIFTS if shifts else 0


__all__ = ["HeldOutScene", "NewCandidates", "collect_new_candidates", "held_out_scenes", "one_thread", "parse_setting"]
