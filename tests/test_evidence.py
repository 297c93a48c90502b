"""Evidence of candidates, on recordings whose every sample, view and exit is set by hand."""

import numpy as np
import pytest

from modeling_easysed import EasySEDFeatureExtractor
from modeling_easysed.decoding_easysed import Box, candidate_boxes, frame_borders
from modeling_easysed.evidence_easysed import Evidence, find_candidates, frames_inside, gather_evidence, to_logit
from modeling_easysed.recording_easysed import FrameLine, RecordingSamples, frame_line

RATE, FRAME, HOP = 16000, 640, 160  # frames of 40 ms, log-mel frames of 10 ms
NUM_FRAMES, NUM_SAMPLES = 51, 32000  # 2 s
MIDDLE = Box(0.2, 1.8, 0, 0.9)  # frames 5 to 45


def make_evidence(**changes) -> Evidence:
    """A candidate of class 0 without doubt, from 1 to 2 s; other test files use it as well."""
    values = {
        "box": Box(1.0, 2.0, 0, 0.9),
        "exit_index": 1,
        "weakest_exit": 2.0,
        "exit_spread": 0.1,
        "sample_spread": 0.1,
        "shift_spread": 0.1,
        "onset_spread": 0.02,
        "offset_spread": 0.02,
        "onset_rise": 0.1,
        "offset_rise": 0.1,
        "overlap": 0.05,
        "contrast_db": 30.0,
        "total": 0.3,
        "aleatoric": 0.2,
        "epistemic": 0.1,
        "embedding": np.zeros(2),
    }
    return Evidence(**{**values, **changes})


def logit(probability) -> np.ndarray:
    wide = np.asarray(probability, np.float64)
    return np.log(wide / (1 - wide)).astype(np.float32)


def flat(*levels: float, classes: int = 2) -> np.ndarray:
    """Logits (samples, frames, classes): class 0 at the given probability in every sample, the others at 0.1."""
    values = np.full((len(levels), NUM_FRAMES, classes), 0.1)
    values[..., 0] = np.array(levels)[:, None]
    return logit(values)


def ramps(*centres: float | None, start: float = 0.0, length: float = 0.4) -> np.ndarray:
    """Logits (samples, frames, 1): 0.02 rising to 0.98 within `length` around each centre; None = never."""
    times = start + np.arange(NUM_FRAMES) * FRAME / RATE
    shares = [
        np.zeros(NUM_FRAMES) if centre is None else np.clip((times - centre) / length + 0.5, 0, 1) for centre in centres
    ]
    return logit(0.02 + 0.96 * np.stack(shares))[..., None]


