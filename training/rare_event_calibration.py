"""Confidences of a new class, and what becomes of the old ones'.

    phase 1, calibrated base         the old classes' outputs did not change: their maps are kept, the new class joins
    phase 2, labelled recordings     everything is fitted anew on these and on held-out scenes of the new class
    else                             none: a calibration of another model would promise what nobody measured

Held-out scenes are laid over the calibration recordings, one beside the other: a recording then holds the candidates
of the old classes that it held and those of the new class on a scene, so that neither rate of false alarms is diluted.
"""

import datetime
from collections import Counter
from typing import Any

import numpy as np
from calibrate import MIN_CLASS_EVENTS, MIN_RECORDINGS, fit_exits, fit_setting
from candidates import PASSES, SHIFTS, Candidates, Setting, all_settings, collect_candidates, read_sources
from data import Clip
from event_embeddings import mixed_event_embeddings
from fit_calibration import CLASS_PRECISION, fit_familiarity, set_limit
from rare_event_data import SCENE_S
from rare_event_decision import Choice
from rare_event_evidence import (
    HeldOutScene,
    NewCandidates,
    collect_new_candidates,
    held_out_scenes,
    one_thread,
    parse_setting,
)
from rare_event_old_classes import LabelledSplit
from rare_event_scenes import SceneMixer
from rare_event_validation import Learning
from soundscapes import Recipe, SoundscapeMixer

from modeling_easysed import EasySEDFeatureExtractor, EasySEDForSoundEventDetection
from modeling_easysed.calibration_easysed import (
    FEATURES,
    Familiarity,
    calibration_id,
    feature_row,
    map_of_class,
    moderated,
)
from modeling_easysed.decisions_easysed import Table

UNFAMILIARITY = FEATURES.index("unfamiliarity")
NUM_SOUNDSCAPES = 300  # of which familiarity is fitted
NEVER_UNFAMILIAR = -3.0  # in deviations; the new class's own unfamiliarity is not judged
FARTHEST_SHARE, FRAME_STEP = 0.999, 4  # so many of the frames, of which every fourth is looked at, lie below that
Events = tuple[np.ndarray, np.ndarray]  # embeddings (events, size) and classes (events,)
Calibrated = tuple[dict[str, Any] | None, dict[str, Any]]  # what config.json holds, and what the report says


def calibrate_new_label(
    learning: Learning,
    mixer: SceneMixer,
    choice: Choice,
    split: LabelledSplit | None,
    extractor: EasySEDFeatureExtractor,
) -> Calibrated:
    """The calibration of the model that is kept, or None, and {"kind", "sentence", ...} for the report."""
    saved = learning.base.config.calibration
    for model in choice.phase.fold_models:
        model.config.decoding = choice.phase.model.config.decoding
    if choice.number == 1 and saved is not None:
        with one_thread():
            return extended(learning, mixer, choice, saved, extractor)
    if split is not None:
        if len(split.paths) >= MIN_RECORDINGS:
            with one_thread():
                return refitted(learning, mixer, choice, split, extractor)
        return None, none(
            f"{split.name}/{split.split} holds {len(split.paths)} recordings, {MIN_RECORDINGS} are needed"
        )
    if saved is None:
        return None, none("the base has no calibration")
    return None, none("all weights changed, so the base's calibration is not this model's")


def none(why: str) -> dict[str, Any]:
    """What the report says of a model without calibration."""
    return {
        "kind": "none",
        "sentence": f"The model has no calibration, events have scores but no confidences: {why}. Run "
        "training/calibrate.py with twenty labelled recordings or more, or give --old_data.",
    }


# ---- phase 1: the new class joins ------------------------------------------------------------------------------------


