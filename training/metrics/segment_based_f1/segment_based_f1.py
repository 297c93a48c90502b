"""Segment-based F1 for `evaluate`, one recording per example: `evaluate.load("training/metrics/segment_based_f1")`.

A face of `modeling_easysed.metrics.segment_based_metrics`, which defines the score; the package must be installed. The
file stands alone, so that `evaluate` can copy it and the Hub can hold it."""

import reprlib
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from modeling_easysed.metrics import segment_based_metrics

DESCRIPTION = """
F1, precision, recall and error rate of class activity in segments of fixed length: a class is active in every segment
that one of its events touches.
"""

INPUTS_DESCRIPTION = """
    predictions, references: per recording a list of {"onset": seconds, "offset": seconds, "label": name}, empty for a
        recording without events. Other fields of an event are left out.
    durations: seconds of every recording.
    classes: names of all classes.
    segment_s: length of a segment in seconds, 1 unless told.

Returns:
    `micro`, `macro` and `class_wise` (a dict per class) with `f1`, `precision`, `recall` and `error_rate`; micro and
    class_wise also hold counts of segments. nan where there is no reference.
"""

CITATION = """
@article{mesaros2016metrics,
  title = {Metrics for Polyphonic Sound Event Detection},
  author = {Mesaros, Annamaria and Heittola, Toni and Virtanen, Tuomas},
  journal = {Applied Sciences},
  volume = {6},
  number = {6},
  year = {2016}
}
"""

EVENT = {"onset": datasets.Value("float64"), "offset": datasets.Value("float64"), "label": datasets.Value("string")}


class SegmentBasedF1(evaluate.Metric):
    """The metric that `evaluate.load` returns."""

    def _info(self) -> evaluate.MetricInfo:
        # [EVENT] and not Sequence(EVENT), which would turn a list of events into a dict of lists
        features = {"predictions": [EVENT], "references": [EVENT], "durations": datasets.Value("float64")}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS_DESCRIPTION,
            features=datasets.Features(features),
        )

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one recording; `durations` is its length in seconds."""
        # `evaluate.combine` gives one recording by the names of many, predictions and references
        example = {"predictions": prediction, "references": reference, **kwargs}
        self.add_batch(**{name: [value] for name, value in example.items()})

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add some recordings; `durations` are their lengths in seconds."""
        if kwargs.get("durations") is None:
            raise ValueError("durations must hold the seconds of every recording, got None: segments end with the file")
        predictions, references = read_events(predictions, "predictions"), read_events(references, "references")
        super().add_batch(predictions=predictions, references=references, **kwargs)

    def _compute(
        self,
        predictions: list[list[dict]],
        references: list[list[dict]],
        durations: list[float],
        classes: Sequence[str] = (),
        segment_s: float = 1.0,
    ) -> dict[str, dict]:
        return segment_based_metrics(
            by_number(references), by_number(predictions), classes, dict(enumerate(durations)), segment_s
        )


def read_events(examples: Any, name: str) -> list[list[dict]]:
    """The fields of `EVENT` alone, so that a detection's events will do as they are.

    Raises:
        ValueError: when an example is no list of dicts with these fields.
    """
    try:
        return [[{field: event[field] for field in EVENT} for event in events] for events in examples]
    except (IndexError, KeyError, TypeError):
        raise ValueError(
            f"{name} must be one list per recording of {{'onset': seconds, 'offset': seconds, 'label': name}}, "
            f"got {reprlib.repr(examples)}; give [] for a recording without events"
        ) from None


def by_number(examples: list[list[dict]]) -> dict[int, list[list]]:
    """Recordings by their number, events as [onset, offset, label]."""
    return {
        number: [[event[field] for field in EVENT] for event in events]  # Arrow may change the order of fields
        for number, events in enumerate(examples)
    }
