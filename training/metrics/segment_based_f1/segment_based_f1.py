"""Segment-based F1 for `evaluate`, one recording per example: `evaluate.load("training/metrics/segment_based_f1")`.

A face of `modeling_easysed.metrics.segment_based_metrics`, which defines the score; the package must be installed.
Nothing else is imported, so that `evaluate` can copy the file and the Hub can hold it."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from modeling_easysed.metrics import segment_based_metrics
from modeling_easysed.metrics.examples import by_number, read_events

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
        predictions, references = (
            read_events(examples, name, list(EVENT))
            for examples, name in ((predictions, "predictions"), (references, "references"))
        )
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
            by_number(references, list(EVENT)),
            by_number(predictions, list(EVENT)),
            classes,
            dict(enumerate(durations)),
            segment_s,
        )