def extended(
    learning: Learning,
    mixer: SceneMixer,
    choice: Choice,
    saved: dict[str, Any],
    extractor: EasySEDFeatureExtractor,
) -> Calibrated:
    """The base's calibration with a map of its own for the new class, drawn towards the map of all classes."""
    label, first = learning.data.label, next(iter(saved["exits"]["1"]["settings"].values()))
    recordings = Table.load(first["table"])
    scenes = scenes_for(learning, mixer, recordings.duration_s, saved["fitted_on"]["num_events"])
    keys = {
        parse_setting(int(index), name): (index, name)
        for index, own in saved["exits"].items()
        for name in own["settings"]
    }
    found = collect_new_candidates(choice.phase, extractor, scenes, list(keys))
    exits: dict[str, Any] = {
        index: {
            **own,
            "familiarity": with_neutral_class(
                Familiarity.load(own["familiarity"]), some_embeddings(learning, int(index))
            ).save(),
            "settings": {},
        }
        for index, own in saved["exits"].items()
    }
    for one, (index, name) in keys.items():
        fitted = saved["exits"][index]["settings"][name]
        exits[index]["settings"][name] = with_new_class(fitted, found[one], scenes, label, len(saved["labels"]))
    default = found.get((learning.base.num_exits, "mc", SHIFTS))
    added = {
        "label": label,
        "num_scenes": len(scenes),
        "num_events": sum(len(scene.events) for scene in scenes),
        "num_recordings": len({scene.group for scene in scenes if scene.group >= 0}),
        "kind": "held-out mixtures and background, cross-validated",
        "unfamiliarity": "not judged",
    }
    fitted_on = {**saved["fitted_on"], "added": [*saved["fitted_on"].get("added", []), added]}
    fitted_on["num_events"] = {**saved["fitted_on"]["num_events"], label: added["num_events"]}
    calibration = {**saved, "labels": [*saved["labels"], label], "fitted_on": fitted_on, "exits": exits}
    return _finished(calibration), {
        "kind": "extended",
        "sentence": f"The old classes' confidences are the base's, whose outputs for them did not change. Those of "
        f"{label} come from {_counted(default)} on {len(scenes)} held-out scenes of {SCENE_S:.0f} s, "
        f"{added['num_events']} of them with the sound, from {added['num_recordings']} recordings: they hold where it "
        "sounds about as often. Whether an event is unlike all recordings is not judged for it.",
        **added,
    }


