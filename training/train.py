"""Train an EasySED model on soundscapes mixed on the fly; teacher and students together in one run.

    accelerate launch training/train.py --config training/configs/cnn.yaml [--resume] [--push_to_hub REPO] [--key value]

Runs on one CPU or GPU, on several (DDP) and sharded (FSDP), as `accelerate config` or its arguments say; batch_size
counts all of them. Tested: one CPU process, two by DDP and by FSDP 2. Not tested: GPUs, FSDP 1, several machines.
Writes output_dir/checkpoints, logs (TensorBoard) and model (what from_pretrained reads). On a CPU in float32 a resumed
run ends with the weights of an unbroken one, bit for bit."""

import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, broadcast_object_list
from batches import TrainingBatches, fit_feature_extractor, prepared_ahead, read_sounds, source_name
from checkpoints import Checkpoints
from learner import Learner, check_batch_size
from precision import has_bf16
from progress import Display, Progress
from safetensors.torch import load_file, save_file
from saving import PushError, push, skipped_text, write_attribution, write_json
from settings import Settings, load_settings
from soft_targets import SoftTargets
from transformers.utils.logging import disable_progress_bar
from validation import frame_scores, load_validation

from modeling_easysed import EasySEDConfig, __version__


class Trainer:
    """One run: start, train_loop, validate, checkpoint, save.

    Args:
        settings: of the run.
        argv: the command line, for the model's provenance; None = that of this process.

    Raises:
        ValueError: for settings or data that cannot be trained on.
        FileNotFoundError: when there are no such data.
    """

    def __init__(self, settings: Settings, argv: list[str] | None = None) -> None:
        self.settings, self.argv = settings, sys.argv[1:] if argv is None else argv
        if settings.num_threads is not None:
            torch.set_num_threads(settings.num_threads)
        self.accelerator = build_accelerator(settings)
        check_batch_size(settings, self.accelerator.num_processes)
        sounds, self.data = read_sounds(settings)
        self.extractor = fit_feature_extractor(settings, sounds)
        self.config = self._build_config(sounds.labels)
        soft_targets = None
        if settings.soft_targets is not None:
            soft_targets = SoftTargets(Path(settings.soft_targets), settings, self.config)
            self.config.provenance["teachers"] = soft_targets.teachers
        self.learner = Learner(settings, self.config, self.accelerator)
        rank, num_processes = self.accelerator.process_index, self.accelerator.num_processes
        self.batches = TrainingBatches(sounds, self.extractor, self.config, settings, rank, num_processes, soft_targets)
        self.progress = Progress()
        self.best: dict[str, torch.Tensor] | None = None  # the best averaged weights, on the main process
        self.checkpoints = Checkpoints(Path(settings.output_dir, "checkpoints"), self.accelerator)
        self.losses: list[torch.Tensor] = []  # of the steps since the last log entry
        self.validation = None
        if settings.validation is not None and self.accelerator.is_main_process:
            self.validation = load_validation(settings.validation, "validation", self.extractor, self.config)

    def _build_config(self, labels: list[str]) -> EasySEDConfig:
        """The model's configuration with its labels and where it comes from."""
        settings = self.settings
        provenance = {
            "command": "accelerate launch training/train.py " + " ".join(without_paths(self.argv)),
            "package_version": __version__,
            "seed": settings.seed,
            "sample_seed": settings.seed_of_samples,
            "steps": settings.steps,
            "batch_size": settings.batch_size,
            "num_processes": self.accelerator.num_processes,
            "gradient_accumulation": settings.gradient_accumulation,
            "mixed_precision": settings.mixed_precision,
            "clips": source_name(settings.clips),
            "folds": settings.folds,
            "excluded_licenses": settings.exclude_licenses,
            "excluded_labels": settings.exclude_labels,
            "synthetic_outside": settings.synthetic_outside,
            "outside": None if settings.outside is None else f"{source_name(settings.outside)}/train",
        }
        return EasySEDConfig(**settings.model, id2label=dict(enumerate(labels)), provenance=provenance)

    # ---- where the run stands ----------------------------------------------------------------------------------------

    def start(self, resume: bool) -> None:
        """Loads the newest checkpoint, or makes sure that a new run overwrites none; then opens the logs.

        Raises:
            ValueError: when a new run would write into another run's folder, or the checkpoint is of another model.
        """
        newest = self.checkpoints.newest()
        if newest is not None and not resume:
            raise ValueError(f"{self.checkpoints.folder} holds another run: pass --resume or another --output_dir")
        if newest is not None:
            self.load(newest)
        elif resume:
            self.say(f"no checkpoint in {self.settings.output_dir}: starting at step 0")
        self.accelerator.init_trackers("easysed", init_kwargs={"tensorboard": {"purge_step": self.progress.step + 1}})
        device, num_processes = self.accelerator.device.type, self.accelerator.num_processes
        self.say(
            f"{num_processes} process{'es' if num_processes > 1 else ''} on {device}, precision "
            f"{self.accelerator.mixed_precision}, {self.settings.batch_size} soundscapes a step in "
            f"{num_processes * self.settings.gradient_accumulation} parts, {self.config.num_labels} classes"
        )

    def say(self, line: str) -> None:
        if self.accelerator.is_main_process:
            print(line, file=sys.stderr, flush=True)

    def load(self, folder: Path) -> None:
        """Everything that `checkpoint` wrote; the data go on where they were, since a step decides its batch."""
        self.progress.load(folder / "progress.json")
        self.learner.average.load(folder / f"average_{self._shard}.safetensors")
        self.accelerator.load_state(str(folder))
        if (folder / "best.safetensors").is_file() and self.accelerator.is_main_process:
            self.best = load_file(folder / "best.safetensors")

    @property
    def _shard(self) -> int:
        """Whose averaged weights this process reads and writes: everyone has the same, unless they are sharded."""
        return self.accelerator.process_index if self.accelerator.distributed_type == "FSDP" else 0

    def checkpoint(self) -> None:
        """Writes everything that a resumed run needs: all or, when the run is killed meanwhile, nothing."""
        self.checkpoints.write(self.progress.step, self._fill_checkpoint)

    def _fill_checkpoint(self, folder: Path) -> None:
        self.accelerator.save_state(str(folder))
        is_main = self.accelerator.is_main_process
        if is_main or self._shard > 0:
            self.learner.average.save(folder / f"average_{self._shard}.safetensors")
        if is_main:
            self.progress.save(folder / "progress.json")
            if self.best is not None:
                save_file(self.best, folder / "best.safetensors")

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def train_loop(self) -> None:
        """Trains to the last step or until patience runs out, validating and checkpointing on the way.

        Raises:
            FloatingPointError: when the loss is no number any more.
        """
        settings, progress = self.settings, self.progress
        batches = iter(prepared_ahead(self.batches, progress.step))
        display = Display(progress, settings.steps, settings.log_every, self.accelerator.is_main_process)
        while progress.step < settings.steps and not progress.stopped_early:
            start = time.perf_counter()
            batch = next(batches)
            ready = time.perf_counter()
            parts = self.learner.step(batch, progress.step)
            self.losses.append(torch.stack(list(parts.values())))
            progress.add_step(time.perf_counter() - start, ready - start)
            is_last = progress.step == settings.steps
            if progress.step % settings.log_every == 0 or is_last:
                self.log_losses(list(parts))
            display.update()
            if progress.step % settings.validate_every == 0 or is_last:
                self.validate(display)
            if progress.step % settings.checkpoint_every == 0 or is_last or progress.stopped_early:
                self.checkpoint()
            progress.wall_s += time.perf_counter() - start
        display.close()

    def log_losses(self, names: list[str]) -> None:
        """Means over processes and over the steps since the last entry: the loss, its parts and what weighs them."""
        step, rate = self.progress.step, self.learner.schedule.get_last_lr()[0]
        means = self.accelerator.reduce(torch.stack(self.losses).mean(0), "mean").tolist()
        self.losses.clear()
        record = dict(zip(names, means, strict=True))
        if not all(torch.isfinite(torch.tensor(means))):
            raise FloatingPointError(f"the loss became {record['loss']} by step {step}: lower learning_rate={rate:g}")
        self.progress.losses.append({"step": step, "learning_rate": rate, **record})
        scalars = {"loss": record.pop("loss"), "learning_rate": rate, "data_wait_share": self.progress.data_wait_share}
        scalars |= {f"train/{name}": value for name, value in record.items()}
        scalars |= {f"weight/{name}": value for name, value in self.learner.part_weights.items()}
        self.accelerator.log(scalars, step=step)

    def validate(self, display: Display) -> None:
        """Frame F1 of every exit of the averaged model on the validation soundscapes; decides whether to stop."""
        settings, progress = self.settings, self.progress
        if settings.validation is None:
            return
        model = self.learner.averaged_model()
        shared = [frame_scores(model, self.validation) if self.validation is not None else None]
        scores = broadcast_object_list(shared)[0]
        self.accelerator.log({f"validation/{name}": value for name, value in scores.items()}, step=progress.step)
        f1 = scores[f"f1_{self.config.kept_exits}"]
        is_best = progress.add_validation(scores, f1, settings.early_stop_patience)
        if is_best and settings.early_stop_patience is not None and self.accelerator.is_main_process:
            self.best = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        shown = " ".join(f"{name} {value:.3f}" for name, value in scores.items())
        display.say(f"step {progress.step}: {shown}")
        if progress.stopped_early:
            display.say(f"stopped early: best F1 at step {progress.best_step}, {progress.num_worse} validations ago")

    # ---- the end -----------------------------------------------------------------------------------------------------

    def save(self) -> Path:
        """Writes the averaged model with its feature extractor, its log and whose recordings it learned from."""
        folder = Path(self.settings.output_dir, "model")
        model = self.learner.averaged_model()
        if self.accelerator.is_main_process:
            if self.settings.early_stop_patience is not None:
                model.load_state_dict(self.best)
                model.config.provenance = {**model.config.provenance, "early_stop": self._early_stop()}
            model.save_pretrained(folder)
            self.extractor.save_pretrained(folder)
            write_attribution(self.data.attribution, folder / "attribution.csv")
            log = {**self.progress.summary(), "skipped_files": self.data.skipped}
            write_json(log, folder / "training_log.json")
            write_json(asdict(self.settings), Path(self.settings.output_dir, "settings.json"))
        self.accelerator.end_training()
        return folder

    def _early_stop(self) -> dict[str, int | float | bool]:
        progress = self.progress
        return {
            "patience": self.settings.early_stop_patience,
            "stopped_early": progress.stopped_early,
            "last_step": progress.step,
            "saved_step": progress.best_step,
            "frame_f1": round(progress.best_f1, 4),
        }


