"""Soundscape mixing: events are found where they are, labels agree with the signal, everything reproduces."""

import csv

import numpy as np
import pytest
import soundfile
from data import Clip
from soundscapes import (
    Recipe,
    SoundscapeMixer,
    colored_noise,
    find_events,
    frame_targets,
    random_variant,
    reverberated,
    trim_silence,
    write_soundscapes,
)

RATE = 16000


def bursts(*spans: tuple[float, float], duration_s: float = 5.0, background: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(int(duration_s * RATE)) * background
    for onset, offset in spans:
        samples[int(onset * RATE) : int(offset * RATE)] += (
            rng.standard_normal(int(round((offset - onset) * RATE))) * 0.3
        )
    return samples.astype(np.float32)


def mixer(recipe: Recipe | None = None) -> SoundscapeMixer:
    clips = [
        Clip(bursts((1.0, 1.5)), "dog_bark", "a.ogg"),
        Clip(bursts((0.0, 5.0)), "rain", "b.ogg"),
        Clip(bursts((0.5, 2.0)), "rooster", "c.ogg"),
        Clip(bursts((0.2, 0.9)), None, "outside.ogg"),
    ]
    return SoundscapeMixer(clips, RATE, Recipe(num_variants=2) if recipe is None else recipe, seed=0)


def test_finds_events_within_a_frame():
    found = find_events(bursts((1.0, 1.4), (3.0, 3.25)), RATE, threshold_db=30, gap_s=0.3, min_duration_s=0.08)
    np.testing.assert_allclose(found, [(1.0, 1.4), (3.0, 3.25)], atol=0.021)


def test_short_pauses_belong_to_the_event():
    samples = bursts((1.0, 1.4), (1.6, 2.0))
    assert len(find_events(samples, RATE, 30, gap_s=0.3, min_duration_s=0.08)) == 1
    assert len(find_events(samples, RATE, 30, gap_s=0.1, min_duration_s=0.08)) == 2
    assert find_events(samples, RATE, 30, gap_s=0.1, min_duration_s=0.5) == []


def test_loud_background_does_not_become_the_event():
    found = find_events(bursts((1.0, 1.4), background=0.03), RATE, threshold_db=30, gap_s=0.3, min_duration_s=0.08)
    np.testing.assert_allclose(found, [(1.0, 1.4)], atol=0.021)


def test_nothing_to_find():
    assert find_events(np.zeros(10, dtype=np.float32), RATE, 30, 0.3, 0.08) == []
    assert find_events(np.zeros(RATE, dtype=np.float32), RATE, 30, 0.3, 0.08) == []
    assert len(trim_silence(np.zeros(5, dtype=np.float32))) == 5


def test_trims_silence_at_the_ends_only():
    samples = np.array([0, 0, 0.1, 0, 0.1, 0], dtype=np.float32)
    np.testing.assert_array_equal(trim_silence(samples), samples[2:5])


@pytest.mark.parametrize("slope_db", [-6.0, -3.0, 0.0])
def test_noise_has_the_slope_it_was_asked_for(slope_db):
    noise = colored_noise(2**17, slope_db, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [10 * np.log10(power[2**k : 2 ** (k + 1)].mean()) for k in range(10, 16)]
    assert np.polyfit(range(6), octaves, 1)[0] == pytest.approx(slope_db, abs=0.4)
    assert noise.std() == pytest.approx(1.0, abs=1e-3)


def test_soundscapes_reproduce_and_differ():
    first, again = mixer().mix(3, 7), mixer().mix(3, 7)
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.events == again.events
    assert not np.array_equal(first.samples, mixer().mix(3, 8).samples)
    assert not np.array_equal(first.samples, mixer().mix(4, 7).samples)


def test_soundscapes_keep_the_recipe():
    recipe = Recipe(num_variants=1, max_polyphony=2, num_events=[0, 0, 0, 1])
    mixed = mixer(recipe)
    for number in range(30):
        scape = mixed.mix(0, number)
        assert scape.samples.shape == (160000,) and scape.samples.dtype == np.float32
        assert np.abs(scape.samples).max() <= 0.8 + 1e-6
        assert scape.events == sorted(scape.events)
        for onset, offset, label, source, snr_db in scape.events:
            assert 0 <= onset < offset <= 10 and label in mixed.labels and source.endswith(".ogg")
            assert -0.1 <= snr_db <= 28.1
            meeting = [e for e in scape.events if e[0] < offset and onset < e[1]]
            assert len({e[2] for e in meeting}) == len(meeting)


def test_labels_lie_on_the_sound():
    recipe = Recipe(num_variants=1, num_events=[0, 1], snr_db=(25, 28), num_outside=[1])
    mixed = mixer(recipe)
    for number in range(10):
        scape = mixed.mix(1, number)
        onset, offset = scape.events[0][:2]
        inside = scape.samples[int(onset * RATE) : int(offset * RATE)]
        before, after = scape.samples[: int(onset * RATE)], scape.samples[int(offset * RATE) :]
        assert inside.std() > 8 * np.concatenate([before, after]).std()


def test_outside_sounds_carry_no_label():
    recipe = Recipe(num_variants=1, num_events=[1], num_outside=[0, 1], snr_db=(25, 28))
    scape = mixer(recipe).mix(0, 0)
    assert scape.events == []
    blocks = scape.samples.reshape(-1, 1600).std(1)
    assert blocks.max() > 5 * np.median(blocks)


def test_frame_targets_by_hand():
    """Frames of 40 ms around 0, 0.04, 0.08, ...: frame 1 covers [0.02, 0.06], a quarter of it before 0.03."""
    events = [(0.03, 0.10, "rain", "", 0.0)]
    targets = frame_targets(events, ["dog_bark", "rain"], 5, 0.04)
    np.testing.assert_allclose(targets[:, 1], [0, 0.75, 1, 0, 0], atol=1e-6)
    assert not targets[:, 0].any()


def test_writes_a_fixed_set(tmp_path):
    write_soundscapes(mixer(), 4, 0, tmp_path, "train")
    with (tmp_path / "train.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["filename"] for row in rows} == {f"train_{n:04d}.flac" for n in range(4)}
    expected = mixer().mix(0, 2)
    written, rate = soundfile.read(tmp_path / "audio" / "train" / "train_0002.flac")
    assert rate == RATE
    np.testing.assert_allclose(written, expected.samples, atol=1e-4)
    onsets = [float(row["onset"]) for row in rows if row["filename"] == "train_0002.flac" and row["onset"]]
    assert onsets == [event[0] for event in expected.events]


def test_no_events_is_an_error():
    with pytest.raises(ValueError, match="no events found in 1 clips"):
        SoundscapeMixer([Clip(np.zeros(100, dtype=np.float32), "dog_bark", "x")], RATE, Recipe(num_variants=1))


def test_a_room_adds_a_decaying_tail():
    click = np.zeros(16000, dtype=np.float32)
    click[1000] = 1.0
    wet = reverberated(click, 0.5, -6.0, np.random.default_rng(0))
    assert wet.shape == click.shape and wet[1000] == pytest.approx(1.0, abs=1e-4)
    assert np.abs(wet[:1000]).max() < 1e-4  # nothing before the sound
    tail = np.square(wet[1001:9000])
    assert tail.sum() == pytest.approx(10**-0.6, rel=0.02)
    early, late = np.log10(tail[:800].mean()), np.log10(tail[4000:4800].mean())
    assert 10 * (early - late) == pytest.approx(60 * 4000 / 8000, abs=1.5)  # 60 dB in half a second


def test_variants_without_a_room_are_those_of_before():
    samples = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    dry, room = Recipe(), Recipe(reverb_probability=1.0)
    assert np.array_equal(
        random_variant(samples, dry, np.random.default_rng(1)), random_variant(samples, dry, np.random.default_rng(1))
    )
    assert not np.allclose(
        random_variant(samples, dry, np.random.default_rng(1)), random_variant(samples, room, np.random.default_rng(1))
    )


def test_blended_textures_hold_both_clips():
    time = np.arange(5 * RATE) / RATE
    low, high = (np.sin(2 * np.pi * hz * time).astype(np.float32) for hz in (500.0, 3000.0))
    clips = [Clip(low, "rain", "low"), Clip(high, "rain", "high")]
    recipe = Recipe(num_variants=1, blend_probability=1.0, blend_level_db=(-6.0, -6.0))
    mixer = SoundscapeMixer(clips, RATE, recipe)
    seen = set()
    for seed in range(12):
        sound = mixer._pick("rain", np.random.default_rng(seed))
        power = np.abs(np.fft.rfft(sound.samples * np.hanning(len(sound.samples)))) ** 2
        split = round(1500 * len(sound.samples) / RATE)
        quieter, louder = sorted(10 * np.log10([power[:split].sum(), power[split:].sum()]))
        seen.add(quieter > louder - 40)
        if quieter > louder - 40:
            assert louder - quieter == pytest.approx(6.0, abs=0.5)
    assert seen == {True, False}  # a clip may meet itself