def scenes_for(
    learning: Learning, mixer: SceneMixer, duration_s: float, num_events: dict[str, int]
) -> list[HeldOutScene]:
    """Held-out scenes as long as the calibration recordings, in which the new class is as frequent as an old one."""
    num_scenes = max(2 * len(learning.data.groups), round(duration_s / SCENE_S))
    usual = round(float(np.mean(list(num_events.values()))))
    num_mixtures = int(np.clip(usual, len(learning.data.groups), num_scenes // 2))
    return held_out_scenes(learning.data, mixer, learning.scenes.tested, num_mixtures, num_scenes - num_mixtures)


def some_embeddings(learning: Learning, exit_index: int) -> np.ndarray:
    """(frames, size) of scenes that were learned from."""
    embeddings = learning.frozen["learn"].embeddings[exit_index - 1, :, ::FRAME_STEP]
    return embeddings.flatten(0, 1).numpy().astype(np.float64)


def with_neutral_class(familiarity: Familiarity, heard: np.ndarray) -> Familiarity:
    """One more class whose unfamiliarity is far below every limit: a handful of clips cannot tell what is usual.

    Args:
        familiarity: of the old classes at an exit.
        heard: (frames, size) embeddings of many sounds.
    """
    linear = familiarity.linear.mean(0)
    distance = np.einsum("ni,ij,nj->n", heard, familiarity.quadratic, heard) + heard @ linear
    farthest = float(np.quantile(distance, FARTHEST_SHARE))
    constant = familiarity.median + NEVER_UNFAMILIAR * familiarity.spread - farthest
    return familiarity._replace(
        linear=np.concatenate([familiarity.linear, linear[None]]), constant=np.append(familiarity.constant, constant)
    )


def with_new_class(
    fitted: dict[str, Any], found: NewCandidates, scenes: list[HeldOutScene], label: str, class_index: int
) -> dict[str, Any]:
    """One setting's map and table with the new class."""
    table = Table.load(fitted["table"])
    features = np.array([feature_row(one, 0.0) for one in found.evidence]).reshape(-1, len(FEATURES))
    right = found.right
    pooled = map_of_class(fitted)
    own = OwnMap(features, right, *pooled)
    folds = np.array([scenes[index].fold for index in found.scene], dtype=np.int64)
    confidence = np.zeros(len(features))
    for fold in np.unique(folds):
        others = OwnMap(features[folds != fold], right[folds != fold], *pooled)
        confidence[folds == fold] = others.confidence(features[folds == fold])
    place = np.arange(len(scenes)) * table.num_recordings // len(scenes)
    # (scenes,) the calibration recording that each is laid over
    events = np.bincount(place, [len(scene.events) for scene in scenes], minlength=table.num_recordings)
    merged = Table(
        np.concatenate([table.confidence, confidence]),
        np.concatenate([table.label, np.full(len(features), class_index)]),
        np.concatenate([table.right, right]),
        np.concatenate([table.recording, place[found.scene]]),
        np.concatenate([table.unfamiliar, np.zeros(len(features), dtype=bool)]),
        table.num_recordings,
        table.duration_s,
        table.num_events + events.astype(np.int64),
    )
    num_right = int(right.sum())
    entry = {**own.save(), "num_events": num_right}
    if num_right < MIN_CLASS_EVENTS:
        entry["uncalibrated"] = True
    return {**fitted, "classes": {**fitted["classes"], label: entry}, "table": merged.save()}


class OwnMap:
    """Logistic map of one class whose intercept and slope of the score are drawn towards those of all classes.

    The unfamiliarity, which is not judged for the class, counts for nothing.

    Args:
        features: (candidates, features); right: (candidates,).
        coefficients, covariance: of all classes, (features,) and (features, features).
    """

    def __init__(
        self, features: np.ndarray, right: np.ndarray, coefficients: np.ndarray, covariance: np.ndarray
    ) -> None:
        self.coefficients, self.covariance = coefficients.copy(), covariance.copy()
        self.coefficients[UNFAMILIARITY] = 0.0
        self.covariance[UNFAMILIARITY, :] = self.covariance[:, UNFAMILIARITY] = 0.0
        own = list(CLASS_PRECISION)
        precision = np.diag(list(CLASS_PRECISION.values()))
        design, moved = features[:, own], np.zeros(len(own))
        for _ in range(50):
            probability = 1 / (1 + np.exp(-(features @ self.coefficients + design @ moved)))
            hessian = (design * (probability * (1 - probability))[:, None]).T @ design + precision
            step = np.linalg.solve(hessian, design.T @ (probability - right) + precision @ moved)
            moved -= step
            if np.abs(step).max() < 1e-9:
                break
        self.coefficients[own] += moved
        self.covariance[np.ix_(own, own)] += np.linalg.inv(hessian)

    def confidence(self, features: np.ndarray) -> np.ndarray:
        """(candidates,)."""
        middle = features @ self.coefficients
        variance = np.einsum("ni,ij,nj->n", features, self.covariance, features)
        return np.array([moderated(m, v) for m, v in zip(middle, variance, strict=True)])

    def save(self) -> dict[str, list[float]]:
        """As config.json holds a map."""
        upper = self.covariance[np.triu_indices(len(self.covariance))]
        return {
            "coefficients": [round(float(value), 4) for value in self.coefficients],
            "covariance": [round(float(value), 6) for value in upper],
        }


# ---- phase 2: everything anew ----------------------------------------------------------------------------------------


def refitted(
    learning: Learning,
    mixer: SceneMixer,
    choice: Choice,
    split: LabelledSplit,
    extractor: EasySEDFeatureExtractor,
) -> Calibrated:
    """A calibration of labelled recordings of the old classes, with held-out scenes of the new one laid over them."""
    model, label = choice.phase.model, learning.data.label
    classes = [model.config.id2label[index] for index in range(model.config.num_labels)]
    references = split.references_of(classes)
    counts = Counter(event[2] for events in references.values() for event in events)
    scenes = scenes_for(learning, mixer, sum(split.durations.values()), {name: counts[name] for name in split.labels})
    wanted = all_settings(model.num_exits, model.config.monte_carlo_blocks)
    temperatures, doubt_limits = fit_exits(model, extractor, split.paths, references)
    sources = read_sources(split.paths, extractor.sampling_rate)
    old = collect_candidates(model, extractor, sources, references, wanted, num_sources=len(split.paths))
    new = collect_new_candidates(choice.phase, extractor, scenes, wanted)
    found = {one: laid_over(old[one], new[one], scenes) for one in wanted}
    short = min(int(one.right.sum()) for one in found.values())
    if short < MIN_CLASS_EVENTS:
        return None, none(f"only {short} events were found in {split.name}/{split.split}")
    trained = None if not learning.data.rehearsal else training_events(learning, choice, extractor)
    exits = refitted_exits(model, found, temperatures, trained)
    saved = learning.base.config.calibration
    num_mixtures = sum(len(scene.events) for scene in scenes)
    calibration = {
        "labels": classes,
        "fitted_on": {
            "data": split.name,
            "split": split.split,
            "num_recordings": len(split.paths),
            "hours": round(sum(split.durations.values()) / 3600, 4),
            "num_events": {**{name: counts[name] for name in classes}, label: counts[label] + num_mixtures},
            "criterion": "intersection, DTC = GTC = 0.5",
            "passes": PASSES,
            "shifts": SHIFTS,
            "familiarity": "half of the recordings" if trained is None else "clips that were trained on",
            "outside": None,
            "added": [{"label": label, "num_scenes": len(scenes), "num_events": num_mixtures}],
        },
        "doubt_limits": {str(index): round(limit, 5) for index, limit in enumerate(doubt_limits, start=1)},
        "outside_threshold": 0.0 if saved is None else saved.get("outside_threshold", 0.0),
        "outside_weight": 0.0,
        "exits": exits,
    }
    return _finished(calibration), {
        "kind": "refitted",
        "sentence": f"All weights changed, so everything was calibrated anew: the old classes on {len(split.paths)} "
        f"labelled recordings ({split.name}/{split.split}), {label} on {len(scenes)} held-out scenes of "
        f"{SCENE_S:.0f} s, {num_mixtures} of them with the sound. Sounds of no class were not used; the lowest "
        "confidence that is ever accepted is the base's.",
    }


def refitted_exits(
    model: EasySEDForSoundEventDetection,
    found: dict[Setting, Candidates],
    temperatures: list[float],
    trained: list[Events] | None,
) -> dict[str, Any]:
    """What config.json holds of every exit: temperature, familiarity, and the maps of its settings."""
    classes = [model.config.id2label[index] for index in range(model.config.num_labels)]
    familiarity = {
        index: fit_one_familiarity(found[index, "none", 0], None if trained is None else trained[index - 1], model)
        for index in range(1, model.num_exits + 1)
    }
    exits = {}
    for index in range(1, model.num_exits + 1):
        own = {
            setting_key(one): fit_setting(found[one], None, familiarity, classes) for one in found if one[0] == index
        }
        exits[str(index)] = {
            "temperature": round(temperatures[index - 1], 4),
            "familiarity": familiarity[index].save(),
            "settings": own,
        }
    return exits


def training_events(learning: Learning, choice: Choice, extractor: EasySEDFeatureExtractor) -> list[Events]:
    """Per exit, events of soundscapes mixed of the old clips and of the new sound: what the model was trained on."""
    data, model, rate = learning.data, choice.phase.model, extractor.sampling_rate
    clips = list(data.rehearsal)
    for one in data.positives:
        for onset, offset in one.events:
            clips.append(Clip(one.samples[round(onset * rate) : round(offset * rate)], data.label, one.source))
    mixer = SoundscapeMixer(clips, rate, Recipe(num_variants=1), learning.seed)
    embeddings, classes = mixed_event_embeddings(model, extractor, mixer, learning.seed, range(NUM_SOUNDSCAPES))
    return [(own, classes) for own in embeddings]


def fit_one_familiarity(
    candidates: Candidates, trained: Events | None, model: EasySEDForSoundEventDetection
) -> Familiarity:
    """Distances of what the model was trained on, or of every second recording; limits from right held-out events."""
    embeddings = np.stack([one.embedding for one in candidates.evidence])
    held = candidates.right
    if trained is None:
        is_fitted_on = candidates.right & (candidates.recording % 2 == 0)
        trained = (embeddings[is_fitted_on], candidates.label[is_fitted_on])
        held = candidates.right & ~is_fitted_on
    familiarity = fit_familiarity(*trained, model.config.num_labels)
    return set_limit(familiarity, embeddings[held], candidates.label[held], candidates.score[held])


def setting_key(setting: Setting) -> str:
    """The key of a setting in config.json."""
    return setting[1] + ("+shifts" if setting[2] > 0 else "")


def laid_over(old: Candidates, new: NewCandidates, scenes: list[HeldOutScene]) -> Candidates:
    """Candidates of labelled recordings with those of the scenes that are laid over them."""
    num = len(old.files)
    place = np.arange(len(scenes)) * num // len(scenes)
    events = np.bincount(place, [len(scene.events) for scene in scenes], minlength=num).astype(np.int64)
    return Candidates(
        old.evidence + new.evidence,
        old.truth + new.truth,
        np.concatenate([old.recording, place[new.scene]]),
        old.files,
        old.durations,
        old.num_events + events,
        old.frame_exits,
    )


def _finished(calibration: dict[str, Any]) -> dict[str, Any]:
    """With its id and date."""
    bare = {key: value for key, value in calibration.items() if key not in ("id", "date")}
    return {"id": calibration_id(bare), "date": datetime.date.today().isoformat(), **bare}


def _counted(found: NewCandidates | None) -> str:
    if found is None:
        return "candidates"
    return f"{len(found.evidence)} candidates, {int(found.right.sum())} of them right,"


__all__ = ["calibrate_new_label", "extended", "laid_over", "refitted"]
