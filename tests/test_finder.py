"""Events of a growing line against those of the finished one."""

from dataclasses import fields

import numpy as np
import pytest
from test_recording import EXTRACTOR

from modeling_easysed.decoding_easysed import Box
from modeling_easysed.evidence_easysed import Evidence, find_candidates
from modeling_easysed.finder_easysed import FLOOR_S, LONGEST_PIECE_S, EventFinder, FloorMeter, joined
from modeling_easysed.listening_easysed import Heard
from modeling_easysed.recording_easysed import RecordingSamples, frame_line

FRAME_SAMPLES, RATE = 640, 16000
FRAME_S = FRAME_SAMPLES / RATE


def make_logits(seed: int, duration_s: float, num_classes: int = 3) -> np.ndarray:
    """(2 samples, frames, classes): bursts of 0.2 to 8 s between silences of 0.3 to 4 s."""
    rng, num_frames = np.random.default_rng(seed), round(duration_s / FRAME_S)
    logits = rng.normal(-7.0, 0.4, (2, num_frames, num_classes))
    for index in range(num_classes):
        frame = 0
        while frame < num_frames:
            frame += int(rng.uniform(0.3, 4.0) / FRAME_S)
            length = int(rng.uniform(0.2, 8.0) / FRAME_S)
            knots = np.arange(0, length + 10, 10)
            bumps = np.interp(np.arange(length), knots, rng.normal(1.0, 2.0, len(knots)))
            piece = logits[:, frame : frame + length, index]
            piece[:] = bumps[: piece.shape[1]] + rng.normal(0, 0.1, piece.shape)
            frame += length
    return logits.astype(np.float32)


def recording_of(logits: np.ndarray, start: int, stop: int, shifts: tuple[int, ...] = (0,)) -> RecordingSamples:
    """Frames start to stop; the views differ by a constant."""
    own, rng = logits[:, start:stop], np.random.default_rng(0)
    mel = rng.normal(size=(4 * logits.shape[1], 32)).astype(np.float32)
    return RecordingSamples(
        views={shift: own + 0.01 * number for number, shift in enumerate(shifts)},
        weights=np.array([0.5, 0.5], np.float32),
        exit_logits=own,
        embeddings=np.tile(own[0], (1, 2)),
        frame_exits=np.arange(start, stop) % 2 + 1,
        frame_samples=FRAME_SAMPLES,
        hop_samples=160,
        num_samples=(stop - start - 1) * FRAME_SAMPLES,
        log_mel=mel[4 * start : 4 * stop],
    )


def found_in_blocks(
    logits: np.ndarray, seed: int, floor: float = 0.1, shifts: tuple[int, ...] = (0,)
) -> tuple[list[Evidence], int]:
    """What the finder gives when the line grows in random steps, and the most frames that were kept."""
    rng, finder, heard = np.random.default_rng(seed), EventFinder(None, floor, EXTRACTOR), Heard()
    num_frames, start, found, longest = logits.shape[1], 0, [], 0
    while start < num_frames:
        stop = min(num_frames, start + int(rng.integers(2, 250)))
        is_last = stop == num_frames
        num_samples = (num_frames - 1) * FRAME_SAMPLES
        heard.add(recording_of(logits, start, stop, shifts), num_samples if is_last else None)
        found += finder.update(heard, num_samples / RATE if is_last else None)
        heard.forget(finder.needed_from(heard))
        longest, start = max(longest, len(heard.recording.frame_exits)), stop
    return sorted(found, key=lambda one: one.box), longest


def found_at_once(logits: np.ndarray, floor: float = 0.1, shifts: tuple[int, ...] = (0,)) -> list[Evidence]:
    recording = recording_of(logits, 0, logits.shape[1], shifts)
    line = frame_line(recording)
    return find_candidates(recording, line.probabilities, line, None, recording.num_samples / RATE, floor, EXTRACTOR)


