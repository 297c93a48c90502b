"""ESC-10's five-fold cross-validation of clip classification: every exit, any number of seeds, resumable.

    python training/crossvalidate.py --config training/configs/esc10_cnn.yaml --out runs/esc10_cnn.json [--seeds 0,1,2]

Each (seed, fold) trains a network from scratch on the other four folds and classifies the held-out one: plain, with
Monte Carlo passes and with time shifts, every exit and all exits together. What is in --out already is not trained
again. On a GPU where there is one; `--workers 8` trains eight networks side by side, each on a core of its own."""

import argparse
import copy
import json
import multiprocessing
import pickle
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from averaged_weights import AveragedWeights
from clip_mixing import BankedClip, ClipRecipe, build_bank, mean_and_deviation, mix_batch
from data import decode_clips, labels_of, load_clips_dataset
from learner import parameter_groups
from precision import has_bf16
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from modeling_easysed import EasySEDConfig, EasySEDFeatureExtractor, EasySEDForSoundEventDetection
from modeling_easysed.costs import exit_costs

FOLDS = ("1", "2", "3", "4", "5")
SHIFTS_S = (-0.06, -0.03, 0.0, 0.03, 0.06)
PASSES = 20
EVALUATION_BATCH = 20
CLIPS_PER_PART = 10
ENSEMBLE = "ensemble"  # the mean of all exits' probabilities


@dataclass
class Settings:
    """What a cross-validation reads.

    Attributes:
        clips: folder in ESC-10's layout.
        steps, batch_size, learning_rate, warmup_steps, weight_decay, max_gradient_norm, ema_decay: as in train.py.
        num_threads: torch threads.
        features: arguments of EasySEDFeatureExtractor; model: of EasySEDConfig; recipe: of ClipRecipe.
    """

    clips: str = "../shared/data/esc10"
    steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 3e-3
    warmup_steps: int = 60
    weight_decay: float = 0.02
    max_gradient_norm: float = 5.0
    ema_decay: float = 0.99
    num_threads: int = 1
    features: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)


@dataclass
class Fold:
    """One training of one network: its bank of training and of test clips, its generator's seeds."""

    name: str
    seed: int
    train: list[BankedClip]
    test: list[BankedClip]
    labels: list[str]


def train_network(
    settings: Settings, fold: Fold
) -> tuple[EasySEDForSoundEventDetection, EasySEDFeatureExtractor, float]:
    """The averaged network, its feature extractor, and the seconds that training took."""
    extractor = EasySEDFeatureExtractor(**settings.features, **mean_and_deviation(fold.train))
    torch.manual_seed(1000 * fold.seed + int(fold.name))
    config = EasySEDConfig(**settings.model, id2label=dict(enumerate(fold.labels)))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = EasySEDForSoundEventDetection(config).to(device)
    average = AveragedWeights(model, settings.ema_decay)
    optimizer = torch.optim.AdamW(parameter_groups(model, settings.weight_decay), lr=settings.learning_rate, fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, settings.warmup_steps, settings.steps)
    recipe, start = ClipRecipe(**settings.recipe), time.monotonic()
    bf16 = has_bf16(device)
    for step in tqdm(range(settings.steps), desc=f"seed {fold.seed} fold {fold.name}", disable=not sys.stderr.isatty()):
        first = step * settings.batch_size
        rngs = [np.random.default_rng([fold.seed, int(fold.name), 12, first + i]) for i in range(settings.batch_size)]
        batch = mix_batch(fold.train, len(fold.labels), recipe, config.frame_stride, rngs)
        model.train()
        features, labels, frame_labels = (part.to(device) for part in (extractor.normalize(batch[0]), *batch[1:]))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            output = model(features, labels=labels, frame_labels=frame_labels)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_gradient_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        average.update(model, step)
    seconds = time.monotonic() - start
    with average.swapped_in(model):
        return copy.deepcopy(model).eval(), extractor, seconds


# ---- the held-out fold -----------------------------------------------------------------------------------------------


