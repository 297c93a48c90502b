"""Expected calibration error for `evaluate`: `evaluate.load("training/metrics/calibration_error")`.

A face of `modeling_easysed.metrics.expected_calibration_error`, which defines the score; the package must be installed.
The file stands alone, so that `evaluate` can copy it and the Hub can hold it."""

from itertools import chain

import datasets
import evaluate

from modeling_easysed.metrics import expected_calibration_error

DESCRIPTION = """
Expected calibration error: the mean over decisions of |accuracy - confidence| of their bin. One probability with its
0/1 label is one example; with `evaluate.load(..., "multilabel")` an example is a list of them, judged one by one.
"""

INPUTS_DESCRIPTION = """
    predictions: probabilities in [0, 1].
    references: 0 or 1 for every probability.
    num_bins: bins of equal width, 15 unless told.
    variant: "confidence" (default) compares max(p, 1 - p) with whether the decision p >= 0.5 is right; "positive_class"
        compares p with the label.
    closed: which border of a bin belongs to it, "right" (default) or "left".

Returns:
    `calibration_error` in [0, 1].
"""

CITATION = """
@inproceedings{naeini2015obtaining,
  title = {Obtaining Well Calibrated Probabilities Using Bayesian Binning},
  author = {Naeini, Mahdi Pakdaman and Cooper, Gregory F. and Hauskrecht, Milos},
  booktitle = {AAAI},
  year = {2015}
}
@inproceedings{guo2017calibration,
  title = {On Calibration of Modern Neural Networks},
  author = {Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  booktitle = {ICML},
  year = {2017}
}
"""


class CalibrationError(evaluate.Metric):
    """The metric that `evaluate.load` returns; `config_name` is "default" or "multilabel"."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ("default", "multilabel"):
            raise ValueError(f"config_name must be 'default' or 'multilabel', got {self.config_name!r}")
        # labels as float64 too: as integers, 0.5 would become 0 before the metric can refuse it
        number = datasets.Value("float64")
        column = [number] if self.config_name == "multilabel" else number
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS_DESCRIPTION,
            features=datasets.Features({"predictions": column, "references": column}),
        )

    def _compute(
        self,
        predictions: list,
        references: list,
        num_bins: int = 15,
        variant: str = "confidence",
        closed: str = "right",
    ) -> dict[str, float]:
        if self.config_name == "multilabel":
            predictions, references = flatten(predictions, references)
        error = expected_calibration_error(predictions, references, num_bins, variant, closed)
        return {"calibration_error": error}


def flatten(predictions: list[list[float]], references: list[list[float]]) -> tuple[list[float], list[float]]:
    """All decisions of all examples in one row.

    Raises:
        ValueError: when an example has more or fewer labels than probabilities.
    """
    for number, (own, labels) in enumerate(zip(predictions, references, strict=True)):
        if len(own) != len(labels):
            raise ValueError(
                f"predictions[{number}] and references[{number}] must have one length, got {len(own)} and "
                f"{len(labels)}; give one 0/1 label per probability"
            )
    return list(chain.from_iterable(predictions)), list(chain.from_iterable(references))