def build_accelerator(settings: Settings) -> Accelerator:
    """With the processes and the sharding that were launched, on GPUs where there are any."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out = Path(settings.output_dir)
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=precision(settings, device),
        log_with="tensorboard",
        project_config=ProjectConfiguration(str(out), logging_dir=str(out / "logs")),
        step_scheduler_with_optimizer=False,
    )


def precision(settings: Settings, device: torch.device) -> str:
    """ "bf16" or "no", as asked or as the hardware has it."""
    if settings.mixed_precision != "auto":
        return settings.mixed_precision
    return "bf16" if has_bf16(device) else "no"


def without_paths(argv: list[str]) -> list[str]:
    """The arguments that decide what is learned: without where it is written or pushed and whether it was resumed."""
    pairs = [argument for argument in argv if argument != "--resume"]
    kept = [pairs[i : i + 2] for i in range(0, len(pairs), 2) if pairs[i] not in ("--output_dir", "--push_to_hub")]
    named = [[key, Path(value).name] if key == "--soft_targets" else [key, value] for key, value in kept]
    return [argument for pair in named for argument in pair]


def fail(message: object, status: int) -> None:
    """One line on stderr, with the process's number behind the first, and the exit status.

    Raises:
        SystemExit: always.
    """
    rank = int(os.environ.get("RANK", "0"))
    print(f"train.py: error{f' in process {rank}' if rank > 0 else ''}: {message}", file=sys.stderr)
    raise SystemExit(status)


def main(argv: list[str] | None = None) -> None:
    if not sys.stderr.isatty():
        disable_progress_bar()
    try:
        settings, options = load_settings(argv)
        trainer = Trainer(settings, argv)
        trainer.start(options.resume)
    except (ValueError, OSError) as error:
        fail(error, 2)
    try:
        trainer.train_loop()
        folder = trainer.save()
        if not trainer.accelerator.is_main_process:
            return
        summary = trainer.progress.summary()
        print(f"model saved to {folder}: {summary['steps']} steps, {summary['step_time_s']:.3f} s each, ", end="")
        print(f"{100 * summary['data_wait_share']:.1f} % of it waiting for data (data_wait_share)")
        if trainer.data.skipped:
            print(skipped_text(trainer.data.skipped), file=sys.stderr)
        if options.push_to_hub is not None:
            print("\n".join(push(folder, options.push_to_hub)))
    except (FloatingPointError, PushError) as error:
        fail(error, 1)


if __name__ == "__main__":
    main()
