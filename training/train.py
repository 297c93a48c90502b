"""Train an EasySED model on soundscapes mixed on the fly; teacher and students together in one run.

    accelerate launch training/train.py --config training/configs/cnn.yaml [--resume] [--key value ...]

Writes output_dir/checkpoints (to resume), output_dir/logs (TensorBoard) and output_dir/model (what from_pretrained
reads). Soundscape n of seed s is always the same, so a resumed run sees what an unbroken one would have seen."""

import copy
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from augment import augment_features
from data import decode_clips, labels_of, load_clips_dataset
from distractors import synthetic_clips
from settings import Settings, load_settings
from soundscapes import Recipe, SoundscapeMixer, frame_targets
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup
from validation import frame_scores, load_validation

from modeling_easysed import EasySEDConfig, EasySEDFeatureExtractor, EasySEDForSoundEventDetection, __version__

STATISTICS_SOUNDSCAPES = 200  # 2000 s of audio fix mean and deviation of a mel band to a few hundredths of a dB
LAST_SOUNDSCAPE = 2**32 - 1  # the statistics count down from here: training never comes to these


@dataclass
class Progress:
    """Where the run stands; saved with every checkpoint."""

    step: int = 0
    best_frame_f1: float = 0.0

    def state_dict(self) -> dict[str, float]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.step, self.best_frame_f1 = int(state["step"]), float(state["best_frame_f1"])


class AveragedWeights:
    """Exponential moving average of a model's weights and buffers."""

    def __init__(self, model: EasySEDForSoundEventDetection, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: EasySEDForSoundEventDetection, step: int) -> None:
        """The decay grows with the step, so that the average forgets its random start."""
        decay = min(self.decay, (1 + step) / (10 + step))
        own = self.model.state_dict()
        for name, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                own[name].lerp_(value.detach(), 1 - decay)
            else:
                own[name].copy_(value)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.model.load_state_dict(state)


def build_mixer(settings: Settings) -> SoundscapeMixer:
    """Reads the clips of the run's folds, and the outside sounds where there are any."""
    rate = EasySEDConfig(**settings.model).sampling_rate
    clips = decode_clips(load_clips_dataset(settings.clips, "fold", settings.folds, settings.exclude_licenses), rate)
    if settings.outside is not None:
        clips += decode_clips(load_clips_dataset(settings.outside, "split", ["train"]), rate)
    clips += synthetic_clips(settings.synthetic_outside, rate, settings.seed)
    return SoundscapeMixer(clips, rate, Recipe(**settings.recipe), settings.seed)


def fit_feature_extractor(settings: Settings, mixer: SoundscapeMixer) -> EasySEDFeatureExtractor:
    """A feature extractor whose mean and deviation per mel band come from training soundscapes."""
    extractor = EasySEDFeatureExtractor(**settings.features)
    log_mels = []
    for number in range(STATISTICS_SOUNDSCAPES):
        samples = torch.from_numpy(mixer.mix(settings.seed, LAST_SOUNDSCAPE - number).samples)
        log_mels.append(extractor.log_mel(samples[None])[0])
    stacked = torch.cat(log_mels)
    # (frames, mels)
    statistics = {"mel_mean": stacked.mean(0), "mel_std": stacked.std(0)}
    rounded = {name: [round(x, 4) for x in value.tolist()] for name, value in statistics.items()}
    return EasySEDFeatureExtractor(**settings.features, **rounded)


def build_config(settings: Settings, mixer: SoundscapeMixer, argv: list[str]) -> EasySEDConfig:
    """The model's configuration with its labels and where it comes from."""
    labels = [label for label in labels_of(settings.clips) if label in mixer.labels]
    provenance = {
        "command": "accelerate launch training/train.py " + " ".join(without_paths(argv)),
        "package_version": __version__,
        "seed": settings.seed,
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "mixed_precision": settings.mixed_precision,
        "clips": Path(settings.clips).name,
        "folds": settings.folds,
        "excluded_licenses": settings.exclude_licenses,
        "synthetic_outside": settings.synthetic_outside,
        "outside": None if settings.outside is None else f"{Path(settings.outside).name}/train",
    }
    return EasySEDConfig(**settings.model, id2label=dict(enumerate(labels)), provenance=provenance)


