"""How far a calibrated model can be believed on a split: calibration, ranking, intervals, decisions, by setting.

`evaluate.py --report DIR` writes what is computed here as JSON, a markdown table and figures. Everything is counted on
the events that the pipeline reports; intervals are 90 % bootstrap intervals over recordings."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from candidates import SHIFTS, Candidates, Setting, collect_candidates, name_of, read_sources
from fit_calibration import groups_covered
from trust_figures import draw_accuracy_compute, draw_interval_coverage, draw_reliability, draw_risk_coverage

from modeling_easysed import SoundEventDetectionPipeline
from modeling_easysed.calibration_easysed import Calibration, Judgement, setting_name
from modeling_easysed.decisions_easysed import (
    DEFAULT_GOAL,
    RISK,
    Table,
    false_alarm_threshold,
    make_rule,
    precision_threshold,
    recall_threshold,
)
from modeling_easysed.decoding_easysed import class_parameters, decoding_for_exit
from modeling_easysed.evidence_easysed import to_logit
from modeling_easysed.metrics import (
    aurc,
    brier_score,
    event_based_metrics,
    expected_calibration_error,
    negative_log_likelihood,
    segment_based_metrics,
)

NUM_BOOTSTRAPS = 500
NUM_SPLITS = 200
NUM_TIMED = 12
PRECISION, FALSE_ALARMS_PER_HOUR, RECALL = 0.9, 60.0, 0.7  # goals whose guarantees are checked
LEVELS = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
DEFAULT = (0, "mc", SHIFTS)  # what the pipeline does when nothing is asked


class Reported:
    """The events that the pipeline reports under one setting.

    Attributes:
        candidates, judgements: all of the setting; kept: (candidates,) which are reported.
        decision: (candidates,) words; confidence, score, right: (candidates,).
    """

    def __init__(self, candidates: Candidates, calibration: Calibration, setting: Setting, decoding: Any) -> None:
        name = setting_name(*setting[1:])
        exit_index = setting[0] if setting[0] > 0 else max(calibration.familiarity)
        fitted = calibration.check(exit_index, name)
        labels = calibration.labels
        self.candidates = candidates
        self.table = Table.load(fitted["table"])
        self.rule = make_rule(DEFAULT_GOAL, self.table, labels, calibration.saved["outside_threshold"])
        self.judgements: list[Judgement] = calibration.judge(candidates.evidence, name, np.inf)
        self.confidence = np.array([one.confidence for one in self.judgements])
        self.unfamiliar = np.array([one.is_unfamiliar for one in self.judgements])
        self.score, self.right = candidates.score, candidates.right
        scaled = to_logit(self.score) / fitted["score_temperature"]
        self.scaled_score = 1 / (1 + np.exp(-scaled))
        rows = zip(self.confidence, candidates.label, self.unfamiliar, strict=True)
        self.decision = np.array([self.rule.decide(*row) for row in rows])
        thresholds = class_parameters(decoding, len(labels))["threshold"]
        self.above = self.score > thresholds[candidates.label]
        self.kept = self.above | (self.decision != "reject")

    def part(self, recordings: np.ndarray) -> Table:
        """The table of some recordings (indices, increasing), with this calibration's confidences."""
        candidates = self.candidates
        inside = np.isin(candidates.recording, recordings)
        columns = (self.confidence, candidates.label, self.right, np.searchsorted(recordings, candidates.recording))
        rows = [column[inside] for column in (*columns, self.unfamiliar)]
        seconds = float(candidates.durations[recordings].sum())
        return Table(*rows, len(recordings), seconds, candidates.num_events[recordings])

    def intervals(self, border: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Low end, high end and truth of a border of the right reported events."""
        chosen = np.flatnonzero(self.kept & self.right)
        ends = [[getattr(self.judgements[i], f"{border}_{side}") for i in chosen] for side in ("low", "high")]
        return (
            np.array(ends[0]),
            np.array(ends[1]),
            np.array([getattr(self.candidates.truth[i], border) for i in chosen]),
        )


def proper_scores(probabilities: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """ECE (15 bins, positive class), Brier, NLL and AURC."""
    return {
        "ece": expected_calibration_error(probabilities, right, variant="positive_class"),
        "brier": brier_score(probabilities, right),
        "nll": negative_log_likelihood(probabilities, right),
        "aurc": aurc(-probabilities, ~right),
    }


def calibration_floor(probabilities: np.ndarray, seed: int = 0) -> float:
    """ECE that perfectly calibrated events with these confidences would show on average, by chance alone."""
    rng = np.random.default_rng(seed)
    draws = (rng.random(len(probabilities)) < probabilities for _ in range(100))
    return float(np.mean([expected_calibration_error(probabilities, draw, variant="positive_class") for draw in draws]))


def bootstrap(recording: np.ndarray, num_recordings: int, figure: Callable[[np.ndarray], float]) -> list[float]:
    """90 % interval of `figure(rows)` when recordings are drawn anew; rows: indices of events."""
    rng = np.random.default_rng(0)
    by_recording = [np.flatnonzero(recording == number) for number in range(num_recordings)]
    values = []
    for _ in range(NUM_BOOTSTRAPS):
        drawn = [by_recording[number] for number in rng.integers(num_recordings, size=num_recordings)]
        rows = np.concatenate(drawn) if drawn else np.zeros(0, np.int64)
        if len(rows) > 0:
            values.append(figure(rows))
    return [float(value) for value in np.quantile(values, [0.05, 0.95])]


def setting_figures(
    reported: Reported, references: dict[str, list], durations: dict[str, float], classes: list[str]
) -> dict[str, Any]:
    """All figures of one setting."""
    kept, right = reported.kept, reported.right
    recording, num_recordings = reported.candidates.recording[kept], len(reported.candidates.files)
    columns = {"raw": reported.score, "temperature": reported.scaled_score, "confidence": reported.confidence}
    figures: dict[str, Any] = {"num_reported": int(kept.sum()), "share_right": float(right[kept].mean())}
    for name, values in columns.items():
        own, truth = values[kept], right[kept]
        figures[name] = proper_scores(own, truth)
        figures[name]["intervals"] = {
            measure: bootstrap(
                recording, num_recordings, lambda rows, m=measure, o=own, t=truth: proper_scores(o[rows], t[rows])[m]
            )
            for measure in ("ece", "aurc")
        }
    figures["ece_by_chance"] = calibration_floor(reported.confidence[kept])
    figures["all_candidates"] = {
        "num": len(right),
        **{name: proper_scores(values, right) for name, values in columns.items()},
    }
    for border in ("onset", "offset"):
        low, high, truth = reported.intervals(border)
        inside = (low - 1e-6 <= truth) & (truth <= high + 1e-6)
        owners = reported.candidates.recording[reported.kept & right]
        figures[border] = {
            "coverage": float(inside.mean()),
            "interval": bootstrap(owners, num_recordings, lambda rows, i=inside: float(i[rows].mean())),
            "median_width_s": float(np.median(high - low)),
        }
    ends = [np.array([getattr(one, f"confidence_{side}") for one in reported.judgements]) for side in ("low", "high")]
    figures["confidence"]["groups_covered"] = groups_covered(reported.confidence, *ends, reported.right)
    figures["confidence"]["median_width"] = float(np.median((ends[1] - ends[0])[kept]))
    figures["decisions"] = decision_figures(reported)
    events = _events_above_threshold(reported, classes)
    figures["event_f1"] = event_based_metrics(references, events, classes)["macro"]["f1"]
    figures["segment_f1_micro"] = segment_based_metrics(references, events, classes, durations)["micro"]["f1"]
    return figures


def decision_figures(reported: Reported) -> dict[str, Any]:
    """How many events are accepted, for review and rejected, and how many of each are right."""
    result: dict[str, Any] = {"rule": reported.rule.sentences, "warnings": reported.rule.warnings}
    for word in ("accept", "review", "reject"):
        chosen = reported.kept & (reported.decision == word)
        share = float(reported.right[chosen].mean()) if chosen.any() else None
        result[word] = {"num": int(chosen.sum()), "share_right": share}
    result["share_kept"] = result["accept"]["num"] / max(1, int(reported.kept.sum()))
    return result


def _events_above_threshold(reported: Reported, classes: list[str]) -> dict[str, list[list]]:
    events: dict[str, list[list]] = {name: [] for name in reported.candidates.files}
    for index in np.flatnonzero(reported.above):
        box = reported.candidates.evidence[index].box
        name = reported.candidates.files[reported.candidates.recording[index]]
        events[name].append([box.onset, box.offset, classes[box.class_index]])
    return events


def split_check(reported: Reported) -> dict[str, Any]:
    """The guarantees on random halves of the recordings: thresholds from one half, events of the other.

    For the precision, splits are counted where the accepted share of right events of the other half is below the goal;
    a half has a sampling error of its own, so also those where it is below by more than one standard error. For false
    alarms and recall, which hold on average, the mean over splits is given.
    """
    rng, num = np.random.default_rng(0), len(reported.candidates.files)
    precisions, false_alarms, recalls = [], [], []
    for _ in range(NUM_SPLITS):
        half = np.sort(rng.permutation(num)[: num // 2])
        other = np.setdiff1d(np.arange(num), half)
        fitted_on, judged = reported.part(half), reported.part(other)
        threshold, _, warnings = precision_threshold(fitted_on, PRECISION)
        if not warnings:
            accepted = judged.accepted(threshold)
            share = judged.right[accepted].mean() if accepted.any() else 1.0
            precisions.append((share, np.sqrt(PRECISION * (1 - PRECISION) / max(1, accepted.sum()))))
        threshold, _, warnings = false_alarm_threshold(fitted_on, FALSE_ALARMS_PER_HOUR)
        if not warnings:
            wrong = (judged.accepted(threshold) & ~judged.right).sum()
            false_alarms.append(wrong * 3600 / judged.duration_s)
        threshold, _, warnings = recall_threshold(fitted_on, RECALL)
        if not warnings:
            found = judged.per_recording(((judged.confidence >= threshold) & judged.right).astype(float))
            shares = np.where(judged.num_events > 0, found / np.maximum(judged.num_events, 1), 1.0)
            recalls.append(shares.mean())
    return {
        "splits": NUM_SPLITS,
        "precision": {
            "goal": PRECISION,
            "guaranteed": len(precisions),
            "below_goal": int(sum(share < PRECISION for share, _ in precisions)),
            "below_goal_by_a_standard_error": int(sum(share < PRECISION - error for share, error in precisions)),
            "promised_at_most": RISK * len(precisions),
        },
        "false_alarms_per_hour": _mean_check(FALSE_ALARMS_PER_HOUR, false_alarms),
        "recall": _mean_check(RECALL, recalls),
    }


def _mean_check(goal: float, values: list[float]) -> dict[str, float | int | None]:
    return {"goal": goal, "guaranteed": len(values), "mean": float(np.mean(values)) if values else None}


def milliseconds(pipe: SoundEventDetectionPipeline, paths: list[Path], setting: Setting) -> float:
    """Median time of one recording, file to events, on one thread."""
    exit_index, method, shifts = setting
    chosen = "auto" if exit_index == 0 else exit_index
    times = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for path in paths[:NUM_TIMED]:
            start = time.perf_counter()
            pipe(str(path), exit=chosen, uncertainty=method, shifts=shifts)
            times.append(1000 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
    return float(np.median(times[2:]))


def chosen_settings(num_exits: int) -> list[Setting]:
    """Default; every method with and without shifts at the deepest exit; plain and default method at the others."""
    deepest = [(num_exits, method, shifts) for method in ("none", "mc", "exits", "moments") for shifts in (0, SHIFTS)]
    others = [(index, *rest) for index in range(1, num_exits) for rest in (("none", 0), ("mc", SHIFTS))]
    return [DEFAULT, *deepest, *others]


def trust_report(
    pipe: SoundEventDetectionPipeline,
    references: dict[str, list],
    durations: dict[str, float],
    paths: dict[str, Path],
    folder: Path,
) -> dict[str, Any]:
    """Figures of all settings; writes pictures and `trust.md` to the folder.

    Raises:
        ValueError: when the model has no calibration.
    """
    if pipe.calibration is None:
        raise ValueError("a trust report needs a calibrated model: run training/calibrate.py first")
    model, extractor, calibration = pipe.model, pipe.feature_extractor, pipe.calibration
    settings = chosen_settings(model.num_exits)
    sources = read_sources(paths, extractor.sampling_rate)
    limits = calibration.doubt_limits(model.num_exits)
    found = collect_candidates(model, extractor, sources, references, settings, limits, len(paths))
    result: dict[str, Any] = {
        "calibration": calibration.id,
        "fitted_on": calibration.saved["fitted_on"],
        "settings": {},
    }
    everything = {}
    for setting in settings:
        decoding = decoding_for_exit(model.config.decoding, setting[0] if setting[0] > 0 else model.num_exits)
        everything[setting] = reported = Reported(found[setting], calibration, setting, decoding)
        figures = setting_figures(reported, references, durations, calibration.labels)
        figures["milliseconds"] = milliseconds(pipe, list(paths.values()), setting)
        result["settings"][name_of(setting)] = figures
    exits = np.concatenate(found[DEFAULT].frame_exits)
    result["auto_exits"] = {str(index): float((exits == index).mean()) for index in range(1, model.num_exits + 1)}
    result["split_check"] = split_check(everything[DEFAULT])
    result["events"] = event_rows(everything)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trust.md").write_text(markdown(result), encoding="utf-8")
    draw_figures(everything, result, folder)
    return result


def event_rows(everything: dict[Setting, Reported]) -> dict[str, Any]:
    """Scores, confidences and truth of the reported events of the plain pass and the default, to pool over seeds."""
    deepest = max(setting[0] for setting in everything)
    rows = {}
    for name, setting in (("plain", (deepest, "none", 0)), ("default", DEFAULT)):
        one = everything[setting]
        rows[name] = {
            "score": np.round(one.score[one.kept], 4).tolist(),
            "confidence": np.round(one.confidence[one.kept], 4).tolist(),
            "right": one.right[one.kept].astype(int).tolist(),
            "above_threshold": one.above[one.kept].astype(int).tolist(),
        }
    return rows


# ---- for people ------------------------------------------------------------------------------------------------------


def markdown(result: dict[str, Any]) -> str:
    """The table of all settings; in brackets 90 % bootstrap intervals over recordings."""
    lines = [
        "| setting | events | right | ECE raw | ECE T | ECE | Brier raw | Brier T | Brier | NLL raw | NLL T | NLL "
        "| AURC raw | AURC | onsets inside | offsets inside | accepted | right | event F1 | segment F1 micro | ms |",
        "|" + " --- |" * 21,
    ]
    for name, one in result["settings"].items():
        cells = [str(one["num_reported"]), f"{one['share_right']:.3f}"]
        cells += [f"{one[kind]['ece']:.3f}" for kind in ("raw", "temperature")]
        cells.append(_with_interval(one["confidence"]["ece"], one["confidence"]["intervals"]["ece"]))
        for measure in ("brier", "nll"):
            cells += [f"{one[kind][measure]:.3f}" for kind in ("raw", "temperature", "confidence")]
        cells += [_with_interval(one[kind]["aurc"], one[kind]["intervals"]["aurc"]) for kind in ("raw", "confidence")]
        cells += [_with_interval(one[border]["coverage"], one[border]["interval"]) for border in ("onset", "offset")]
        accept = one["decisions"]["accept"]
        share = "-" if accept["share_right"] is None else f"{accept['share_right']:.3f}"
        cells += [f"{one['decisions']['share_kept']:.2f}", share]
        cells += [f"{one[name]:.3f}" for name in ("event_f1", "segment_f1_micro")]
        lines.append(f"| {name} | " + " | ".join([*cells, f"{one['milliseconds']:.0f}"]) + " |")
    return "\n".join(lines) + "\n"


def _with_interval(value: float, interval: list[float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f}-{interval[1]:.3f})"


def draw_figures(everything: dict[Setting, Reported], result: dict[str, Any], folder: Path) -> None:
    """The four figures."""
    deepest = max(setting[0] for setting in everything)
    plain, default = everything[deepest, "none", 0], everything[DEFAULT]
    groups = {
        "raw score": (plain.score[plain.above], plain.right[plain.above]),
        "confidence": (default.confidence[default.kept], default.right[default.kept]),
    }
    draw_reliability(groups, folder / "reliability.png")
    curves = {"raw score, plain pass": groups["raw score"]}
    for method in ("none", "mc", "exits", "moments"):
        one = everything[deepest, method, SHIFTS]
        curves[f"confidence, {setting_name(method, SHIFTS)}"] = (one.confidence[one.kept], one.right[one.kept])
    draw_risk_coverage(curves, folder / "risk_coverage.png")
    observed = {border: interval_coverage(default, border) for border in ("onset", "offset")}
    draw_interval_coverage(LEVELS, observed, folder / "interval_coverage.png")
    points = []
    for setting in everything:
        one = result["settings"][name_of(setting)]
        name = "auto" if setting[0] == 0 else f"exit {setting[0]}"
        point = {"name": name, "method": setting[1], "shifts": setting[2], "milliseconds": one["milliseconds"]}
        points.append({**point, "f1": one["event_f1"], "aurc": one["confidence"]["aurc"], "low": None, "high": None})
    draw_accuracy_compute(points, folder / "accuracy_compute.png")


def interval_coverage(reported: Reported, border: str) -> np.ndarray:
    """(levels,) share of true borders inside intervals scaled from the stated 90 % by the normal quantiles."""
    low, high, truth = reported.intervals(border)
    chosen = np.flatnonzero(reported.kept & reported.right)
    middle = np.array([getattr(reported.candidates.evidence[i].box, border) for i in chosen])
    quantiles = np.array([0.6745, 0.8416, 1.0364, 1.2816, 1.6449, 1.96]) / 1.6449
    inside = [(middle + q * (low - middle) <= truth) & (truth <= middle + q * (high - middle)) for q in quantiles]
    return np.array([one.mean() for one in inside])


__all__ = ["trust_report"]
