"""Training samples, each made from the seed and its own number alone, and batches of them prepared ahead.

Sample `number` is the same on whatever process, in whatever micro-batch, by whatever worker it is made: its mixing, its
augmentation and whether its frame labels are hidden. Step k has the samples k x batch_size up to (k + 1) x batch_size,
so a run that goes on at step k sees what an unbroken one would have seen."""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from augment import augment_features
from data import Scene, TrainingData, decode_clips, load_clips_dataset, read_training_data
from distractors import synthetic_clips
from labelled_recordings import ATTRIBUTION
from settings import Settings
from soft_targets import SoftTargets
from soundscapes import Recipe, Soundscape, SoundscapeMixer, frame_targets
from torch.utils.data import DataLoader, Dataset

from modeling_easysed import EasySEDConfig, EasySEDFeatureExtractor

STATISTICS_SOUNDSCAPES = 200  # 2000 s of audio fix mean and deviation of a mel band to a few hundredths of a dB
LAST_SOUNDSCAPE = 2**32 - 1  # the statistics count down from here: training never comes to these
MAX_WORKERS = 8
PREFETCH = 2  # batches that each worker has ready at most
SAMPLE_STREAM, SCENE_STREAM = 3, 5  # of random numbers; the mixer and the synthetic sounds have 1, 2 and 4


class Sounds:
    """What samples are drawn from: soundscapes mixed of isolated clips, and crops of strongly labelled recordings.

    Args:
        mixer: of the isolated clips, or None where there are none.
        scenes: strongly labelled recordings.
        scene_fraction: share of the samples that are crops; None = what is there decides.
        recipe: its `duration_s` is that of the crops.
        sampling_rate: Hz of the scenes.
        seed: with a sample's number it decides everything.

    Raises:
        ValueError: when there is nothing to draw from, or not what `scene_fraction` asks for.
    """

    def __init__(
        self,
        mixer: SoundscapeMixer | None,
        scenes: list[Scene],
        scene_fraction: float | None,
        recipe: Recipe,
        sampling_rate: int,
        seed: int,
    ) -> None:
        if mixer is None and not scenes:
            raise ValueError("training needs isolated clips with a label or strongly labelled recordings, got neither")
        if scene_fraction is None:
            scene_fraction = 0.0 if not scenes else 1.0 if mixer is None else 0.5
        if scene_fraction > 0 and not scenes:
            raise ValueError(f"scene_fraction must be 0 without strongly labelled recordings, got {scene_fraction}")
        if scene_fraction < 1 and mixer is None:
            raise ValueError(f"scene_fraction must be 1 without isolated clips, got {scene_fraction}")
        self.mixer, self.scenes, self.scene_fraction = mixer, scenes, scene_fraction
        self.num_samples, self.sampling_rate, self.seed = int(recipe.duration_s * sampling_rate), sampling_rate, seed
        lengths = np.array([max(len(scene.samples), self.num_samples) for scene in scenes], dtype=float)
        self.scene_shares = lengths / lengths.sum()
        labels = {label for scene in scenes for _, _, label in scene.events}
        self.labels = sorted(labels | set([] if mixer is None else mixer.labels))

    def draw(self, number: int) -> Soundscape:
        """Sample `number`: a crop or a mixed soundscape."""
        rng = np.random.default_rng([self.seed, SCENE_STREAM, number])
        if self.mixer is not None and rng.random() >= self.scene_fraction:
            return self.mixer.mix(self.seed, number)
        scene = self.scenes[rng.choice(len(self.scenes), p=self.scene_shares)]
        return crop_scene(scene, self.num_samples, self.sampling_rate, rng)


def crop_scene(scene: Scene, num_samples: int, sampling_rate: int, rng: np.random.Generator) -> Soundscape:
    """A random stretch of a recording, zeros behind a shorter one; events are cut at the ends of the stretch."""
    start = int(rng.integers(max(len(scene.samples) - num_samples, 0) + 1))
    piece = scene.samples[start : start + num_samples]
    samples = np.zeros(num_samples, dtype=np.float32)
    samples[: len(piece)] = piece
    start_s, duration_s = start / sampling_rate, num_samples / sampling_rate
    events = []
    for onset_s, offset_s, label in scene.events:
        onset_s, offset_s = max(onset_s - start_s, 0.0), min(offset_s - start_s, duration_s)
        if onset_s < offset_s:
            events.append((onset_s, offset_s, label, scene.source, 0.0))
    return Soundscape(samples, sorted(events))


def read_sounds(settings: Settings) -> tuple[Sounds, TrainingData]:
    """What a run learns from, and the recordings behind it, outside sounds included."""
    rate, recipe = EasySEDConfig(**settings.model).sampling_rate, Recipe(**settings.recipe)
    seed = settings.seed_of_samples
    data = read_training_data(
        settings.clips,
        rate,
        split=settings.split,
        folds=settings.folds,
        exclude_licenses=settings.exclude_licenses,
        exclude_labels=settings.exclude_labels,
        streaming=settings.streaming,
    )
    is_labelled = any(clip.label is not None for clip in data.clips)
    if settings.outside is not None:
        outside = load_clips_dataset(settings.outside, "split", ["train"])
        data.clips += decode_clips(outside, rate)
        for row in outside:
            known = {name: row.get(name) or "" for name in ATTRIBUTION}
            data.attribution.append({"file": row["file_name"], **known})
    mixer = None
    if is_labelled:
        synthetic = synthetic_clips(settings.synthetic_outside, rate, seed)
        mixer = SoundscapeMixer(data.clips + synthetic, rate, recipe, seed)
    return Sounds(mixer, data.scenes, settings.scene_fraction, recipe, rate, seed), data