def without_paths(argv: list[str]) -> list[str]:
    """The arguments that decide what is learned: without where it is written and whether it was resumed."""
    pairs = [argument for argument in argv if argument != "--resume"]
    kept = [pairs[i : i + 2] for i in range(0, len(pairs), 2) if pairs[i] != "--output_dir"]
    return [argument for pair in kept for argument in pair]


def batches(
    mixer: SoundscapeMixer,
    extractor: EasySEDFeatureExtractor,
    config: EasySEDConfig,
    settings: Settings,
    first_step: int,
    rank: int,
    world_size: int,
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches from step `first_step` on: input_values, frame_labels, labels (see the model's forward)."""
    labels = [config.id2label[index] for index in range(config.num_labels)]
    step = first_step
    while True:
        start = (step * world_size + rank) * settings.batch_size
        rng = np.random.default_rng([settings.seed, 3, step, rank])
        scapes = [mixer.mix(settings.seed, start + i) for i in range(settings.batch_size)]
        samples = torch.from_numpy(np.stack([scape.samples for scape in scapes]))
        log_mel = augment_features(extractor.log_mel(samples), rng)
        features = extractor.normalize(log_mel)
        num_frames = -(-features.shape[1] // config.frame_stride)
        frames = [frame_targets(scape.events, labels, num_frames, config.frame_duration_s) for scape in scapes]
        frame_labels = torch.from_numpy(np.stack(frames))
        clip_labels = (frame_labels.amax(1) > 0).float()
        frame_labels[torch.from_numpy(rng.random(settings.batch_size) < settings.weak_fraction)] = -1
        yield {"input_values": features, "frame_labels": frame_labels, "labels": clip_labels}
        step += 1


def precision(settings: Settings, device: torch.device) -> str:
    """ "bf16" or "no"; without hardware for it, bf16 on a CPU is many times slower than float32."""
    if settings.mixed_precision != "auto":
        return settings.mixed_precision
    has_bf16 = torch.cpu._is_avx512_bf16_supported() if device.type == "cpu" else torch.cuda.is_bf16_supported()
    return "bf16" if has_bf16 else "no"


class Trainer:
    """One run: build, load, train_loop, validate, checkpoint, save."""

    def __init__(self, settings: Settings, argv: list[str] | None = None) -> None:
        self.settings = settings
        self.checkpoints = Path(settings.output_dir, "checkpoints")
        self.mixer = build_mixer(settings)
        if settings.num_threads is not None:
            torch.set_num_threads(settings.num_threads)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        out = Path(settings.output_dir)
        project = ProjectConfiguration(str(out), logging_dir=str(out / "logs"), automatic_checkpoint_naming=True)
        project.total_limit = 2
        self.accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision=precision(settings, device),
            log_with="tensorboard",
            project_config=project,
            step_scheduler_with_optimizer=False,
        )
        set_seed(settings.seed)
        self.extractor = fit_feature_extractor(settings, self.mixer)
        self.config = build_config(settings, self.mixer, sys.argv[1:] if argv is None else argv)
        model = EasySEDForSoundEventDetection(self.config)
        optimizer = torch.optim.AdamW(
            parameter_groups(model, settings.weight_decay), lr=settings.learning_rate, fused=True
        )
        schedule = get_cosine_schedule_with_warmup(optimizer, settings.warmup_steps, settings.steps)
        self.model, self.optimizer, self.schedule = self.accelerator.prepare(model, optimizer, schedule)
        self.average = AveragedWeights(self.accelerator.unwrap_model(self.model), settings.ema_decay)
        self.progress = Progress()
        self.accelerator.register_for_checkpointing(self.progress, self.average)
        self.validation = None
        if settings.validation is not None and self.accelerator.is_main_process:
            self.validation = load_validation(settings.validation, "validation", self.extractor, self.config)
        self.accelerator.init_trackers("easysed")

    def load(self) -> None:
        """Goes on from the newest checkpoint, if there is one."""
        folders = sorted(self.checkpoints.glob("checkpoint_*"), key=checkpoint_number)
        if not folders:
            print(f"no checkpoint in {self.settings.output_dir}: starting at step 0", file=sys.stderr)
            return
        self.accelerator.load_state(str(folders[-1]))
        self.accelerator.project_configuration.iteration = checkpoint_number(folders[-1]) + 1

    def start(self, resume: bool) -> None:
        """Loads the newest checkpoint, or makes sure that a new run overwrites none.

        Raises:
            ValueError: when a new run would write into another run's folder.
        """
        if resume:
            self.load()
        elif any(self.checkpoints.glob("checkpoint_*")):
            raise ValueError(f"{self.checkpoints} holds another run: pass --resume or another --output_dir")

    def train_loop(self) -> None:
        """Trains to the last step, validating and checkpointing on the way."""
        settings, world_size = self.settings, self.accelerator.num_processes
        rank, first = self.accelerator.process_index, self.progress.step
        data = batches(self.mixer, self.extractor, self.config, settings, first, rank, world_size)
        bar = tqdm(total=settings.steps, initial=first, disable=not sys.stderr.isatty() or rank > 0)
        while self.progress.step < settings.steps:
            parts = self.train_step(next(data))
            self.progress.step += 1
            step = self.progress.step
            bar.update()
            bar.set_postfix(loss=f"{parts['loss']:.3f}")
            self.accelerator.log(parts, step=step)
            if step % settings.validate_every == 0 or step == settings.steps:
                self.validate()
            if step % settings.checkpoint_every == 0 or step == settings.steps:
                self.accelerator.save_state()
        bar.close()

    def train_step(self, batch: dict[str, torch.Tensor]) -> dict[str, float]:
        """One optimiser step; returns every part of the loss."""
        self.model.train()
        batch = {name: value.to(self.accelerator.device) for name, value in batch.items()}
        with self.accelerator.autocast():
            output = self.model(**batch)
        self.accelerator.backward(output.loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.max_gradient_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.average.update(self.accelerator.unwrap_model(self.model), self.progress.step)
        parts = {f"train/{name}": value.item() for name, value in output.loss_parts.items()}
        return {"loss": output.loss.item(), "learning_rate": self.schedule.get_last_lr()[0], **parts}

    def validate(self) -> None:
        """Frame F1 of every exit of the averaged model on the validation soundscapes."""
        if self.validation is None:
            return
        scores = frame_scores(self.average.model, self.validation)
        self.accelerator.log({f"validation/{name}": value for name, value in scores.items()}, step=self.progress.step)
        self.progress.best_frame_f1 = max(self.progress.best_frame_f1, scores[f"f1_{self.config.kept_exits}"])
        shown = " ".join(f"{name} {value:.3f}" for name, value in scores.items())
        print(f"step {self.progress.step}: {shown}", file=sys.stderr, flush=True)

    def save(self) -> Path:
        """Writes the averaged model with its feature extractor."""
        folder = Path(self.settings.output_dir, "model")
        if self.accelerator.is_main_process:
            self.average.model.save_pretrained(folder)
            self.extractor.save_pretrained(folder)
            settings = json.dumps(asdict(self.settings), indent=2)
            Path(self.settings.output_dir, "settings.json").write_text(settings, encoding="utf-8")
        self.accelerator.end_training()
        return folder


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay for matrices and kernels, none for biases and norms."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def checkpoint_number(folder: Path) -> int:
    return int(folder.name.rsplit("_", 1)[1])


def main(argv: list[str] | None = None) -> None:
    try:
        settings, resume = load_settings(argv)
        trainer = Trainer(settings, argv)
        trainer.start(resume)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"train.py: error: {error}") from error
    trainer.train_loop()
    folder = trainer.save()
    if trainer.accelerator.is_main_process:
        print(f"model saved to {folder}")


if __name__ == "__main__":
    main()
