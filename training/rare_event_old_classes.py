"""What a new class did to the old ones: F1 on labelled recordings before and after, and agreement with the base."""

from pathlib import Path
from typing import Any

import torch
from new_label import Frozen
from rare_event_scenes import SceneSet
from soundscape_split import References, predict_split, read_split

from modeling_easysed import EasySEDFeatureExtractor, EasySEDForSoundEventDetection
from modeling_easysed.decoding_easysed import Box, decode, decoding_for_exit
from modeling_easysed.metrics import event_based_metrics, segment_based_metrics

MAX_LOSS = 0.02  # of macro F1 that training all weights may cost the old classes
MIN_AGREEMENT = 0.97  # with the base, where there are no labelled recordings to measure a loss on
MIN_ACTIVE_FRAMES = 500  # of the base, 20 s, below which an agreement says nothing

KINDS = {"event": event_based_metrics, "segment": segment_based_metrics}


class LabelledSplit:
    """Labelled recordings of the old classes, heard by one model after the other.

    Args:
        data_dir, split: as in `read_split`.
        labels: the old classes; events of other labels are left out of the references.

    Attributes:
        occurring: the old classes with an event, in order: the means are over these.

    Raises:
        ValueError: when the split has no event of an old class.
        FileNotFoundError: for a missing table or file.
    """

    def __init__(self, data_dir: str | Path, split: str, labels: list[str]) -> None:
        self.everything, self.durations, self.paths = read_split(data_dir, split)
        self.name, self.split, self.labels = Path(data_dir).resolve().name, split, labels
        self.references = self.references_of(labels)
        found = {event[2] for events in self.references.values() for event in events}
        self.occurring = [label for label in labels if label in found]
        if not self.occurring:
            raise ValueError(f"--old_data {data_dir} must hold events of {labels} in {split}, got none")

    def references_of(self, labels: list[str]) -> References:
        """Events of these labels alone; every file stays."""
        return {file: [one for one in events if one[2] in labels] for file, events in self.everything.items()}

    def files_with(self, label: str) -> set[str]:
        """Recordings with an event of a label, of an old class or not."""
        return {file for file, events in self.everything.items() if any(event[2] == label for event in events)}

    def figures(self, model: EasySEDForSoundEventDetection, extractor: EasySEDFeatureExtractor) -> dict[str, Any]:
        """F1 of old classes: {"event": {"macro", "class_wise"}, "segment": ..., "exits": {exit: {kind: macro}}}."""
        predictions = predict_split(model, extractor, self.paths)
        figures: dict[str, Any] = {"exits": {}}
        for exit_index in range(1, model.num_exits + 1):
            decoding = decoding_for_exit(model.config.decoding, exit_index)
            detections = {
                file: self._old_events(decode(probabilities[exit_index - 1], borders, decoding))
                for file, (probabilities, borders) in predictions.items()
            }
            results = {
                "event": event_based_metrics(self.references, detections, self.occurring),
                "segment": segment_based_metrics(self.references, detections, self.occurring, self.durations),
            }
            own = {
                kind: {
                    "macro": float(result["macro"]["f1"]),
                    "class_wise": {name: float(result["class_wise"][name]["f1"]) for name in self.occurring},
                }
                for kind, result in results.items()
            }
            figures["exits"][str(exit_index)] = {kind: one["macro"] for kind, one in own.items()}
        return figures | own  # of the deepest exit, the last

    def _old_events(self, boxes: list[Box]) -> list[list]:
        """[[onset, offset, label], ...] of the classes that occur; false alarms of others are in no mean."""
        events = [(box, self.labels[box.class_index]) for box in boxes if box.class_index < len(self.labels)]
        return [[box.onset, box.offset, label] for box, label in events if label in self.occurring]


def mean_loss(before: dict[str, Any], after: dict[str, Any]) -> float:
    """Of macro F1 at the deepest exit, mean of event-based and segment-based; negative for a gain.

    Their mean, because thresholds that were tuned on the same recordings flatter the event-based F1 before.
    """
    return sum(before[kind]["macro"] - after[kind]["macro"] for kind in KINDS) / len(KINDS)


@torch.inference_mode()
def agreement(
    model: EasySEDForSoundEventDetection, scene_sets: list[SceneSet], frozen: list[Frozen], batch_size: int = 16
) -> dict[str, float]:
    """How far the deepest exit agrees with the base on the old classes.

    Returns:
        "frame_f1": F1 of the frames and classes above one half, the base taken as the truth (1 where both have none);
        "active_frames": of the base; "mean_difference": of the probabilities.
    """
    shared, either, active, difference, count = 0, 0, 0, 0.0, 0
    for scenes, base in zip(scene_sets, frozen, strict=True):
        for start in range(0, len(scenes), batch_size):
            stop = start + batch_size
            logits = model(scenes.features[start:stop].to(model.device).float()).frame_logits[..., :-1].float().cpu()
            old = base.frame_logits[-1, start:stop].float()
            both = (logits > 0) & (old > 0)
            shared += int(both.sum())
            active += int((old > 0).sum())
            either += int((logits > 0).sum()) + int((old > 0).sum())
            difference += float((torch.sigmoid(logits) - torch.sigmoid(old)).abs().sum())
            count += logits.numel()
    frame_f1 = 1.0 if either == 0 else 2 * shared / either
    return {"frame_f1": frame_f1, "active_frames": active, "mean_difference": difference / max(count, 1)}


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, dict[str, float]]:
    """{"event": {class or "macro": change of F1}, "segment": ...}."""
    return {
        kind: {
            "macro": after[kind]["macro"] - before[kind]["macro"],
            **{name: after[kind]["class_wise"][name] - old for name, old in before[kind]["class_wise"].items()},
        }
        for kind in KINDS
    }


__all__ = ["LabelledSplit", "MAX_LOSS", "MIN_ACTIVE_FRAMES", "MIN_AGREEMENT", "agreement", "changes", "mean_loss"]
