"""PSDS for `evaluate`, one recording per example: `evaluate.load("training/metrics/psds")`.

A face of `modeling_easysed.metrics.psds` and `psds_from_boxes`, which define the score; the package must be installed.
The file stands alone, so that `evaluate` can copy it and the Hub can hold it."""

import reprlib
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from modeling_easysed.metrics import psds, psds_from_boxes
from modeling_easysed.metrics.examples import by_number, read_events

DESCRIPTION = """
Polyphonic sound detection score, exact: the area under the effective true positive rate over all operating points of
frame scores, or of scored boxes with `evaluate.load(..., "boxes")`.
"""

INPUTS_DESCRIPTION = """
    predictions: per recording {"timestamps": frames + 1 borders in seconds, "values": frames x classes scores}; with
        "boxes" a list of {"onset": seconds, "offset": seconds, "label": name, "score": number}.
    references: per recording a list of {"onset": seconds, "offset": seconds, "label": name}, empty for a recording
        without events. Other fields of an event are left out.
    durations: seconds of every recording.
    classes: names of all classes, in the order of the scores.
    dtc, gtc, cttc, alpha_ct, alpha_st, e_max: DCASE scenario 1 unless told (0.7, 0.7, None, 0, 1, 100 per hour);
        scenario 2 is dtc=0.1, gtc=0.1, cttc=0.3, alpha_ct=0.5.

Returns:
    `psds` in [0, 1], `class_wise` and the curve `psd_roc`; nan where there is no reference.
"""

CITATION = """
@inproceedings{bilen2020framework,
  title = {A Framework for the Robust Evaluation of Sound Event Detection},
  author = {Bilen, Cagdas and Ferroni, Giacomo and Tuveri, Francesco and Azcarreta, Juan and Krstulovic, Sacha},
  booktitle = {ICASSP},
  year = {2020}
}
@inproceedings{ebbers2022threshold,
  title = {Threshold Independent Evaluation of Sound Event Detection Scores},
  author = {Ebbers, Janek and Haeb-Umbach, Reinhold and Serizel, Romain},
  booktitle = {ICASSP},
  year = {2022}
}
"""

NUMBER = datasets.Value("float64")
EVENT = {"onset": NUMBER, "offset": NUMBER, "label": datasets.Value("string")}
BOX = EVENT | {"score": NUMBER}
SCORES = {"timestamps": [NUMBER], "values": [[NUMBER]]}


class Psds(evaluate.Metric):
    """The metric that `evaluate.load` returns; `config_name` is "frames" (the default) or "boxes"."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ("default", "frames", "boxes"):
            raise ValueError(f"config_name must be 'frames' or 'boxes', got {self.config_name!r}; it names the scores")
        # [EVENT] and not Sequence(EVENT), which would turn a list of events into a dict of lists
        predictions = [BOX] if self.has_boxes else SCORES
        features = {"predictions": predictions, "references": [EVENT], "durations": NUMBER}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS_DESCRIPTION,
            features=datasets.Features(features),
        )

    @property
    def has_boxes(self) -> bool:
        return self.config_name == "boxes"

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one recording; `durations` is its length in seconds."""
        # `evaluate.combine` gives one recording by the names of many, predictions and references
        example = {"predictions": prediction, "references": reference, **kwargs}
        self.add_batch(**{name: [value] for name, value in example.items()})

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add some recordings; `durations` are their lengths in seconds."""
        if kwargs.get("durations") is None:
            raise ValueError("durations must hold the seconds of every recording, got None: rates are per hour")
        predictions = read_events(predictions, "predictions", list(BOX)) if self.has_boxes else read_scores(predictions)
        references = read_events(references, "references", list(EVENT))
        super().add_batch(predictions=predictions, references=references, **kwargs)

    def _compute(
        self,
        predictions: list,
        references: list[list[dict]],
        durations: list[float],
        classes: Sequence[str] = (),
        dtc: float = 0.7,
        gtc: float = 0.7,
        cttc: float | None = None,
        alpha_ct: float = 0.0,
        alpha_st: float = 1.0,
        e_max: float = 100.0,
    ) -> dict[str, Any]:
        given = by_number(predictions, list(BOX)) if self.has_boxes else dict(enumerate(predictions))
        score = psds_from_boxes if self.has_boxes else psds
        sizes = (classes, dict(enumerate(durations)))
        return score(by_number(references, list(EVENT)), given, *sizes, dtc, gtc, cttc, alpha_ct, alpha_st, e_max)


def read_scores(examples: Any) -> list[dict]:
    """The fields of `SCORES` alone.

    Raises:
        ValueError: when an example is no dict with these fields.
    """
    try:
        return [{field: scores[field] for field in SCORES} for scores in examples]
    except (IndexError, KeyError, TypeError):
        raise ValueError(
            "predictions must be one {'timestamps': frames + 1 seconds, 'values': frames x classes scores} per "
            f"recording, got {reprlib.repr(examples)}; for events with scores, evaluate.load(..., 'boxes')"
        ) from None
