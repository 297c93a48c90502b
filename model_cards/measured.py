"""What `training/evaluate.py --out` measured, as the rows of a card and the results of its front matter.

Nothing is computed anew; what was not measured is None, and the card says so."""

from typing import Any

from huggingface_hub import EvalResult

PLAIN, DEFAULT = "none", "mc+shifts"  # settings of the trust report
SCORE_KINDS = (("raw score", "raw"), ("temperature scaling alone", "temperature"), ("confidence", "confidence"))


def check_results(results: dict[str, Any], config: dict[str, Any]) -> None:
    """Refuses results of another model: classes, provenance, decoding and calibration must be its own, where recorded.

    Raises:
        ValueError: naming what differs.
    """
    missing = [name for name in ("exits", "split", "num_files", "command") if not results.get(name)]
    if missing:
        raise ValueError(f"results must be what training/evaluate.py --out wrote, they lack {', '.join(missing)}")
    trust, calibration = results.get("trust"), config.get("calibration")
    own = {
        "classes": label_names(config),
        "provenance": config.get("provenance"),
        "decoding": config.get("decoding"),
        "calibration": None if calibration is None else calibration.get("id"),
    }
    measured = {name: results[name] for name in ("classes", "provenance", "decoding") if name in results}
    if trust is not None:
        measured["calibration"] = trust.get("calibration")
    for name, value in measured.items():
        if value != own[name]:
            raise ValueError(
                f"results must be of this checkpoint, but their {name} is another "
                f"(results: {_shown(value)}, model: {_shown(own[name])}): run training/evaluate.py for it again"
            )


def _shown(value: Any) -> str:
    text = str(value.get("id", value) if isinstance(value, dict) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def label_names(config: dict[str, Any]) -> list[str]:
    """Class names in the order of their indices."""
    return [config["id2label"][str(index)] for index in range(len(config["id2label"]))]


# ---- tables ----------------------------------------------------------------------------------------------------------


def exit_rows(results: dict[str, Any], exits: list[int]) -> list[dict[str, Any]]:
    """PSDS1, PSDS2, macro event F1 and micro segment F1 of those of the exits that were measured."""
    rows = []
    for index in exits:
        scores = results["exits"].get(str(index))
        if scores is not None:
            rows.append(
                {
                    "exit": index,
                    "psds1": _area(scores["psds1"]),
                    "psds2": _area(scores["psds2"]),
                    "event_f1": scores["event_based"]["macro"]["f1"],
                    "segment_f1": scores["segment_based"]["micro"]["f1"],
                }
            )
    return rows


def _area(scenario: dict[str, Any]) -> float | None:
    """PSDS from boxes where the decoding makes them, else from frame scores."""
    return scenario["frames" if scenario["boxes"] is None else "boxes"]["psds"]


def class_rows(results: dict[str, Any], exit_index: int) -> list[dict[str, Any]]:
    """Every class at one exit: event F1 with precision and recall, segment F1; empty where it was not measured."""
    scores = results["exits"].get(str(exit_index))
    if scores is None:
        return []
    event, segment = scores["event_based"]["class_wise"], scores["segment_based"]["class_wise"]
    return [
        {
            "label": label,
            "event_f1": event[label]["f1"],
            "precision": event[label].get("precision"),
            "recall": event[label].get("recall"),
            "segment_f1": segment[label]["f1"],
        }
        for label in event
    ]


def cost_rows(costs: list[dict[str, Any]], results: dict[str, Any] | None) -> list[dict[str, Any]]:
    """`exit_costs` with what was timed, None where it was not.

    Returns:
        What `costs` hold, with "network_ms" (one pass over 10 s of features) of the evaluation, "plain_ms" and
        "default_ms" (one recording, file to events) of the trust report.
    """
    settings, exits = _settings(results), {} if results is None else results["exits"]
    rows = []
    for cost in costs:
        name = str(cost["exit"])
        timed = {
            "network_ms": exits.get(name, {}).get("costs", {}).get("milliseconds_per_10_s"),
            "plain_ms": settings.get(f"exit {name}, {PLAIN}", {}).get("milliseconds"),
            "default_ms": settings.get(f"exit {name}, {DEFAULT}", {}).get("milliseconds"),
        }
        rows.append({**cost, **timed})
    return rows


def trust_figures(results: dict[str, Any] | None, exit_index: int, is_student: bool) -> dict[str, Any] | None:
    """What the trust report says of the default setting of a teacher, or of a student, which knows its own exit alone.

    Returns:
        "setting" (its name), "calibration" (its id), "fitted_on", "num_fitted" (events), "rows" (name, ECE, Brier, NLL,
        AURC), and the setting's own "onset", "offset", "num_reported" and "decisions"; None where it was not measured.
    """
    settings = _settings(results)
    names = [f"exit {exit_index}, {DEFAULT}"] if is_student else [f"auto, {DEFAULT}", f"exit {exit_index}, {DEFAULT}"]
    name = next((name for name in names if name in settings), None)
    if results is None or name is None:
        return None
    one, trust = settings[name], results["trust"]
    return {
        "setting": name,
        "calibration": trust["calibration"],
        "fitted_on": trust["fitted_on"],
        "num_fitted": sum(trust["fitted_on"]["num_events"].values()),
        "rows": [{"name": title, **one[kind]} for title, kind in SCORE_KINDS],
        **{key: one[key] for key in ("onset", "offset", "num_reported", "decisions")},
    }


def _settings(results: dict[str, Any] | None) -> dict[str, Any]:
    trust = None if results is None else results.get("trust")
    return {} if trust is None else trust["settings"]


def data_name(results: dict[str, Any]) -> str:
    """Last part of the path of the data that was measured on."""
    return str(results.get("data", "recordings")).rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]


def was_fitted_on(results: dict[str, Any] | None, config: dict[str, Any]) -> bool:
    """Whether the decoding was tuned, or the calibration fitted, on the split that was measured on."""
    if results is None:
        return False
    decoding, calibration = config.get("decoding"), config.get("calibration")
    fits = [
        {} if decoding is None else decoding.get("tuned_on", {}),
        {} if calibration is None else calibration["fitted_on"],
    ]
    measured_on = (data_name(results), results["split"])
    return any((fit.get("data"), fit.get("split")) == measured_on for fit in fits)


# ---- the front matter ------------------------------------------------------------------------------------------------


def eval_results(results: dict[str, Any], exit_index: int) -> list[EvalResult]:
    """The figures of one exit as the Hub's model-index knows them; figures that were not measured are left out."""
    rows = exit_rows(results, [exit_index])
    if not rows:
        return []
    figures = (
        ("f1", "Event-based F1 (macro, 200 ms collars)", rows[0]["event_f1"]),
        ("f1", "Segment-based F1 (micro, 1 s)", rows[0]["segment_f1"]),
        ("psds", "PSDS1", rows[0]["psds1"]),
        ("psds", "PSDS2", rows[0]["psds2"]),
    )
    return [
        EvalResult(
            task_type="audio-classification",
            task_name="Sound event detection",
            dataset_type=data_name(results),
            dataset_name=data_name(results),
            dataset_split=results["split"],
            metric_type=kind,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for kind, name, value in figures
        if value is not None
    ]


__all__ = [
    "check_results",
    "class_rows",
    "cost_rows",
    "data_name",
    "eval_results",
    "exit_rows",
    "label_names",
    "trust_figures",
    "was_fitted_on",
]