@torch.inference_mode()
def classify(
    model: EasySEDForSoundEventDetection, extractor: EasySEDFeatureExtractor, test: list[BankedClip]
) -> dict[str, torch.Tensor]:
    """Class probabilities (exits, clips, classes) of whole clips: "plain", "mc", "shifts", "mc+shifts"."""
    views: dict[str, list[torch.Tensor]] = {"plain": [], "mc": []}
    longest = max(len(clip.samples) for clip in test)  # resampling leaves some a few samples shorter
    recordings = [np.pad(clip.samples, (0, longest - len(clip.samples))) for clip in test]
    for shift_s in SHIFTS_S:
        shifted = [shift_samples(samples, round(shift_s * extractor.sampling_rate)) for samples in recordings]
        features = extractor.normalize(extractor.log_mel(torch.from_numpy(np.stack(shifted)))).to(model.device)
        plain, passes = [], []
        for part in features.split(EVALUATION_BATCH):
            plain.append(model(part).exit_logits)
            exits = range(1, model.num_exits + 1)
            drawn = [model.monte_carlo(part, passes=PASSES, seed=0, exit_index=index).logits for index in exits]
            # exits x (passes, batch, classes)
            passes.append(torch.stack(drawn).softmax(-1).mean(1))
        views["plain"].append(torch.cat(plain, 1).softmax(-1).cpu())
        views["mc"].append(torch.cat(passes, 1).cpu())
    middle = SHIFTS_S.index(0.0)
    single = {name: parts[middle] for name, parts in views.items()}
    averaged = {name: torch.stack(parts).mean(0) for name, parts in views.items()}
    return {**single, "shifts": averaged["plain"], "mc+shifts": averaged["mc"]}


def shift_samples(samples: np.ndarray, num_samples: int) -> np.ndarray:
    """The same length, `num_samples` later (positive) or earlier, zeros where nothing was recorded."""
    shifted = np.zeros_like(samples)
    if num_samples >= 0:
        shifted[num_samples:] = samples[: len(samples) - num_samples]
    else:
        shifted[:num_samples] = samples[-num_samples:]
    return shifted


def scores(probabilities: dict[str, torch.Tensor], truth: torch.Tensor) -> dict[str, dict[str, dict[str, float]]]:
    """{exit: {view: {"accuracy", "nll"}}} of (exits, clips, classes) against class indices (clips,)."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    for view, exits in probabilities.items():
        named = {str(index + 1): values for index, values in enumerate(exits)} | {ENSEMBLE: exits.mean(0)}
        for name, values in named.items():
            right = values[torch.arange(len(truth)), truth].clamp_min(1e-9)
            result.setdefault(name, {})[view] = {
                "accuracy": (values.argmax(-1) == truth).double().mean().item(),
                "nll": -right.log().mean().item(),
            }
    return result


# ---- all of it -------------------------------------------------------------------------------------------------------


def run_fold(settings: Settings, fold: Fold) -> dict[str, Any]:
    """Trains, classifies; one entry of "runs" of the results."""
    model, extractor, seconds = train_network(settings, fold)
    probabilities = classify(model, extractor, fold.test)
    truth = torch.tensor([clip.label for clip in fold.test])
    return {
        "seed": fold.seed,
        "fold": fold.name,
        "seconds": round(seconds, 1),
        "exits": scores(probabilities, truth),
        "wrong": wrong_clips(probabilities["plain"][-1], fold),
    }


def wrong_clips(probabilities: torch.Tensor, fold: Fold) -> dict[str, str]:
    """{source: predicted class} of the clips that the deepest exit got wrong."""
    predicted = probabilities.argmax(-1).tolist()
    pairs = zip(fold.test, predicted, strict=True)
    return {clip.source: fold.labels[index] for clip, index in pairs if index != clip.label}


def summary(runs: list[dict[str, Any]]) -> list[str]:
    """One line per exit and one for all: mean accuracy of all runs, deviation over the seeds' five-fold means."""
    lines = []
    for index in runs[0]["exits"]:
        cells = []
        for view in runs[0]["exits"][index]:
            by_seed: dict[int, list[float]] = {}
            for run in runs:
                by_seed.setdefault(run["seed"], []).append(run["exits"][index][view]["accuracy"])
            means = [statistics.mean(values) for values in by_seed.values()]
            spread = statistics.stdev(means) if len(means) > 1 else float("nan")
            cells.append(f"{view} {100 * statistics.mean(means):.2f} ± {100 * spread:.2f}")
        name = index if index == ENSEMBLE else f"exit {index}"
        lines.append(f"{name}: " + ", ".join(cells))
    return lines


