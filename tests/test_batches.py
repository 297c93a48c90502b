"""Samples depend on the seed and their number alone: not on process, micro-batch, worker or where a run began."""

import numpy as np
import pytest
import torch
from augment import augment_features
from batches import (
    Sounds,
    TrainingBatches,
    crop_scene,
    default_workers,
    fit_feature_extractor,
    prepared_ahead,
    read_sounds,
    source_name,
)
from data import Scene
from settings import Settings, load_settings
from soundscapes import Recipe, Soundscape
from tiny_training import RATE, write_config, write_data

from modeling_easysed import EasySEDConfig, EasySEDFeatureExtractor


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("batches")
    return str(write_config(folder, write_data(folder / "data"), batch_size=8, steps=6, weak_fraction=0.5))


@pytest.fixture(scope="module")
def parts(config_file):
    """Sounds, extractor, config and settings, as the trainer builds them."""
    settings, _ = load_settings(["--config", config_file])
    sounds, _ = read_sounds(settings)
    config = EasySEDConfig(**settings.model, id2label=dict(enumerate(sounds.labels)))
    return sounds, fit_feature_extractor(settings, sounds), config, settings


def with_changes(settings: Settings, **changes) -> Settings:
    return Settings(**{**settings.__dict__, **changes})


def rows(batches: list[dict[str, torch.Tensor]]) -> list[tuple]:
    """Every sample of these batches as something that compares and sorts."""
    names = ("input_values", "frame_labels", "labels")
    return sorted(
        tuple(batch[name][i].numpy().tobytes() for name in names)
        for batch in batches
        for i in range(len(batch["labels"]))
    )


