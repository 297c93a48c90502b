"""The page's modules, one by one, against Python on the same numbers: the page is Python's pipeline in another
language, so every part must give what its original gives."""

import dataclasses
import json
import re

import numpy as np
import pytest
from web_browser import call, packed, page_of_modules

from modeling_easysed import SoundEventDetectionPipeline
from modeling_easysed.calibration_easysed import Judgement
from modeling_easysed.decoding_easysed import PARAMETERS, Box, candidate_boxes, class_parameters, frame_borders
from modeling_easysed.evidence_easysed import Evidence, gather_evidence
from modeling_easysed.export.description import calibration_of, decisions_of
from modeling_easysed.export.to_web import words
from modeling_easysed.judging_easysed import Judge
from modeling_easysed.reasons_easysed import LIMITS, reasons_for
from modeling_easysed.recording_easysed import RecordingSamples, frame_line
from modeling_easysed.sampling_easysed import Sampling
from modeling_easysed.shifts_easysed import view_starts
from modeling_easysed.windows_easysed import kept_parts, plan_windows

LABELS = ["dog_bark", "rain", "rooster"]
RATE, HOP, FRAME = 16000, 160, 640
EXIT = 1
SETTING = "mc+shifts"


@pytest.fixture(scope="module")
def page():
    with page_of_modules() as opened:
        yield opened


@pytest.fixture(scope="module")
def pipe():
    return SoundEventDetectionPipeline.from_pretrained("easysed-cnn", device="cpu")


def curves(num_frames: int, seed: int, num_classes: int = 3) -> np.ndarray:
    """Probabilities (frames, classes) with events, ripples, silences and flat stretches."""
    random = np.random.default_rng(seed)
    steps = random.standard_normal((num_frames, num_classes)).cumsum(axis=0) * 0.35 + random.normal(-1, 2, num_classes)
    values = 1 / (1 + np.exp(-steps - 0.3 * random.standard_normal(steps.shape)))
    values[random.random(num_frames) < 0.02] = 0.5
    start = random.integers(0, num_frames)
    values[start : start + random.integers(0, 200)] *= 0.01
    return np.round(values, random.integers(1, 7)).astype(np.float32)


# ---- windows and lines -----------------------------------------------------------------------------------------------