def fit_feature_extractor(settings: Settings, sounds: Sounds) -> EasySEDFeatureExtractor:
    """A feature extractor whose mean and deviation per mel band come from training samples."""
    extractor = EasySEDFeatureExtractor(**settings.features)
    log_mels = []
    for number in range(STATISTICS_SOUNDSCAPES):
        samples = torch.from_numpy(sounds.draw(LAST_SOUNDSCAPE - number).samples)
        log_mels.append(extractor.log_mel(samples[None])[0])
    stacked = torch.cat(log_mels)
    # (frames, mels)
    statistics = {"mel_mean": stacked.mean(0), "mel_std": stacked.std(0)}
    rounded = {name: [round(x, 4) for x in value.tolist()] for name, value in statistics.items()}
    return EasySEDFeatureExtractor(**settings.features, **rounded)


class TrainingBatches(Dataset):
    """Item k is one process's share of the batch of step k, as the model takes it.

    Args:
        sounds: what samples are drawn from.
        extractor: with its fitted mean and deviation.
        config: the model's classes and its time line.
        settings: seed, steps, batch_size, weak_fraction.
        rank: which process, from 0.
        num_processes: of so many; times `gradient_accumulation` it must divide `batch_size`.
        soft_targets: what teachers say about every sample, or None.
    """

    def __init__(
        self,
        sounds: Sounds,
        extractor: EasySEDFeatureExtractor,
        config: EasySEDConfig,
        settings: Settings,
        rank: int = 0,
        num_processes: int = 1,
        soft_targets: SoftTargets | None = None,
    ) -> None:
        self.sounds, self.extractor, self.config, self.settings = sounds, extractor, config, settings
        self.soft_targets, self.num_processes = soft_targets, num_processes
        self.labels = [config.id2label[index] for index in range(config.num_labels)]
        micro = np.arange(settings.batch_size).reshape(settings.gradient_accumulation, num_processes, -1)
        self.own = (
            micro[:, rank].ravel().tolist()
        )  # which samples of a batch; micro-batches are the same for any number

    def __len__(self) -> int:
        return self.settings.steps

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        samples = [self.sample(step * self.settings.batch_size + index) for index in self.own]
        return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}

    def sample(self, number: int) -> dict[str, torch.Tensor]:
        """input_values (frames, mels), frame_labels (output frames, classes) or -1 where hidden, labels (classes,).

        With soft targets also what teachers say: soft_frame_labels and soft_labels, logits of the same shapes.
        """
        rng = np.random.default_rng([self.settings.seed_of_samples, SAMPLE_STREAM, number])
        is_weak = rng.random() < self.settings.weak_fraction
        scape = self.sounds.draw(number)
        log_mel = augment_features(self.extractor.log_mel(torch.from_numpy(scape.samples)[None]), rng)
        features = self.extractor.normalize(log_mel)[0]
        num_frames = -(-len(features) // self.config.frame_stride)
        frames = frame_targets(scape.events, self.labels, num_frames, self.config.frame_duration_s)
        frame_labels = torch.from_numpy(frames)
        labels = (frame_labels.amax(0) > 0).float()
        hidden = torch.full_like(frame_labels, -1.0) if is_weak else frame_labels
        sample = {"input_values": features, "frame_labels": hidden, "labels": labels}
        return sample if self.soft_targets is None else sample | self.soft_targets[number]


def prepared_ahead(batches: TrainingBatches, first_step: int) -> DataLoader:
    """The batches from `first_step` on in order, made by `num_workers` processes while the model learns.

    Processes rather than threads: on two cores both hide the mixing behind the CNN's step alike, but only processes go
    on scaling where a GPU wants more. On Linux they are forked and share the clips in memory.
    """
    num_workers = batches.settings.num_workers
    if num_workers is None:
        num_workers = default_workers(batches.num_processes)
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(first_step, len(batches)),
        num_workers=num_workers,
        prefetch_factor=PREFETCH if num_workers > 0 else None,
        multiprocessing_context="fork" if num_workers > 0 and sys.platform == "linux" else None,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # its own, so that starting to load draws nothing from the generator of dropout
    )


def default_workers(num_processes: int) -> int:
    """One beside a CPU that learns, which keeps it busy; a GPU waits for one, and shares the processors with no one."""
    if not torch.cuda.is_available():
        return 1
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_WORKERS, max(1, processors // num_processes - 1))


def source_name(source: str) -> str:
    """A folder's own name, or a data set's id: what may stand in a published config."""
    return Path(source).name if Path(source).exists() else source