@pytest.mark.parametrize(("num_processes", "gradient_accumulation"), [(2, 1), (1, 2), (2, 2), (4, 2), (8, 1)])
def test_a_step_has_the_same_samples_however_it_is_split(parts, num_processes, gradient_accumulation):
    *made_of, settings = parts
    whole = TrainingBatches(*made_of, settings)[3]
    assert len(set(rows([whole]))) == 8
    changed = with_changes(settings, gradient_accumulation=gradient_accumulation)
    shares = [TrainingBatches(*made_of, changed, rank, num_processes)[3] for rank in range(num_processes)]
    assert all(len(share["labels"]) == 8 // num_processes for share in shares)
    assert rows(shares) == rows([whole])


def test_micro_batches_are_the_same_on_any_number_of_processes(parts):
    *made_of, settings = parts
    changed = with_changes(settings, gradient_accumulation=2)
    alone = TrainingBatches(*made_of, changed)[0]
    pair = [TrainingBatches(*made_of, changed, rank, 2)[0] for rank in range(2)]
    first = [{name: value[:2] for name, value in share.items()} for share in pair]
    assert rows(first) == rows([{name: value[:4] for name, value in alone.items()}])


def test_samples_differ_by_number_and_seed(parts):
    *made_of, settings = parts
    one = TrainingBatches(*made_of, settings).sample(5)
    assert not torch.equal(one["input_values"], TrainingBatches(*made_of, settings).sample(6)["input_values"])
    other = TrainingBatches(*made_of, with_changes(settings, seed=1)).sample(5)
    assert not torch.equal(one["input_values"], other["input_values"])


def test_weak_samples_keep_their_clip_labels(parts):
    *made_of, settings = parts
    strong = TrainingBatches(*made_of, with_changes(settings, weak_fraction=0.0))
    half = TrainingBatches(*made_of, settings)
    hidden = 0
    for number in range(60):
        sample, known = half.sample(number), strong.sample(number)
        assert torch.equal(sample["input_values"], known["input_values"])
        assert torch.equal(sample["labels"], (known["frame_labels"].amax(0) > 0).float())
        if torch.equal(sample["frame_labels"], torch.full_like(known["frame_labels"], -1.0)):
            hidden += 1
        else:
            assert torch.equal(sample["frame_labels"], known["frame_labels"])
    assert 18 <= hidden <= 42  # 30 expected, 3 standard deviations


def test_a_gpu_gets_as_many_workers_as_there_are_processors_for_it(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_workers(1) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [default_workers(number) for number in (1, 2, 4, 12, 24)] == [8, 5, 2, 1, 1]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_neither_order_nor_content(parts, num_workers):
    *made_of, settings = parts
    in_line = list(prepared_ahead(TrainingBatches(*made_of, settings), 1))
    ahead = list(prepared_ahead(TrainingBatches(*made_of, with_changes(settings, num_workers=num_workers)), 1))
    assert len(in_line) == len(ahead) == 5
    for one, other in zip(in_line, ahead, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_preparing_draws_nothing_from_the_generator_of_dropout(parts):
    *made_of, settings = parts
    torch.manual_seed(0)
    before = torch.get_rng_state()
    next(iter(prepared_ahead(TrainingBatches(*made_of, with_changes(settings, num_workers=1)), 0)))
    assert torch.equal(torch.get_rng_state(), before)


def test_features_are_the_extractors(parts, monkeypatch):
    """What the network sees in training is what the extractor gives in inference, augmentation aside."""
    monkeypatch.setattr("batches.augment_features", lambda log_mel, rng: log_mel)
    sounds, extractor, config, settings = parts
    sample = TrainingBatches(sounds, extractor, config, settings).sample(3)
    samples = sounds.mixer.mix(settings.seed, 3).samples
    features = extractor(samples, sampling_rate=RATE)["input_values"][0]
    torch.testing.assert_close(sample["input_values"], features, rtol=0, atol=1e-4)


def test_statistics_are_those_of_training_samples(parts):
    sounds, extractor, _, settings = parts
    plain = EasySEDFeatureExtractor(**settings.features)
    log_mels = [plain.log_mel(torch.from_numpy(sounds.draw(2**32 - 1 - n).samples)[None])[0] for n in range(200)]
    expected = torch.cat(log_mels).mean(0)
    torch.testing.assert_close(torch.tensor(extractor.mel_mean), expected, rtol=0, atol=1e-3)


def test_augmentation_keeps_shape_and_time():
    log_mel = torch.randn(3, 20, 64)
    first = augment_features(log_mel, np.random.default_rng(0))
    assert first.shape == log_mel.shape
    assert torch.equal(first, augment_features(log_mel, np.random.default_rng(0)))
    change = first - log_mel
    kept = change.std(1) < 1e-4  # the same offset at all times, except in masked mels
    assert kept.float().mean() > 0.7 and change.abs().max() > 0.5


def test_synthetic_sounds_are_mixed_in_and_need_no_attribution(config_file):
    settings, _ = load_settings(["--config", config_file])
    changed = with_changes(settings, synthetic_outside=2)
    sounds, data = read_sounds(changed)
    assert len(sounds.mixer.outside) == 2 and sounds.labels == ["dog_bark", "rain"]
    assert [row["file"] for row in data.attribution] == [f"audio/{n}.wav" for n in range(4)]
    assert data.attribution[3] == {"file": "audio/3.wav", "author": "author 3", "license": "CC0", "source_url": ""}


def test_sounds_of_an_outside_folder(config_file, tmp_path):
    outside = write_data(tmp_path / "outside")
    (outside / "metadata.csv").write_text("file_name,split,license\naudio/0.wav,train,CC0\naudio/1.wav,test,CC0\n")
    settings, _ = load_settings(["--config", config_file, "--outside", str(outside)])
    sounds, data = read_sounds(settings)
    assert len(sounds.mixer.outside) == 1
    assert data.attribution[-1] == {"file": "audio/0.wav", "author": "", "license": "CC0", "source_url": ""}


# ---- scenes ----------------------------------------------------------------------------------------------------------


def scene(duration_s: float, events: list[tuple[float, float, str]], source: str = "scene.wav") -> Scene:
    """Sample n has the value n: a crop tells where it begins."""
    return Scene(np.arange(int(duration_s * RATE), dtype=np.float32), events, source)


def test_a_crop_cuts_events_at_its_ends():
    long = scene(10.0, [(0.0, 10.0, "rain"), (4.0, 4.5, "dog_bark"), (9.9, 10.0, "dog_bark")])
    for seed in range(20):
        crop = crop_scene(long, 2 * RATE, RATE, np.random.default_rng(seed))
        start_s = int(crop.samples[0]) / RATE
        np.testing.assert_array_equal(crop.samples, long.samples[round(start_s * RATE) :][: 2 * RATE])
        assert (0.0, 2.0, "rain") in [event[:3] for event in crop.events]
        barks = [event[:2] for event in crop.events if event[2] == "dog_bark"]
        clipped = [(max(on - start_s, 0.0), min(off - start_s, 2.0)) for on, off in [(4.0, 4.5), (9.9, 10.0)]]
        np.testing.assert_allclose(np.ravel(barks), np.ravel([one for one in clipped if one[0] < one[1]]), atol=1e-9)
    assert 0 <= start_s <= 8.0


def test_a_short_recording_is_followed_by_silence():
    crop = crop_scene(scene(0.5, [(0.1, 0.4, "rain")]), 2 * RATE, RATE, np.random.default_rng(0))
    assert len(crop.samples) == 2 * RATE and crop.samples.dtype == np.float32
    np.testing.assert_array_equal(crop.samples[: RATE // 2], np.arange(RATE // 2))
    assert not crop.samples[RATE // 2 :].any()
    assert crop.events == [(0.1, 0.4, "rain", "scene.wav", 0.0)]


class FakeMixer:
    """Counts what is asked of it."""

    labels = ["dog_bark"]

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def mix(self, seed: int, number: int) -> Soundscape:
        self.numbers.append(number)
        return Soundscape(np.zeros(2 * RATE, dtype=np.float32), [])


def sounds_of(mixer, scenes, scene_fraction) -> Sounds:
    return Sounds(mixer, scenes, scene_fraction, Recipe(duration_s=2.0), RATE, seed=0)


def test_scenes_are_drawn_with_their_probability():
    mixer = FakeMixer()
    sounds = sounds_of(mixer, [scene(3.0, [(0.0, 3.0, "rain")])], 0.25)
    drawn = [bool(sounds.draw(number).events) for number in range(400)]
    assert 74 <= sum(drawn) <= 126  # 100 expected, 3 standard deviations
    assert mixer.numbers == [number for number in range(400) if not drawn[number]]
    assert drawn == [bool(sounds.draw(number).events) for number in range(400)]
    assert sounds.labels == ["dog_bark", "rain"]


def test_longer_recordings_are_drawn_more_often():
    sounds = sounds_of(None, [scene(1.0, [], "short"), scene(18.0, [(0.0, 18.0, "rain")], "long")], 1.0)
    from_long = sum(bool(sounds.draw(number).events) for number in range(400))
    assert 342 <= from_long <= 378  # 18 s against 2 s, the length of a crop: 360 expected, 3 standard deviations


@pytest.mark.parametrize(("has_clips", "num_scenes", "fraction"), [(True, 0, 0.0), (False, 1, 1.0), (True, 1, 0.5)])
def test_what_is_there_decides_the_scene_fraction(has_clips, num_scenes, fraction):
    sounds = sounds_of(FakeMixer() if has_clips else None, [scene(3.0, [])] * num_scenes, None)
    assert sounds.scene_fraction == fraction


@pytest.mark.parametrize(
    ("has_clips", "num_scenes", "fraction", "message"),
    [
        (False, 0, None, "training needs isolated clips with a label or strongly labelled recordings, got neither"),
        (True, 0, 0.5, "scene_fraction must be 0 without strongly labelled recordings, got 0.5"),
        (False, 1, 0.5, "scene_fraction must be 1 without isolated clips, got 0.5"),
    ],
)
def test_sounds_that_cannot_be_drawn(has_clips, num_scenes, fraction, message):
    with pytest.raises(ValueError, match=message):
        sounds_of(FakeMixer() if has_clips else None, [scene(3.0, [])] * num_scenes, fraction)


def test_scenes_alone_are_enough(tmp_path):
    """A folder of strongly labelled recordings, read by the reader itself, becomes batches with these labels."""
    data = write_data(tmp_path / "data")
    (data / "metadata.csv").unlink()
    settings, _ = load_settings(["--config", str(write_config(tmp_path, data, folds=None, split="validation"))])
    sounds, _ = read_sounds(settings)
    assert sounds.mixer is None and sounds.scene_fraction == 1.0 and sounds.labels == ["dog_bark"]
    config = EasySEDConfig(**settings.model, id2label={0: "dog_bark"})
    batches = TrainingBatches(
        sounds, fit_feature_extractor(settings, sounds), config, with_changes(settings, weak_fraction=0.0)
    )
    labelled = [sample for sample in map(batches.sample, range(20)) if sample["labels"].any()]
    assert 0 < len(labelled) < 20  # b.wav has no event
    active = labelled[0]["frame_labels"][:, 0]
    torch.testing.assert_close(active.sum() * config.frame_duration_s, torch.tensor(0.5), rtol=0, atol=1e-3)


def test_names_of_sources(tmp_path):
    assert source_name(str(tmp_path)) == tmp_path.name
    assert source_name("owner/data-set") == "owner/data-set"