def test_windows_and_views_are_planned_as_in_python(page):
    sizes = {"window_frames": 200, "context_frames": 60, "frame_stride": 4}
    numbers = [1, 4, 199, 200, 201, 279, 280, 281, 1003, 5000]
    given = call(page, "recording", """({ planWindows, keptParts }, { numbers, sizes }) => numbers.map((number) => {
        const windows = planWindows(number, sizes);
        return [windows, keptParts(windows.map(([start, stop]) => Math.ceil((stop - start) / 4)), windows, sizes)];
    })""", numbers=numbers, sizes=sizes)  # fmt: skip
    for number, (windows, kept) in zip(numbers, given, strict=True):
        expected = plan_windows(number, *sizes.values())
        frames = [-(-(stop - start) // 4) for start, stop in expected]
        assert [tuple(one) for one in windows] == expected
        assert [slice(*one) for one in kept] == kept_parts(frames, expected, 60, 4)
    about = {"audio": {"sampling_rate": RATE, "frame_samples": FRAME}, "shifts": {"steps": 2, "step_s": 0.03}}
    for shifts in range(17):
        starts = call(page, "recording", "({ viewStarts }, { about, shifts }) => viewStarts(about, shifts)",
                      about=about, shifts=shifts)  # fmt: skip
        assert starts == view_starts(shifts, RATE, FRAME)


def recording(seed: int, starts: tuple[int, ...] = (0, 160, 320, 480)) -> RecordingSamples:
    """A recording of three classes, two exits and twenty passes with random logits."""
    random = np.random.default_rng(seed)
    frames, passes = int(random.integers(30, 300)), 20
    base = random.standard_normal((frames, 3)).cumsum(axis=0) * 0.8 - 1.0
    views = {}
    for start in starts:
        logits = base + 0.5 * random.standard_normal((passes, 1, 3)) + 0.2 * random.standard_normal((passes, frames, 3))
        views[start] = logits.astype(np.float32)
    return RecordingSamples(
        views=views,
        weights=np.full(passes, 1.0 / passes, np.float32),
        exit_logits=(base + random.standard_normal((2, frames, 3))).astype(np.float32),
        embeddings=random.standard_normal((frames, 5)).astype(np.float32),
        frame_exits=np.full(frames, 2),
        frame_samples=FRAME,
        hop_samples=HOP,
        num_samples=(frames - 1) * FRAME + int(random.integers(0, FRAME)),
        log_mel=random.standard_normal((4 * frames, 6)).astype(np.float32),
    )


def handed(one: RecordingSamples) -> dict:
    """The same for the page; its views become a Map there."""
    return {
        "views": [[start, packed(logits)] for start, logits in one.views.items()],
        "passes": 20,
        "numClasses": 3,
        "exits": packed(one.exit_logits),
        "numExits": 2,
        "frames": len(one.embeddings),
        "embeddings": packed(one.embeddings),
        "width": 5,
        "logMel": packed(one.log_mel),
        "mels": 6,
        "frameSamples": FRAME,
        "hopSamples": HOP,
        "numSamples": one.num_samples,
    }


@pytest.mark.parametrize("starts", [(0,), (0, 160, 320, 480)])
@pytest.mark.parametrize("temperature", [1.0, 1.3])
def test_lines_of_random_recordings_are_those_of_python(page, starts, temperature):
    for seed in range(5):
        one = recording(seed, starts)
        line = frame_line(one, np.full(len(one.embeddings), temperature))
        given = call(page, "recording", "({ frameLine }, { one, temperature }) => "
                     "frameLine({ ...one, views: new Map(one.views) }, temperature)",
                     one=handed(one), temperature=temperature)  # fmt: skip
        assert given["points"] == len(line.probabilities)
        for name, expected in line._asdict().items():
            assert np.abs(np.array(given[name]) - expected.ravel()).max() < 1e-5, name


# ---- decoding --------------------------------------------------------------------------------------------------------


def random_decoding(method: str, random: np.random.Generator) -> dict:
    values = {
        "filter_s": random.choice([0.0, 0.1, 0.26, 0.28, 0.7]),
        "absolute_limit": random.uniform(0, 0.4),
        "relative_limit": random.uniform(1, 10),
        "edge_level": random.uniform(0, 0.9),
        "score_quantile": random.uniform(0, 1),
        "min_duration_s": random.choice([0.0, 0.08, 0.3]),
        "threshold": random.uniform(0, 1),
        "median_s": random.choice([0.0, 0.1, 0.44]),
        "low_ratio": random.uniform(0, 1),
        "max_gap_s": random.choice([0.0, 0.2, 1.0]),
    }
    default = {name: float(value) for name, value in values.items() if name in PARAMETERS[method]}
    return {"method": method, "default": default, "classes": {"1": {"threshold": 0.3, "min_duration_s": 0.0}}}


@pytest.mark.parametrize("method", ["boxes", "threshold"])
@pytest.mark.parametrize("frame_s", [0.01, 0.04])
def test_boxes_of_random_curves_are_those_of_python(page, method, frame_s):
    count = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        values, decoding = curves(int(random.integers(1, 700)), seed), random_decoding(method, random)
        borders = frame_borders(
            len(values), frame_s, (len(values) - random.uniform(0.3, 0.9)) * frame_s + 0.3 * frame_s
        )
        parameters = {name: column.tolist() for name, column in class_parameters(decoding, 3).items()}
        given = call(page, "decoding", "({ candidateBoxes }, { values, borders, decoding }) => "
                     "candidateBoxes(values, 3, borders, decoding)", values=packed(values), borders=packed(borders),
                     decoding={"method": method, "parameters": parameters})  # fmt: skip
        boxes = [
            (one["onset"], one["offset"], one["classIndex"], pytest.approx(one["score"], abs=1e-12)) for one in given
        ]
        assert boxes == [tuple(one) for one in candidate_boxes(values, borders, decoding)], seed
        count += len(boxes)
    assert count > 100


def test_borders_of_frames_are_those_of_python(page):
    given = call(page, "decoding", "({ frameBorders }) => frameBorders(251, 0.04, 10.003)")
    assert given == pytest.approx(frame_borders(251, 0.04, 10.003), abs=1e-12)


# ---- evidence, calibration, decisions, reasons -----------------------------------------------------------------------

FIELDS = [one.name for one in dataclasses.fields(Evidence) if one.name not in ("box", "exit_index", "embedding")]


@pytest.mark.parametrize("starts", [(0,), (0, 160, 320, 480)])
def test_evidence_of_random_recordings_is_that_of_python(page, starts):
    count, elsewhere = 0, 0
    for seed in range(12):
        one = recording(seed, starts)
        raw, line = frame_line(one), frame_line(one, np.full(len(one.embeddings), 1.2))
        duration = one.num_samples / RATE
        step_s = (FRAME if len(starts) == 1 else HOP) / RATE
        boxes = candidate_boxes(raw.probabilities, frame_borders(len(raw.total), step_s, duration))
        mel_std = np.linspace(8, 14, 6).tolist()
        expected = gather_evidence(boxes, one, raw.probabilities, line, RATE, mel_std)
        given = call(page, "recording evidence", """({ frameLine, gatherEvidence }, { one, boxes, about }) => {
            const recording = { ...one, views: new Map(one.views) };
            return gatherEvidence(boxes, recording, frameLine(recording), frameLine(recording, 1.2), about);
        }""", one=handed(one), boxes=[as_box(box) for box in boxes],
            about={"rate": RATE, "melStd": mel_std, "exit": 2})  # fmt: skip
        for mine, theirs in zip(given, expected, strict=True):
            assert mine["exit"] == theirs.exit_index
            assert mine["embedding"] == pytest.approx(theirs.embedding, abs=1e-5)
            for name in FIELDS:
                is_equal = mine[name] == pytest.approx(getattr(theirs, name), abs=2e-4)
                assert is_equal or name in ("onset_spread", "offset_spread"), (seed, name)
                elsewhere += not is_equal
        count += len(boxes)
    # A curve that just touches a level crosses it or not by the last bit: then one of its 80 crossings is elsewhere.
    assert count > 30 and elsewhere <= 0.02 * count


def as_box(box: Box) -> dict:
    return {"onset": box.onset, "offset": box.offset, "classIndex": box.class_index, "score": box.score}


def random_evidence(count: int, directions: np.ndarray) -> list[Evidence]:
    """Candidates of as many classes as there are directions (classes, width), along which embeddings lie."""
    random, found = np.random.default_rng(3), []
    num_classes, width = directions.shape
    for _ in range(count):
        onset = float(random.choice([0.0, random.uniform(0, 8)]))
        offset = float(random.choice([10.0, onset + random.uniform(0.05, 2)]))
        box = Box(onset, offset, int(random.integers(num_classes)), float(random.uniform(0, 1)))
        levels = random.uniform(0, [1, 1, 0.5, 0.5, 0.5, 0.5, 1]).tolist()
        total = random.uniform(0, 0.69)
        exits = {"exit_index": EXIT, "weakest_exit": random.uniform(-6.9, 6.9), "exit_spread": 0.0}
        names = (
            "sample_spread",
            "shift_spread",
            "onset_spread",
            "offset_spread",
            "onset_rise",
            "offset_rise",
            "overlap",
        )
        nats = {"total": total, "aleatoric": 0.9 * total, "epistemic": 0.1 * total}
        embedding = random.uniform(0, 3) * directions[box.class_index] + random.normal(0, 0.05, width)
        rest = {"contrast_db": random.uniform(0, 50), "embedding": embedding, **nats}
        found.append(Evidence(box, **exits, **dict(zip(names, levels, strict=True)), **rest))
    return found


def as_evidence(one: Evidence) -> dict:
    numbers = {name: getattr(one, name) for name in FIELDS}
    return {"box": as_box(one.box), "exit": one.exit_index, "embedding": one.embedding.tolist(), **numbers}


@pytest.mark.parametrize("duration", [10.0, float("inf")])
def test_events_of_random_candidates_are_those_of_python(page, pipe, duration):
    """Calibration, decisions and reasons of the bundled checkpoint on 300 candidates, many of them strange."""
    judge = pipe.judge(EXIT, Sampling("mc"), 2)
    linear = pipe.calibration.familiarity[EXIT].linear  # against it lies what is familiar
    found = random_evidence(300, -linear / np.linalg.norm(linear, axis=1, keepdims=True))
    warnings = ["noisy: made up", "min_precision: of no event"]
    expected = [one.to_dict() for one in judge.events(found, warnings, duration)]
    description = {
        "labels": judge.labels,
        "decoding": {"parameters": {"threshold": judge.thresholds.tolist()}},
        "calibration": calibration_of(pipe, EXIT),
        "rule": decisions_of(pipe, EXIT)[SETTING],
    }
    given = call(page, "calibration judging", """({ Calibration, Judge }, given) => {
        const { about, found, warnings, words, duration } = given;
        const calibration = new Calibration(about.calibration, 1, "mc+shifts", about.labels);
        const judge = new Judge(about, words, calibration, about.rule);
        return judge.events(found, warnings, duration ?? Infinity);
    }""", about=json.loads(json.dumps(description)), found=[as_evidence(one) for one in found], warnings=warnings,
        words=words(), duration=None if duration == float("inf") else duration)  # fmt: skip
    assert len(given) == len(expected) > 150
    for mine, theirs in zip(given, expected, strict=True):
        assert list(mine) == list(theirs)
        for name, value in theirs.items():
            if isinstance(value, float) and value != float("inf"):
                assert mine[name] == pytest.approx(value, abs=2e-5), name
            elif name == "uncertainty":
                assert mine[name] == pytest.approx(value, abs=1e-6)
            elif name not in ("offset_high",):
                assert mine[name] == value, name
    assert {one["decision"] for one in given} == {"accept", "review", "reject"}
    assert len({re.sub(r"[\d.]+", "", reason) for one in given for reason in one["reasons"]}) >= 7


def test_every_reason_is_said_in_the_words_of_python(page):
    """All combinations of limits, borders, familiarity, calibration and needed confidence, with a made-up judgement."""
    random, cases = np.random.default_rng(8), []
    evidence = random_evidence(200, np.zeros((3, 5)))
    limits = {name: 0.4 for name in LIMITS}
    limits["contrast"] = 20.0
    for one in evidence:
        flags = (bool(random.random() < 0.2), bool(random.random() < 0.3), bool(random.random() < 0.8))
        confidence = float(random.choice([0.9, 0.959, 0.9599, 0.95999, 0.9599999, 0.3]))
        judgement = Judgement(confidence, 0, 1, 0, 0, 0, 0, 0.0, *flags)
        needed = float(random.choice([0.96, 0.96, 1.01]))
        decision = str(random.choice(["accept", "review", "reject"]))
        cases.append((one, judgement, decision, needed))
    quiet = [
        dataclasses.replace(one, **{limit[0]: 0.0 if limit[1] else 40.0 for limit in LIMITS.values()})
        for one in evidence
    ]
    cases += [(mine, *rest) for mine, (_, *rest) in zip(quiet, cases, strict=True)]
    expected = [reasons_for(one, judged, decision, limits, [], 10.0, needed) for one, judged, decision, needed in cases]
    rows = [
        {
            "one": as_evidence(one),
            "judgement": {"confidence": judged.confidence, "isUnfamiliar": judged.is_unfamiliar,
                          "seemsUnfamiliar": judged.seems_unfamiliar, "isCalibrated": judged.is_calibrated},
            "decision": decision, "needed": needed,
        }
        for one, judged, decision, needed in cases
    ]  # fmt: skip
    given = call(page, "judging", """({ Judge }, { rows, words, limits }) => {
        const about = { labels: [], decoding: { parameters: {} } };
        const judge = new Judge(about, words, { fitted: { reason_limits: limits } }, undefined);
        return rows.map((row) => judge.reasons(row.one, row.judgement, row.decision, [], 10, row.needed));
    }""", rows=rows, words=words(), limits=limits)  # fmt: skip
    assert given == expected
    assert any("0.9599" in reason for reasons in given for reason in reasons)
    assert any("at no confidence" in reason for reasons in given for reason in reasons)


def test_without_calibration_events_carry_scores_alone(page):
    found = random_evidence(3, np.zeros((3, 5)))
    given = call(page, "judging", """({ Judge }, { found, words }) => {
        const about = { labels: ["a", "b", "c"], decoding: { parameters: { threshold: [0.1, 0.2, 0.3] } } };
        const judge = new Judge(about, words, null, undefined);
        return [judge.events(found, [], 10), judge.floor(1)];
    }""", found=[as_evidence(one) for one in found], words=words())  # fmt: skip
    judge = Judge.__new__(Judge)
    judge.labels, judge.calibration = ["a", "b", "c"], None
    expected = [one.to_dict() for one in judge.events(found, [], 10.0)]
    assert given == [[{**one, "uncertainty": pytest.approx(one["uncertainty"])} for one in expected], 0.2]