def make_recording(views: dict[int, np.ndarray], **changes) -> RecordingSamples:
    num_samples, num_frames, num_classes = views[0].shape
    values = {
        "weights": np.full(num_samples, 1 / num_samples),
        "exit_logits": np.zeros((1, num_frames, num_classes)),
        "embeddings": np.zeros((num_frames, 1)),
        "frame_exits": np.ones(num_frames, int),
        "log_mel": np.zeros((NUM_SAMPLES // HOP + 1, 4)),
    }
    return RecordingSamples(
        views=views, frame_samples=FRAME, hop_samples=HOP, num_samples=NUM_SAMPLES, **{**values, **changes}
    )


def evidence_of(box: Box, recording: RecordingSamples, mel_std=None) -> Evidence:
    line = frame_line(recording)
    return gather_evidence([box], recording, line.probabilities, line, RATE, mel_std)[0]


DISTANCE = np.log(0.8 / 0.2) - np.log(0.6 / 0.4)  # of the levels 0.8 and 0.6, logits


def test_levels_are_logits_that_stay_finite():
    assert to_logit(0.8) == pytest.approx(np.log(4))
    assert to_logit(np.array([0.0, 1.0])) == pytest.approx([-np.log(999), np.log(999)])


def test_frames_inside_are_those_whose_centre_is():
    assert frames_inside(MIDDLE, 0.0, 0.04, NUM_FRAMES) == slice(5, 46)
    assert frames_inside(Box(0.19, 0.21, 0, 1.0), 0.0, 0.04, NUM_FRAMES) == slice(5, 6)
    assert frames_inside(MIDDLE, 0.03, 0.04, NUM_FRAMES) == slice(5, 45)  # 0.23 to 1.79
    # at least one, also for a box between two centres and at the end
    assert frames_inside(Box(0.21, 0.22, 0, 1.0), 0.0, 0.04, NUM_FRAMES) == slice(6, 7)
    assert frames_inside(Box(2.0, 2.01, 0, 1.0), 0.0, 0.04, NUM_FRAMES) == slice(50, 51)


def test_no_candidate_no_evidence():
    recording = make_recording({0: flat(0.5)})
    line = frame_line(recording)
    assert gather_evidence([], recording, line.probabilities, line, RATE, None) == []


# ---- levels ----------------------------------------------------------------------------------------------------------


def test_samples_that_disagree():
    found = evidence_of(MIDDLE, make_recording({0: flat(0.8, 0.6)}))
    assert found.sample_spread == pytest.approx(DISTANCE / 2, rel=1e-5)
    assert found.shift_spread == 0.0


def test_samples_have_weights():
    found = evidence_of(MIDDLE, make_recording({0: flat(0.8, 0.6)}, weights=np.array([0.75, 0.25])))
    assert found.sample_spread == pytest.approx(DISTANCE * np.sqrt(0.75 * 0.25), rel=1e-5)


def test_views_that_disagree():
    found = evidence_of(MIDDLE, make_recording({0: flat(0.8), 320: flat(0.6)}))
    assert found.shift_spread == pytest.approx(DISTANCE / 2, rel=1e-5)
    assert found.sample_spread == pytest.approx(0.0, abs=1e-6)


def test_samples_and_views_are_told_apart():
    found = evidence_of(MIDDLE, make_recording({0: flat(0.8, 0.6), 320: flat(0.6, 0.8)}))
    assert found.sample_spread == pytest.approx(DISTANCE / 2, rel=1e-5)
    assert found.shift_spread == pytest.approx(0.0, abs=1e-6)


def test_exits_that_were_not_computed_do_not_count():
    exit_logits = np.concatenate([flat(0.8), flat(0.6), np.full((1, NUM_FRAMES, 2), np.nan)])
    frame_exits = np.where(np.arange(NUM_FRAMES) < 25, 1, 2)  # the middle of 5 to 45 is 25
    found = evidence_of(MIDDLE, make_recording({0: flat(0.6)}, exit_logits=exit_logits, frame_exits=frame_exits))
    assert found.weakest_exit == pytest.approx(np.log(1.5), rel=1e-5)
    assert found.exit_spread == pytest.approx(DISTANCE / 2, rel=1e-5)
    assert found.exit_index == 2
    only = evidence_of(MIDDLE, make_recording({0: flat(0.6)}, exit_logits=flat(0.8)))
    assert (only.exit_spread, only.exit_index) == (0.0, 1)


def test_overlap_is_the_highest_other_class_inside():
    values = np.full((1, NUM_FRAMES, 3), 0.1)
    values[:, :, 0] = 0.9
    values[:, 5:46, 1], values[:, 5:46, 2] = 0.3, 0.45
    values[:, 47:] = 0.99  # outside
    assert evidence_of(MIDDLE, make_recording({0: logit(values)})).overlap == pytest.approx(0.45, rel=1e-5)
    alone = evidence_of(MIDDLE, make_recording({0: flat(0.9, classes=1)}))
    assert alone.overlap == 0.0


def test_contrast_is_the_loudest_tenth_over_the_floor():
    log_mel = np.full((201, 10), -3.0)
    log_mel[20:181, 4] += 2.0  # one band of ten, all the time inside: a tenth of the cells
    recording = make_recording({0: flat(0.9)}, log_mel=log_mel)
    assert evidence_of(MIDDLE, recording).contrast_db == pytest.approx(2.0)
    mel_std = [5.0] * 4 + [7.0] + [5.0] * 5
    assert evidence_of(MIDDLE, recording, mel_std).contrast_db == pytest.approx(14.0)
    log_mel[:, 4] -= log_mel[:, 4] + 3.0
    assert evidence_of(MIDDLE, recording).contrast_db == 0.0


@pytest.mark.parametrize("starts", [(0,), (0, 320)])
def test_entropies_and_embedding_are_means_inside(starts):
    recording = make_recording({start: flat(0.9) for start in starts}, embeddings=np.arange(51.0)[:, None])
    raw = frame_line(recording)
    total, aleatoric = np.full_like(raw.total, 0.9), np.full_like(raw.total, 0.1)
    inside = frames_inside(MIDDLE, 0.0, 0.04 if len(starts) == 1 else 0.01, len(total))
    total[inside, 0], aleatoric[inside, 0] = 0.5, 0.3
    found = gather_evidence(
        [MIDDLE], recording, raw.probabilities, FrameLine(raw.probabilities, total, aleatoric), RATE, None
    )[0]
    assert (found.total, found.aleatoric, found.epistemic) == pytest.approx((0.5, 0.3, 0.2))
    assert found.embedding == pytest.approx([25.0])


# ---- borders ---------------------------------------------------------------------------------------------------------

RISING = Box(0.8, 1.6, 0, 0.9)


def test_samples_with_the_same_border_have_no_spread():
    found = evidence_of(RISING, make_recording({0: ramps(0.8, 0.8)}))
    assert found.onset_spread == pytest.approx(0.0, abs=1e-5)


def test_the_spread_is_the_shift_of_the_samples_borders():
    assert evidence_of(RISING, make_recording({0: ramps(0.7, 0.9)})).onset_spread == pytest.approx(0.1, abs=1e-5)
    three = evidence_of(RISING, make_recording({0: ramps(0.7, 0.9, 0.8)}))
    assert three.onset_spread == pytest.approx(0.1 * np.sqrt(2 / 3), abs=1e-5)
    weights = np.array([0.25, 0.25, 0.5])
    weighted = evidence_of(RISING, make_recording({0: ramps(0.7, 0.9, 0.8)}, weights=weights))
    assert weighted.onset_spread == pytest.approx(0.1 * np.sqrt(1 / 2), abs=1e-5)


def test_views_hear_the_same_border_on_their_own_grids():
    views = {start: ramps(0.8, start=start / RATE) for start in (0, 160, 320, 480)}
    assert evidence_of(RISING, make_recording(views)).onset_spread == pytest.approx(0.0, abs=1e-5)
    views[320] = ramps(0.9, start=0.02)
    views[480] = ramps(0.7, start=0.03)
    assert evidence_of(RISING, make_recording(views)).onset_spread == pytest.approx(0.1 / np.sqrt(2), abs=1e-5)


def test_offsets_are_crossings_downwards():
    falling = np.flip(ramps(0.7, 0.9), axis=1)  # in 2 s: falls at 1.3 and 1.1
    found = evidence_of(Box(0.4, 1.2, 0, 0.9), make_recording({0: falling}))
    assert found.offset_spread == pytest.approx(0.1, abs=1e-5)
    assert found.onset_spread == pytest.approx(0.5)  # nothing rises


def test_a_sample_without_a_border_counts_as_out_of_reach():
    # the mean line is (0.5 + 0.02) / 2 = 0.26 at 0.8 s, where the first sample's ramp was 0.1 s before
    found = evidence_of(RISING, make_recording({0: ramps(0.8, None)}))
    assert found.onset_spread == pytest.approx(np.sqrt((0.1**2 + 0.5**2) / 2), abs=1e-5)


@pytest.mark.parametrize(("length", "slope"), [(0.4, 0.96 / 0.4), (0.04, 0.96 / 0.08)])
def test_the_rise_is_the_level_over_the_slope(length, slope):
    found = evidence_of(RISING, make_recording({0: ramps(0.8, length=length)}))
    assert found.onset_rise == pytest.approx(0.98 / slope, rel=1e-4)
    assert found.offset_rise == 0.5  # flat there: the most there is


# ---- candidates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("starts", [(0,), (0, 160, 320, 480)])
def test_candidates_are_the_decoded_boxes_above_the_floor(starts):
    values = np.full((1, NUM_FRAMES, 2), 0.01)
    values[:, 5:15, 0], values[:, 30:45, 0], values[:, 20:40, 1] = 0.9, 0.2, 0.6
    recording = make_recording({start: logit(values) for start in starts})
    line, extractor = frame_line(recording), EasySEDFeatureExtractor(feature_size=32)
    found = find_candidates(recording, line.probabilities, line, None, 2.0, 0.3, extractor)
    probabilities = line.probabilities
    borders = frame_borders(len(probabilities), 0.04 if len(starts) == 1 else 0.01, 2.0)
    expected = [box for box in candidate_boxes(probabilities, borders) if box.score > 0.3]
    assert [one.box for one in found] == expected
    assert [box.class_index for box in expected] == [0, 1]
    everything = find_candidates(recording, line.probabilities, line, None, 2.0, 0.0, extractor)
    assert sorted(one.box.score for one in everything) == pytest.approx([0.2, 0.6, 0.9], abs=0.01)
