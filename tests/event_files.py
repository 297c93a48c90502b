"""Detections that are hard to write down, and how to compare what comes back."""

import random

import numpy as np

from modeling_easysed import Detection, Event

AWKWARD_TEXTS = [
    "dog_bark",
    "tab\there",
    "new\nline",
    "carriage\rreturn",
    "both\r\n",
    'say "woof"',
    '"quoted"',
    '"open',
    "comma, semicolon; colon:",
    "=SUM(A1:A9)",
    "Grünfink 鳥 🐦",
    " spaces around ",
    "",
    "100%",
    "%20 %09 %25 %2509 %",
    "back\\slash \\n \\t \\",
    "C:\\new\\table.wav",
    "dog (score 0.5)",
    "dog (confidence 0.94, accept)",
    "dog (accept)",
    "dog ()",
    "<NA>",
    "NA",
    ";; no comment",
    "a\u2028b\x85c\xa0d\x1ce\x0bf",
]
AWKWARD_REASONS = [
    None,
    [],
    [""],
    ["", ""],
    ["short", "faint"],
    ["short; faint", "a;", ";b", " c "],
    ["\\", "\\;", "\\N", "\\e", "\\[]"],
    ["tab\t, comma and\nnew line"],
]


def make_event(label: str = "dog_bark", onset: float = 0.5, offset: float = 1.25, **fields) -> Event:
    return Event(onset, offset, label, **({"score": 0.91} | fields))


def full_event(label: str = "dog_bark", onset: float = 3.21, offset: float = 4.08, **fields) -> Event:
    """An event with every field."""
    values = {
        "score": 0.91,
        "confidence": 0.94,
        "confidence_low": 0.88,
        "confidence_high": 0.97,
        "onset_low": 3.17,
        "onset_high": 3.26,
        "offset_low": 4.01,
        "offset_high": 4.15,
        "uncertainty": {"total": 0.21, "aleatoric": 0.17, "epistemic": 0.04},
        "decision": "review",
        "reasons": ["unstable under time shift", "faint"],
        "exit": 3,
        "unfamiliarity": 1.5,
    }
    return Event(onset, offset, label, **(values | fields))


def make_detection(events: list[Event], file: str | None = "yard.wav", **fields) -> Detection:
    labels = sorted({event.label for event in events})
    values = {"duration": 5.0, "sampling_rate": 44100, "receipt": {"model": "tiny", "seed": 0, "exit": "auto"}}
    return Detection(events, np.arange(3) * 0.04, np.zeros((3, len(labels))), labels, file=file, **(values | fields))


def awkward_detections() -> dict[str, Detection]:
    """By name: one detection for each thing that can go wrong."""
    found = {
        "plain": make_detection([make_event(), full_event()]),
        "no events": make_detection([]),
        "no events, no file": make_detection([], file=None),
        "zero and tiny times": make_detection([make_event(onset=0.0, offset=0.000001, score=0.0)]),
        "days": make_detection([make_event(onset=172800.000001, offset=259200.123456)], duration=345600.0),
        "tiny numbers": make_detection([full_event(score=1e-06, confidence=0.0, unfamiliarity=-2.5)]),
        "decision alone": make_detection([make_event("dog (accept)", score=None, decision="reject")]),
        "warnings": make_detection([make_event()], warnings=["clipped: 3 %"], decision_rule=["accept from 0.9"]),
        "same onsets": make_detection([make_event("b"), make_event("a"), make_event("b", offset=2.0)]),
    }
    for text in AWKWARD_TEXTS:
        found[f"label {text!r}"] = make_detection([make_event(text), full_event(text)])
        found[f"bare label {text!r}"] = make_detection([make_event(text, score=None)])
        found[f"file {text!r}"] = make_detection([make_event()], file=text if text else None)
    for reasons in AWKWARD_REASONS:
        found[f"reasons {reasons}"] = make_detection([full_event(reasons=reasons), full_event("rain", reasons=reasons)])
        found[f"undecided {reasons}"] = make_detection([make_event(reasons=reasons)])
    return found


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Short texts of the characters that formats break at."""
    draw = random.Random(seed)
    return ["".join(draw.choices("ab% 0259\t\n\r\\;\"',()<>=Aé", k=draw.randint(1, 9))) for _ in range(count)]


def same_events(detections: list[Detection], expected: list[Detection], names: tuple[str, ...]) -> None:
    """Asserts that the named fields of all events are as expected, and that all others are None."""
    shown = [[event.to_dict() for event in one.events] for one in detections]
    wanted = [[event.to_dict() for event in one.events] for one in expected]
    assert shown == [[{key: row[key] if key in names else None for key in row} for row in one] for one in wanted]
