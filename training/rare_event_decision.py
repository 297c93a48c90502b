"""Which phase of learning is kept, where the threshold lies, and every figure of the report."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import Accelerator
from new_label import TUNING_STEPS, blended
from rare_event_data import SCENE_S, RareEventData
from rare_event_old_classes import (
    MAX_LOSS,
    MIN_ACTIVE_FRAMES,
    MIN_AGREEMENT,
    LabelledSplit,
    agreement,
    changes,
    mean_loss,
)
from rare_event_scores import RATES_PER_HOUR, Alarms, HeldOut, choose_threshold, cross_fitted, judge_columns
from rare_event_statistics import FalseAlarms, LearningCurve, Recall
from rare_event_validation import Learning, Phase, new_class_probabilities
from soundscape_split import predict_split
from tune_decoding import with_id

from modeling_easysed import EasySEDFeatureExtractor, EasySEDForSoundEventDetection
from modeling_easysed.decoding_easysed import decode, decoding_for_exit, frame_borders

SHARES = (0.75, 0.5, 0.25)  # of the change of all weights, the first that spares the old classes is kept
ALL = (1.0,)  # where the old classes do not matter
OTHER_RATE_PER_HOUR = 1.0  # at which the recall is reported besides the chosen threshold


@dataclass
class Settings:
    """What `finetune.py` was asked, see its help."""

    base: str
    positives: str
    background: str
    label: str
    output_dir: str
    rehearsal: str | None = None
    rehearsal_folds: list[str] | None = None
    old_data: str | None = None
    old_split: str = "validation"
    seed: int = 0
    gap_s: float = 0.3
    max_false_alarms_per_hour: float = 1.0
    max_background_hours: float = 2.0
    fine_tune: str = "auto"
    fine_tune_steps: int = TUNING_STEPS
    calibration: str = "auto"

    def check(self) -> None:
        """
        Raises:
            ValueError: for a number outside its range.
        """
        for name in ("gap_s", "max_false_alarms_per_hour"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"--{name} must be a number of 0 or more, got {getattr(self, name)}")
        if not 0 < self.max_background_hours < float("inf"):
            raise ValueError(f"--max_background_hours must be a number above 0, got {self.max_background_hours}")
        for name, least in (("fine_tune_steps", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be {least} or more, got {getattr(self, name)}")


@dataclass
class Choice:
    """The phase that is kept.

    Attributes:
        number: 1 or 2.
        phase: its models and held-out scores.
        sentence: why.
        before, after: figures of the old classes, None without labelled recordings; `after` of the phase that is kept.
        agreement: with the base on background and old sounds, of the phase that is kept.
        sensitivity: per phase that was tried.
        share: of the change of phase 2 that was kept, see `blended`.
    """

    number: int
    phase: Phase
    sentence: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    agreement: dict[str, float]
    sensitivity: dict[str, float]
    share: float = 1.0


# ---- which phase -----------------------------------------------------------------------------------------------------


def choose_phase(
    learning: Learning,
    settings: Settings,
    accelerator: Accelerator,
    split: LabelledSplit | None,
    extractor: EasySEDFeatureExtractor,
) -> Choice:
    """Phase 1, and phase 2 where it is tried, finds more on held-out recordings, and spares the old classes."""
    one = learning.phase_one()
    before = None if split is None else split.figures(learning.base, extractor)
    first = Choice(1, one, "", before, before, _agreement(learning, one.model), {"1": one.held_out[-1].sensitivity})
    if settings.fine_tune == "never":
        first.sentence = "Only the new class's own weights were trained, as asked (--fine_tune never)."
        return first
    if settings.fine_tune == "auto" and split is None and "rehearsal" not in learning.sets:
        first.sentence = (
            "Only the new class's own weights were trained: without --rehearsal or --old_data nobody could tell what "
            "training all weights does to the old classes. It usually finds much more: give one of them to try it, or "
            "--fine_tune always where the old classes do not matter."
        )
        return first
    tuned = learning.tune(accelerator, settings.fine_tune_steps)
    shares = ALL if settings.fine_tune == "always" else SHARES
    for share in shares:
        model = blended(*tuned.final, share)
        model.config.decoding = learning.base.config.decoding  # the old classes' is the same in all phases
        after = None if split is None else split.figures(model, extractor)
        cost = Cost(before, after, _agreement(learning, model))
        if cost.is_small:
            break
    two = learning.phase_two(tuned, share)
    first.sensitivity["2"] = two.held_out[-1].sensitivity
    second = Choice(2, two, "", before, after, cost.agreement, first.sensitivity, share)
    is_kept, sentence = judge_second(second, cost, settings.fine_tune)
    chosen = second if is_kept else first
    chosen.sentence = sentence
    return chosen


@dataclass
class Cost:
    """What phase 2 does to the old classes: figures before and after, None without labelled recordings; agreement."""

    before: dict[str, Any] | None
    after: dict[str, Any] | None
    agreement: dict[str, float]

    @property
    def is_small(self) -> bool:
        if self.before is not None and self.after is not None:
            return mean_loss(self.before, self.after) <= MAX_LOSS
        is_told = self.agreement["active_frames"] >= MIN_ACTIVE_FRAMES
        return is_told and self.agreement["frame_f1"] >= MIN_AGREEMENT

    def words(self) -> str:
        """E.g. "cost the old classes 1.2 points of F1"."""
        if self.before is not None and self.after is not None:
            loss = mean_loss(self.before, self.after)
            points = f"cost the old classes {100 * loss:.1f} points" if loss > 0 else "cost the old classes nothing"
            return f"{points} (mean of event-based and segment-based F1; at most {100 * MAX_LOSS:g} allowed)"
        return (
            f"agrees with the base on the old classes in {100 * self.agreement['frame_f1']:.0f} % of "
            f"{self.agreement['active_frames']} frames (F1; {100 * MIN_AGREEMENT:.0f} % of {MIN_ACTIVE_FRAMES} or more "
            "are asked)"
        )


def judge_second(second: Choice, cost: Cost, fine_tune: str) -> tuple[bool, str]:
    """Whether phase 2 is kept, and why."""
    one, two = (second.sensitivity[number] for number in ("1", "2"))
    what = f"held-out recall at 1 to 30 false alarms per hour {one:.2f} before, {two:.2f} after; it {cost.words()}"
    if fine_tune == "always":
        return True, f"All weights were trained, as asked (--fine_tune always): {what}."
    if two <= one:
        return False, f"Only the new class's own weights were trained: training all of them found no more ({what})."
    if not cost.is_small:
        return False, f"Only the new class's own weights were trained: training all of them costs too much ({what})."
    part = "" if second.share == 1 else f", and {100 * second.share:.0f} % of the change was kept"
    return True, f"All weights were trained{part}: {what}."


def _agreement(learning: Learning, model: EasySEDForSoundEventDetection) -> dict[str, float]:
    names = [name for name in ("background", "rehearsal") if name in learning.sets]
    return agreement(model, [learning.sets[name] for name in names], [learning.frozen[name] for name in names])


# ---- figures ---------------------------------------------------------------------------------------------------------


def measure(
    learning: Learning,
    choice: Choice,
    curve: LearningCurve,
    settings: Settings,
    split: LabelledSplit | None,
    extractor: EasySEDFeatureExtractor,
) -> dict[str, Any]:
    """All figures but those of calibration; "exits" holds each exit's, the deepest exit's stand at the top as well."""
    exits = exit_figures(learning, choice, settings.max_false_alarms_per_hour)
    deepest = exits[str(learning.base.num_exits)]
    if split is not None:
        deepest["false_alarms"]["old_data"] = alarm_figures(
            alarms_on_split(choice.phase.model, extractor, split, learning, deepest["threshold"], settings.label)
        )
    return {
        "data": data_figures(learning.data, split),
        "skipped": [list(one) for one in learning.data.skipped],
        "goal_false_alarms_per_hour": settings.max_false_alarms_per_hour,
        "phase": {
            "number": choice.number,
            "share": choice.share,
            "sentence": choice.sentence,
            "sensitivity": choice.sensitivity,
        },
        **deepest,
        "exits": exits,
        "old_classes": old_class_figures(choice, split),
        "learning_curve": {**vars(curve), "sentence": curve.sentence()},
    }


def exit_figures(learning: Learning, choice: Choice, max_false_alarms_per_hour: float) -> dict[str, dict[str, Any]]:
    """Per exit: threshold, recall, trade-off and false alarms, all on recordings that were not learned from."""
    num_folds = learning.data.num_folds

    def chosen(held: HeldOut) -> float:
        return choose_threshold(held, max_false_alarms_per_hour)

    noise = new_class_probabilities(choice.phase.model, learning.scenes.noise.features)
    exits = {}
    for index, held in enumerate(choice.phase.held_out):
        threshold = chosen(held)
        at_choice = cross_fitted(held, num_folds, chosen)
        at_one = cross_fitted(held, num_folds, lambda other: other.threshold_at(OTHER_RATE_PER_HOUR))
        exits[str(index + 1)] = {
            "threshold": round(threshold, 4),
            "recall": recall_figures(at_choice.recall),
            "recall_at_1_per_hour": recall_figures(at_one.recall),
            "trade_off": [
                {"per_hour": rate, "threshold": held.threshold_at(rate)}
                | recall_figures(held.recall_at(held.threshold_at(rate)))
                for rate in RATES_PER_HOUR
            ],
            "false_alarms": {
                "background": alarm_figures(at_choice.background),
                "background_at_1_per_hour": alarm_figures(at_one.background),
                "old_sounds": None if at_choice.rehearsal is None else alarm_figures(at_choice.rehearsal),
                "noise": alarm_figures(noise_alarms(noise[index], learning, index).at(threshold)),
            },
        }
    return exits


def data_figures(data: RareEventData, split: LabelledSplit | None) -> dict[str, Any]:
    """What was learned from and measured on."""
    return {
        "num_clips": len(data.positives),
        "num_recordings": len(data.groups),
        "num_events": sum(len(one.events) for one in data.positives),
        "background_hours": round(data.background_hours, 4),
        "background_files": data.background_files,
        "num_rehearsal_clips": len(data.rehearsal),
        "old_data": None if split is None else f"{split.name}/{split.split}",
        "skipped_files": len(data.skipped),
    }


def recall_figures(recall: Recall) -> dict[str, Any]:
    low, high = recall.interval
    counts = {"found": recall.found, "total": recall.total, "recordings": recall.recordings}
    return {**counts, "value": recall.value, "low": low, "high": high, "sentence": recall.sentence()}


def alarm_figures(alarms: FalseAlarms) -> dict[str, Any]:
    counts = {"count": alarms.count, "hours": alarms.hours, "per_hour": alarms.per_hour}
    return {**counts, "at_most_per_hour": alarms.upper, "sentence": alarms.sentence()}


def noise_alarms(probabilities: np.ndarray, learning: Learning, index: int) -> Alarms:
    """Boxes on noise, from probabilities (scenes, output frames) of one exit."""
    borders = frame_borders(probabilities.shape[1], learning.base.frame_duration_s, SCENE_S)
    found = [judge_columns(own[:, None], borders, [], learning.parameters[index])[0][1] for own in probabilities]
    scores = np.concatenate(found)
    return Alarms(scores, np.zeros(len(scores), dtype=np.int64), np.array([len(probabilities) * SCENE_S / 3600]))


def alarms_on_split(
    model: EasySEDForSoundEventDetection,
    extractor: EasySEDFeatureExtractor,
    split: LabelledSplit,
    learning: Learning,
    threshold: float,
    label: str,
) -> FalseAlarms:
    """Events of the new class on labelled recordings of the old ones; recordings that hold the new one do not count."""
    paths = {file: path for file, path in split.paths.items() if file not in split.files_with(label)}
    parameters = {"method": "boxes", "default": {**learning.parameters[-1], "threshold": threshold}}
    count = sum(
        len(decode(probabilities[-1][:, -1:], borders, parameters))
        for probabilities, borders in predict_split(model, extractor, paths).values()
    )
    return FalseAlarms(count, sum(split.durations[file] for file in paths) / 3600)


def old_class_figures(choice: Choice, split: LabelledSplit | None) -> dict[str, Any]:
    """Before, after and change where there are labelled recordings; agreement with the base in any case."""
    figures: dict[str, Any] = {"agreement": choice.agreement}
    if split is not None and choice.before is not None and choice.after is not None:
        figures |= {
            "data": f"{split.name}/{split.split}",
            "num_files": len(split.paths),
            "before": choice.before,
            "after": choice.after,
            "change": changes(choice.before, choice.after),
        }
    return figures


# ---- decoding --------------------------------------------------------------------------------------------------------


def new_decoding(
    before: dict[str, Any] | None, learning: Learning, exits: dict[str, Any], settings: Settings
) -> dict[str, Any]:
    """The base's decoding with the new class at every exit; the old classes' parameters as they were."""
    new, found = str(learning.base.config.num_labels), {}
    for name, figures in exits.items():
        own = decoding_for_exit(before, int(name))
        own = {} if own is None else own
        parameters = {**learning.parameters[int(name) - 1], "threshold": figures["threshold"]}
        found[name] = {"default": own.get("default", {}), "classes": {**own.get("classes", {}), new: parameters}}
    tuned_on = {} if before is None else before.get("tuned_on", {})
    added = {
        "label": settings.label,
        "data": "cross-validated mixtures of its clips and background",
        "objective": f"F1 with at most {settings.max_false_alarms_per_hour:g} false alarms per hour",
    }
    return with_id(
        {"method": "boxes", "exits": found, "tuned_on": {**tuned_on, "added": [*tuned_on.get("added", []), added]}}
    )


__all__ = ["Choice", "Settings", "choose_phase", "judge_second", "measure", "new_decoding"]