@pytest.mark.parametrize("shifts", [(0,), (0, 160, 320)])
@pytest.mark.parametrize("seed", range(4))
def test_a_growing_line_gives_the_events_of_the_finished_one(seed, shifts):
    logits = make_logits(seed, 240.0)
    expected = found_at_once(logits, shifts=shifts)
    found, longest = found_in_blocks(logits, seed, shifts=shifts)
    assert len(expected) > 60 and longest < LONGEST_PIECE_S / FRAME_S + 250
    assert np.array([one.box for one in found]) == pytest.approx(np.array([one.box for one in expected]), abs=1e-6)
    for own, other in zip(found, expected, strict=True):
        for name in (field.name for field in fields(Evidence) if field.name not in ("box", "contrast_db")):
            assert getattr(own, name) == pytest.approx(getattr(other, name), abs=1e-4), name


def test_an_event_of_minutes_is_one_event_and_what_is_kept_stays_bounded():
    logits = np.full((2, round(400 / FRAME_S), 1), -8.0, np.float32)
    logits[:, 100 : round(350 / FRAME_S)] = 2.0
    found, longest = found_in_blocks(logits, 0)
    assert [one.box.onset for one in found] == [pytest.approx(99.5 * FRAME_S)]
    assert found[0].box.offset == pytest.approx(350.0 - FRAME_S / 2)
    assert found[0].box.score == pytest.approx(found_at_once(logits)[0].box.score, abs=1e-4)
    assert longest < LONGEST_PIECE_S / FRAME_S + 250


def test_two_events_with_a_faint_hum_between_them_stay_two():
    logits = np.full((2, round(200 / FRAME_S), 1), -3.0, np.float32)  # 0.047: never silent
    logits[:, 100:200] = logits[:, 4000:4100] = 3.0
    found, _ = found_in_blocks(logits, 1, floor=0.3)
    expected = found_at_once(logits, floor=0.3)
    assert np.array([one.box for one in found]) == pytest.approx(np.array([one.box for one in expected]), abs=1e-3)
    assert len(found) == 2


def test_what_still_sounds_can_be_asked_for_and_is_not_reported_yet():
    logits = np.full((2, 500, 2), -8.0, np.float32)
    logits[:, 100:200, 0] = logits[:, 300:500, 1] = 3.0
    finder, heard = EventFinder(None, 0.3, EXTRACTOR), Heard()
    heard.add(recording_of(logits, 0, 450), None)
    assert finder.sounding(heard) == []  # nothing was looked at yet
    assert [one.box.class_index for one in finder.update(heard)] == [0]
    (sounding,) = finder.sounding(heard)
    assert sounding.box.onset == pytest.approx(299.5 * FRAME_S) and sounding.box.class_index == 1
    assert sounding.box.offset == pytest.approx(449.5 * FRAME_S)
    heard.add(recording_of(logits, 450, 500), 499 * FRAME_SAMPLES)
    (event,) = finder.update(heard, 499 * FRAME_S)
    assert (event.box.onset, event.box.offset) == pytest.approx((299.5 * FRAME_S, 499 * FRAME_S))


def test_two_parts_are_joined_by_their_durations():
    logits = np.tile(np.repeat([-8.0, 3.0, -8.0, 1.0, -8.0], 50), (2, 1))[..., None]
    (first, second), _ = found_in_blocks(logits, 3)
    one = joined(first, second)
    score = (first.box.score + second.box.score) / 2
    assert one.box == Box(first.box.onset, second.box.offset, 0, pytest.approx(score, abs=1e-3))
    assert one.weakest_exit == min(first.weakest_exit, second.weakest_exit)
    assert one.offset_spread == second.offset_spread and one.onset_spread == first.onset_spread
    assert one.embedding == pytest.approx((first.embedding + second.embedding) / 2, abs=0.2)


def test_the_floor_is_that_of_the_last_minute():
    meter, frames = FloorMeter(0.01, [2.0] * 3), np.random.default_rng(0).normal(size=(20000, 3)).astype(np.float32)
    frames[:10000] -= 50.0
    for first in range(0, 20000, 700):
        start = max(0, first - 300)  # some frames are seen again
        meter.add(frames[start : first + 700], start)
    recent = frames[-round(FLOOR_S / 0.01) :]
    assert meter.floor_db() == pytest.approx(2.0 * np.quantile(recent, 0.1, axis=0), abs=0.15)
    assert len(meter.kept) == FLOOR_S / 0.01 / 4
