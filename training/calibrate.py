"""Calibrate a checkpoint on labelled recordings that it was not trained on, and write it into its config.json.

    python training/calibrate.py --model runs/cnn/model --data ../shared/data/soundscapes --split validation \\
        --clips ../shared/data/esc10 --outside ../shared/data/outside

Fits, for every exit: the temperature of the frames; for every method of uncertainty, with and without shifts, the map
from evidence to confidence and the intervals; what is unfamiliar, from soundscapes mixed of the training folds
(`--clips`) or, without these, from the right events of the data itself; when an exit is sure enough for `exit="auto"`;
and the lowest confidence that keeps an hour of sounds of no target class (`--outside`, its validation split) at one
accepted event."""

import argparse
import datetime
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from candidates import (
    FLOOR,
    PASSES,
    SHIFTS,
    Candidates,
    Setting,
    all_settings,
    collect_candidates,
    name_of,
    read_sources,
)
from checkpoint_config import local_checkpoint, set_config_value
from data import read_training_data
from event_embeddings import mixed_event_embeddings
from fit_calibration import (
    MIN_CLASS_EVENTS,
    HierarchicalMap,
    Outside,
    cross_fit,
    features_of,
    fit_borders,
    fit_doubt_limits,
    fit_familiarity,
    fit_map,
    set_limit,
    table_of,
    unfamiliarities,
    widen_until_covered,
)
from outside_recordings import outside_recordings, planned_recordings, sound_of
from soundscape_split import class_names, load_model, predict_split, read_split
from soundscapes import Recipe, SoundscapeMixer, frame_targets

from modeling_easysed.calibration_easysed import QUANTILE, Calibration, Familiarity, calibration_id, setting_name
from modeling_easysed.decisions_easysed import REVIEW_CONFIDENCE
from modeling_easysed.evidence_easysed import to_logit
from modeling_easysed.metrics import fit_temperature
from modeling_easysed.reasons_easysed import fit_limits
from modeling_easysed.sampling_easysed import window_doubt

NUM_TRAINING_SOUNDSCAPES = 400
FIRST_SOUNDSCAPE = 2**31  # training never comes to these
ALLOWED_RISE = 0.02  # of the mean cross-entropy of frames, by stopping at an earlier exit
MAX_OUTSIDE_THRESHOLD = 0.99
# Of a candidate on an unknown sound against one on a target recording, for the map. Chosen on `validation` by
# cross-validation over the clips that were mixed: more made target events underconfident, none overconfident.
OUTSIDE_WEIGHT = 0.1
OUTSIDE_SHARE = 1 / 2  # of the hour of unknown sounds that the map hears; their weight grows accordingly
MIN_RECORDINGS = 20


# ---- parts -----------------------------------------------------------------------------------------------------------


def fit_exits(model: Any, extractor: Any, paths: dict[str, Path], references: dict) -> tuple[list[float], list[float]]:
    """Temperature of every exit's frames, and doubt limits of all exits but the deepest."""
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    logits, targets, doubts, losses = [], [], [], []
    for name, (probabilities, _) in predict_split(model, extractor, paths).items():
        own = torch.logit(torch.from_numpy(probabilities), eps=1e-6)
        # (exits, frames, classes)
        target = torch.from_numpy(frame_targets(references[name], labels, own.shape[1], model.frame_duration_s) > 0.5)
        wide = target.float().expand_as(own)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(own, wide, reduction="none").mean((1, 2))
        losses.append(loss.numpy())
        doubts.append([window_doubt(one, model.frame_duration_s) for one in own[:-1].numpy()])
        logits.append(own.numpy())
        targets.append(target.numpy())
    stacked, truth = np.concatenate(logits, axis=1), np.concatenate(targets)
    temperatures = [fit_temperature(own.ravel(), truth.ravel().astype(float)) for own in stacked]
    return temperatures, fit_doubt_limits(np.array(doubts).T, np.array(losses).T, ALLOWED_RISE)


