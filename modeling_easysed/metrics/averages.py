"""From counts per class to F1 per class, their mean (macro) and the F1 of the summed counts (micro)."""

from dataclasses import dataclass

import numpy as np

from .events import warn_of_absent_classes

NAN = float("nan")


@dataclass(frozen=True)
class ErrorCounts:
    """Errors of all classes together, in which a miss and a false alarm at the same place are one substitution."""

    substitutions: int
    deletions: int
    insertions: int


def average_scores(
    tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, classes: list[str], errors: ErrorCounts | None = None
) -> dict[str, dict]:
    """Scores per class, macro and micro.

    A class with references and no true positive scores 0. A class without references has nan for every score (write
    it as null in JSON), is left out of the macro mean, and its false positives stay in micro. Precision is 0, not 1
    and not nan, for a class with references and no output.

    Args:
        tp: (classes,) true positives.
        fp: (classes,) false positives.
        fn: (classes,) false negatives; tp + fn is the number of references.
        classes: names of the classes.
        errors: errors over all classes, for the micro error rate; None leaves error rates out.
    """
    warn_of_absent_classes(tp + fn, classes)
    with_error_rate = errors is not None
    class_wise = {
        name: _scores(int(tp[index]), int(fp[index]), int(fn[index]), with_error_rate)
        for index, name in enumerate(classes)
    }
    micro = _scores(int(tp.sum()), int(fp.sum()), int(fn.sum()), with_error_rate=False)
    if errors is not None:
        num_errors = errors.substitutions + errors.deletions + errors.insertions
        num_references = int(tp.sum() + fn.sum())
        micro["error_rate"] = num_errors / num_references if num_references > 0 else NAN
        micro.update(vars(errors))
    return {"micro": micro, "macro": _macro(class_wise, with_error_rate), "class_wise": class_wise}


def _scores(tp: int, fp: int, fn: int, with_error_rate: bool) -> dict[str, float]:
    num_references = tp + fn
    present = num_references > 0
    scores = {
        "f1": 2 * tp / (2 * tp + fp + fn) if present else NAN,
        "precision": (tp / (tp + fp) if tp > 0 else 0.0) if present else NAN,
        "recall": tp / num_references if present else NAN,
    }
    if with_error_rate:
        scores["error_rate"] = (fp + fn) / num_references if present else NAN
    return scores | {"tp": tp, "fp": fp, "fn": fn}


def _macro(class_wise: dict[str, dict[str, float]], with_error_rate: bool) -> dict[str, float]:
    present = [scores for scores in class_wise.values() if scores["tp"] + scores["fn"] > 0]
    names = ["f1", "precision", "recall"] + (["error_rate"] if with_error_rate else [])
    return {name: float(np.mean([scores[name] for scores in present])) if present else NAN for name in names}