def load_settings(path: Path, overrides: list[str]) -> Settings:
    """Reads a YAML file; `key=value` and `section.key=value` override it."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise ValueError(f"--set takes KEY=VALUE, got {override!r}")
        section, _, name = key.rpartition(".")
        target = values.setdefault(section, {}) if section else values
        target[name] = yaml.safe_load(value)
    unknown = sorted(set(values) - set(Settings.__dataclass_fields__))
    if unknown:
        raise ValueError(f"unknown settings {unknown} in {path}: known are {sorted(Settings.__dataclass_fields__)}")
    return Settings(**values)


def costs(settings: Settings, labels: list[str]) -> list[dict[str, Any]]:
    """Parameters and MACs per 10 s of every exit."""
    return exit_costs(EasySEDForSoundEventDetection(EasySEDConfig(**settings.model, id2label=dict(enumerate(labels)))))


class SideBySide:
    """Runs `prepare` and `train` of a cross-validation, in this process or in several that this one forks.

    Processes rather than threads: a step of these small networks is mostly Python and kernel launches.

    Args:
        settings: of the cross-validation.
        num_workers: 1 = everything in this process.
    """

    def __init__(self, settings: Settings, num_workers: int) -> None:
        self.settings, self.num_workers = settings, num_workers
        self.labels = labels_of(settings.clips)
        self.by_fold: dict[str, list[BankedClip]] = {name: [] for name in FOLDS}

    def prepare(self) -> None:
        """The features of every fold's clips."""
        sizes = {name: len(load_clips_dataset(self.settings.clips, "fold", [name])) for name in FOLDS}
        parts = [(name, first) for name in FOLDS for first in range(0, sizes[name], CLIPS_PER_PART)]
        for (name, _), part in zip(parts, self._map("_bank", parts), strict=True):
            self.by_fold[name] += pickle.loads(part)

    def train(self, jobs: list[tuple[int, str]]) -> Iterator[dict[str, Any]]:
        """Entries of "runs" of the results for (seed, fold), in order, each as soon as it is done."""
        return self._map("_run", jobs)

    def _bank(self, part: tuple[str, int]) -> bytes:
        """Pickled here: thousands of tensors would otherwise travel as so many open files."""
        name, first = part
        rows = load_clips_dataset(self.settings.clips, "fold", [name])
        rows = rows.select(range(first, min(first + CLIPS_PER_PART, len(rows))))
        extractor, recipe = EasySEDFeatureExtractor(**self.settings.features), ClipRecipe(**self.settings.recipe)
        clips = decode_clips(rows, extractor.sampling_rate)
        return pickle.dumps(build_bank(clips, self.labels, extractor, recipe, int(name), first))

    def _run(self, job: tuple[int, str]) -> dict[str, Any]:
        seed, name = job
        train = [clip for other in FOLDS if other != name for clip in self.by_fold[other]]
        return run_fold(self.settings, Fold(name, seed, train, self.by_fold[name], self.labels))

    def _map(self, method: str, items: Sequence[Any]) -> Iterator[Any]:
        if self.num_workers == 1:
            yield from map(getattr(self, method), items)
            return
        _inherited[:] = [self]
        with multiprocessing.get_context("fork").Pool(self.num_workers) as pool:
            yield from pool.imap(partial(_call, method), items)


_inherited: list[SideBySide] = []  # what forked processes share; as an argument it would be copied for every item


def _call(method: str, item: Any) -> Any:
    return getattr(_inherited[0], method)(item)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see training/configs/esc10_*.yaml")
    parser.add_argument("--out", type=Path, required=True, help="results JSON; what it holds is not trained again")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--folds", default=",".join(FOLDS))
    parser.add_argument("--workers", type=int, default=1, help="networks that are trained side by side")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="override a setting")
    arguments = parser.parse_args()
    try:
        if arguments.workers < 1:
            raise ValueError(f"--workers must be at least 1, got {arguments.workers}")
        settings = load_settings(arguments.config, arguments.set)
        torch.set_num_threads(settings.num_threads)
        work = SideBySide(settings, arguments.workers)
        work.prepare()
    except (ValueError, OSError) as error:
        print(f"crossvalidate.py: error: {error}", file=sys.stderr)
        return 2
    results = {
        "config": arguments.config.name,
        "settings": asdict(settings),
        "costs": costs(settings, work.labels),
        "runs": [],
    }
    if arguments.out.is_file():
        results["runs"] = json.loads(arguments.out.read_text(encoding="utf-8"))["runs"]
    done = {(run["seed"], run["fold"]) for run in results["runs"]}
    asked = [(int(seed), name) for seed in arguments.seeds.split(",") for name in arguments.folds.split(",")]
    for run in work.train([job for job in asked if job not in done]):
        results["runs"].append(run)
        arguments.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
        print(f"seed {run['seed']} fold {run['fold']}: {summary([run])[-1]}", flush=True)
    print("\n".join(summary(results["runs"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
