"""Event-based F1 for `evaluate`, one recording per example: `evaluate.load("training/metrics/event_based_f1")`.

A face of `modeling_easysed.metrics.event_based_metrics`, which defines the score; the package must be installed.
Nothing else is imported, so that `evaluate` can copy the file and the Hub can hold it."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from modeling_easysed.metrics import event_based_metrics
from modeling_easysed.metrics.examples import by_number, read_events

DESCRIPTION = """
F1, precision, recall and error rate of sound events whose borders fall within collars: a detection matches a reference
of its class and recording if the onsets differ by at most 0.2 s and the offsets by at most 0.2 s or 20 % of the
reference's length. As many pairs as possible are matched, one to one.
"""

INPUTS_DESCRIPTION = """
    predictions, references: per recording a list of {"onset": seconds, "offset": seconds, "label": name}, empty for a
        recording without events. Other fields of an event are left out.
    classes: names of all classes.
    onset_collar_s, offset_collar_s: tolerances in seconds, 0.2 unless told.
    offset_collar_rate: tolerance of the offset as a share of the reference's length, 0.2 unless told.
    durations: seconds of every recording, in the order of the examples; if given, events are clipped to it.

Returns:
    `micro`, `macro` and `class_wise` (a dict per class) with `f1`, `precision`, `recall` and `error_rate`; micro and
    class_wise also hold counts. nan where there is no reference.
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


class EventBasedF1(evaluate.Metric):
    """The metric that `evaluate.load` returns."""

    def _info(self) -> evaluate.MetricInfo:
        # [EVENT] and not Sequence(EVENT), which would turn a list of events into a dict of lists
        features = datasets.Features({"predictions": [EVENT], "references": [EVENT]})
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation=CITATION, inputs_description=INPUTS_DESCRIPTION, features=features
        )

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one recording."""
        # `evaluate.combine` gives one recording by the names of many, predictions and references
        example = {"predictions": prediction, "references": reference, **kwargs}
        self.add_batch(**{name: [value] for name, value in example.items()})

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add some recordings."""
        predictions, references = (
            read_events(examples, name, list(EVENT))
            for examples, name in ((predictions, "predictions"), (references, "references"))
        )
        super().add_batch(predictions=predictions, references=references, **kwargs)

    def _compute(
        self,
        predictions: list[list[dict]],
        references: list[list[dict]],
        classes: Sequence[str] = (),
        onset_collar_s: float = 0.2,
        offset_collar_s: float = 0.2,
        offset_collar_rate: float = 0.2,
        durations: Sequence[float] | None = None,
    ) -> dict[str, dict]:
        return event_based_metrics(
            by_number(references, list(EVENT)),
            by_number(predictions, list(EVENT)),
            classes,
            onset_collar_s,
            offset_collar_s,
            offset_collar_rate,
            None if durations is None else dict(enumerate(durations)),
        )