def training_embeddings(model: Any, extractor: Any, clips_dir: str) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (exits, events, size) and classes (events,) of events in soundscapes mixed from the training folds."""
    provenance, rate = model.config.provenance, extractor.sampling_rate
    if provenance is None:
        raise ValueError("--clips needs the checkpoint's provenance (its training folds), it has none: leave it out")
    excluded = provenance["excluded_licenses"]
    data = read_training_data(
        clips_dir,
        rate,
        folds=provenance["folds"],
        exclude_licenses=excluded,
        exclude_labels=provenance.get("excluded_labels", []),
    )
    mixer = SoundscapeMixer(data.clips, rate, Recipe(num_variants=1), provenance["seed"])
    numbers = range(FIRST_SOUNDSCAPE, FIRST_SOUNDSCAPE + NUM_TRAINING_SOUNDSCAPES)
    return mixed_event_embeddings(model, extractor, mixer, provenance["seed"], numbers)


def fit_all_familiarity(
    model: Any, extractor: Any, clips_dir: str | None, found: dict[Setting, Candidates]
) -> dict[int, Familiarity]:
    """One for every exit, scaled by the right candidates of the plain pass."""
    trained = None if clips_dir is None else training_embeddings(model, extractor, clips_dir)
    familiarity = {}
    for index in range(1, model.num_exits + 1):
        own = found[index, "none", 0]
        embeddings = np.stack([one.embedding for one in own.evidence])[own.right]
        labels = own.label[own.right]
        fitted_on = (embeddings, labels) if trained is None else (trained[0][index - 1], trained[1])
        familiarity[index] = set_limit(
            fit_familiarity(*fitted_on, model.config.num_labels), embeddings, labels, own.score[own.right]
        )
    return familiarity


def fit_setting(
    candidates: Candidates,
    unknown: Candidates | None,
    familiarity: dict[int, Familiarity],
    classes: list[str],
) -> dict[str, Any]:
    """Map, intervals and table of one setting, as config.json holds them; `unknown`: candidates on outside sounds."""
    far = unfamiliarities(candidates, familiarity)
    features, labels, right = features_of(candidates, far), candidates.label, candidates.right
    outside = None
    if unknown is not None and len(unknown.evidence) > 0:
        weights = np.full(len(unknown.evidence), OUTSIDE_WEIGHT / OUTSIDE_SHARE)
        outside = Outside(
            features_of(unknown, unfamiliarities(unknown, familiarity)), unknown.label, unknown.recording, weights
        )
    fitted = fit_map(features, labels, right, candidates.recording, len(classes), outside)
    confidence, middle, variance = cross_fit(features, candidates, len(classes), outside)
    spread = np.array([one.sample_spread**2 + one.shift_spread**2 for one in candidates.evidence])
    slope = np.array([fitted.of_class(int(label))[0][1] for label in labels])
    half = QUANTILE * np.sqrt(variance + slope**2 * spread)
    limits = np.array([familiarity[one.exit_index].limit for one in candidates.evidence])
    return {
        "floor": FLOOR,
        **_saved_map(*fitted.of_class(None)),
        "classes": {
            name: _saved_class(fitted, index, int(right[labels == index].sum())) for index, name in enumerate(classes)
        },
        "score_temperature": round(fit_temperature(to_logit(candidates.score), right.astype(float)), 4),
        "interval_factor": widen_until_covered(confidence, half, middle, right),
        "border": fit_borders(candidates, right & (confidence >= REVIEW_CONFIDENCE)),
        "reason_limits": fit_limits(
            [one for one, is_right in zip(candidates.evidence, right, strict=True) if is_right]
        ),
        "table": table_of(candidates, confidence, far > limits).save(),
    }


def _saved_map(coefficients: np.ndarray, covariance: np.ndarray) -> dict[str, list[float]]:
    upper = covariance[np.triu_indices(len(covariance))]
    return {
        "coefficients": [round(float(value), 4) for value in coefficients],
        "covariance": [round(float(value), 6) for value in upper],
    }


def _saved_class(fitted: HierarchicalMap, index: int, num_events: int) -> dict[str, Any]:
    is_calibrated = num_events >= MIN_CLASS_EVENTS
    saved = _saved_map(*fitted.of_class(index if is_calibrated else None))
    return {**saved, "num_events": num_events, **({} if is_calibrated else {"uncalibrated": True})}


def outside_sources(data_dir: str, share: float, sampling_rate: int) -> Iterator[tuple[str, np.ndarray, float]]:
    """(name, samples, duration) of the first `share` of every kind of an hour of unknown sounds, validation split."""
    counts: Counter[str] = Counter()
    planned = planned_recordings()
    for name, kind, samples in outside_recordings(Path(data_dir), "validation", 0):
        counts[kind] += 1
        if counts[kind] <= share * planned[kind]:
            yield name, samples, len(samples) / sampling_rate


def fit_outside_threshold(model: Any, extractor: Any, calibration: dict[str, Any], data_dir: str) -> float:
    """Lowest confidence at which an hour of unknown sounds has at most one accepted sound.

    Every recorded sound comes several times in the hour, at other levels and places: it counts once.
    """
    sources = outside_sources(data_dir, 1.0, extractor.sampling_rate)
    setting = (model.num_exits, "mc", SHIFTS)
    found = collect_candidates(model, extractor, sources, {}, [setting])[setting]
    judge = Calibration(calibration, calibration["labels"])
    judged = judge.judge(found.evidence, setting_name("mc", SHIFTS), 1e9)
    highest: dict[str, float] = {}
    for one, recording in zip(judged, found.recording, strict=True):
        if not one.is_unfamiliar:
            sound = sound_of(found.files[recording])
            highest[sound] = max(highest.get(sound, 0.0), one.confidence)
    surest = sorted(highest.values(), reverse=True)
    above = surest[1] if len(surest) > 1 else 0.0
    return round(min(float(np.ceil((above + 1e-6) * 100) / 100), MAX_OUTSIDE_THRESHOLD), 2)


# ---- the command -----------------------------------------------------------------------------------------------------


def calibrate(folder: str, data_dir: str, split: str, clips_dir: str | None, outside_dir: str | None) -> dict[str, Any]:
    """The calibration of a checkpoint folder.

    Raises:
        ValueError: when the split has too few recordings or events.
    """
    references, durations, paths = read_split(data_dir, split)
    if len(paths) < MIN_RECORDINGS:
        raise ValueError(f"a calibration needs at least {MIN_RECORDINGS} labelled recordings, {split} has {len(paths)}")
    model, extractor = load_model(folder)
    classes = class_names(model, references)
    temperatures, doubt_limits = fit_exits(model, extractor, paths, references)
    settings = all_settings(model.num_exits, model.config.monte_carlo_blocks)
    sources = read_sources(paths, extractor.sampling_rate)
    found = collect_candidates(model, extractor, sources, references, settings, num_sources=len(paths))
    for one in settings:
        if found[one].right.sum() < MIN_CLASS_EVENTS:
            raise ValueError(
                f"a calibration needs at least {MIN_CLASS_EVENTS} events that the model finds in {split}, "
                f"{name_of(one)} finds {found[one].right.sum()}"
            )
    unknown: dict[Setting, Candidates] = {}
    if outside_dir is not None:
        heard = outside_sources(outside_dir, OUTSIDE_SHARE, extractor.sampling_rate)
        unknown = collect_candidates(model, extractor, heard, {}, settings)
    familiarity = fit_all_familiarity(model, extractor, clips_dir, found)
    exits = {}
    for index in range(1, model.num_exits + 1):
        own = {setting_name(*one[1:]): one for one in settings if one[0] == index}
        exits[str(index)] = {
            "temperature": round(temperatures[index - 1], 4),
            "familiarity": familiarity[index].save(),
            "settings": {
                name: fit_setting(found[one], unknown.get(one), familiarity, classes) for name, one in own.items()
            },
        }
    calibration = {
        "labels": classes,
        "fitted_on": _fitted_on(data_dir, split, references, durations, classes, clips_dir, outside_dir),
        "doubt_limits": {str(index): round(limit, 5) for index, limit in enumerate(doubt_limits, start=1)},
        "allowed_rise": ALLOWED_RISE,
        "outside_threshold": 0.0,
        "outside_weight": 0.0 if outside_dir is None else OUTSIDE_WEIGHT,
        "exits": exits,
    }
    if outside_dir is not None:
        probe = {**calibration, "id": "fitting"}
        calibration["outside_threshold"] = fit_outside_threshold(model, extractor, probe, outside_dir)
    return {"id": calibration_id(calibration), "date": datetime.date.today().isoformat(), **calibration}


def _fitted_on(
    data_dir: str,
    split: str,
    references: dict,
    durations: dict[str, float],
    classes: list[str],
    clips_dir: str | None,
    outside_dir: str | None,
) -> dict[str, Any]:
    labels = [event[2] for events in references.values() for event in events]
    return {
        "data": Path(data_dir).resolve().name,
        "split": split,
        "num_recordings": len(references),
        "hours": round(sum(durations.values()) / 3600, 4),
        "num_events": {name: labels.count(name) for name in classes},
        "criterion": "intersection, DTC = GTC = 0.5",
        "passes": PASSES,
        "shifts": SHIFTS,
        "familiarity": "events of the data"
        if clips_dir is None
        else f"{Path(clips_dir).resolve().name}, training folds",
        "outside": None if outside_dir is None else f"{Path(outside_dir).resolve().name}/validation",
    }


def summary(calibration: dict[str, Any]) -> str:
    """A few lines for people."""
    on = calibration["fitted_on"]
    lines = [
        f"calibration {calibration['id']}: {on['split']} of {on['data']}, {on['num_recordings']} recordings, "
        f"{sum(on['num_events'].values())} events",
        f"outside sounds: nothing below confidence {calibration['outside_threshold']} is accepted by default",
        f"exit auto: doubt limits {calibration['doubt_limits']} for a loss of at most {100 * ALLOWED_RISE:g} %",
    ]
    for index, own in calibration["exits"].items():
        for name, fitted in own["settings"].items():
            rare = [label for label, one in fitted["classes"].items() if one.get("uncalibrated")]
            coefficients = ", ".join(f"{value:.2f}" for value in fitted["coefficients"])
            lines.append(
                f"exit {index} {name:15} T {own['temperature']:.2f}  map [{coefficients}]  widened "
                f"{fitted['interval_factor']:.1f} x{'  uncalibrated: ' + ', '.join(rare) if rare else ''}"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder (its config.json is rewritten)")
    parser.add_argument("--data", required=True, help="folder with SPLIT.tsv and audio/SPLIT/")
    parser.add_argument("--split", default="validation", help="which split (default: validation); never the test split")
    parser.add_argument("--clips", help="folder of the clips that the model was trained on, with metadata.csv")
    parser.add_argument("--outside", help="folder of sounds of no target class, with metadata.csv")
    arguments = parser.parse_args()
    try:
        folder = local_checkpoint(arguments.model)
        calibration = calibrate(str(folder), arguments.data, arguments.split, arguments.clips, arguments.outside)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    set_config_value(folder, "calibration", calibration)
    print(summary(calibration))
    print(f"wrote calibration {calibration['id']} to {folder / 'config.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
