"""What self-distillation costs: median time of a training step with and without it, both backbones, one run.

    python benchmarks/training_step.py [--repeats 15] [--threads 1] [--out FILE.json]

Configs take turns within every repeat, so that a busy machine slows all of them alike; the cost is the median of the
ratios within repeats. Batches are random numbers of the configs' sizes, made beforehand: in training they are prepared
by other processes."""

import argparse
import json
import platform
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "training"))

from learner import Learner  # noqa: E402
from settings import load_settings  # noqa: E402
from soundscapes import Recipe  # noqa: E402
from train import build_accelerator  # noqa: E402

from modeling_easysed import EasySEDConfig, EasySEDFeatureExtractor  # noqa: E402

PLAIN = ("--model.distillation_weight", "0.0", "--model.hint_weight", "0.0")
CONFIGS: dict[str, tuple[str, ...]] = {
    "cnn": ("cnn.yaml",),
    "cnn_plain": ("cnn_plain.yaml",),
    "transformer": ("transformer.yaml",),
    "transformer_plain": ("transformer.yaml", *PLAIN),
}
PAIRS = (("cnn", "cnn_plain"), ("transformer", "transformer_plain"))
LIMIT = 1.25  # what the project promises for self-distillation against the plain step
NUM_WARM_UP = 2
EVENT_SHARE = 0.1


@dataclass
class Step:
    """A training step that can be repeated: the learner, and the batch that it learns again and again."""

    learner: Learner
    batch: dict[str, torch.Tensor]

    def run(self) -> float:
        """Seconds of one step, to the end of what a GPU does for it."""
        start = time.perf_counter()
        self.learner.step(self.batch, 0)["loss"].item()
        return time.perf_counter() - start


def build_step(arguments: tuple[str, ...], num_classes: int, seed: int) -> Step:
    """The step of a config of training/configs with its overrides."""
    file, *overrides = arguments
    settings, _ = load_settings(["--config", str(ROOT / "training" / "configs" / file), *overrides])
    config = EasySEDConfig(**settings.model, id2label={index: str(index) for index in range(num_classes)})
    extractor = EasySEDFeatureExtractor(**settings.features)
    num_frames = extractor.num_frames(int(Recipe(**settings.recipe).duration_s * config.sampling_rate))
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(settings.batch_size, num_frames, config.num_mel_bins, generator=generator)
    shape = (settings.batch_size, -(-num_frames // config.frame_stride), num_classes)
    frame_labels = (torch.rand(shape, generator=generator) < EVENT_SHARE).float()
    batch = {"input_values": features, "frame_labels": frame_labels, "labels": frame_labels.amax(1)}
    return Step(Learner(settings, config, build_accelerator(settings)), batch)


def measure(steps: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """Seconds of every repeat of each step, in turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + NUM_WARM_UP):
        for name, step in steps.items():
            seconds = step.run()
            if repeat >= NUM_WARM_UP:
                times[name].append(seconds)
    return times


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    """Median seconds per config, and what self-distillation costs per backbone, with its quartiles over repeats."""
    cost = {}
    for distilled, plain in PAIRS:
        ratios = [one / other for one, other in zip(times[distilled], times[plain], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        cost[distilled] = {"ratio": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)]}
    medians = {name: round(statistics.median(values), 4) for name, values in times.items()}
    return {"step_time_s": medians, "distillation_cost": cost, "limit": LIMIT}


def table(result: dict[str, Any]) -> str:
    rows = ["| config | s per step | distillation / plain (quartiles) |", "| --- | --- | --- |"]
    for name, seconds in result["step_time_s"].items():
        cost = result["distillation_cost"].get(name)
        shown = "" if cost is None else f"{cost['ratio']:.2f} ({cost['quartiles'][0]:.2f}-{cost['quartiles'][1]:.2f})"
        rows.append(f"| {name} | {seconds:.3f} | {shown} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=15, help="measured steps of each config, at least 2")
    parser.add_argument("--threads", type=int, default=1, help="torch threads on the CPU")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    if arguments.repeats < 2:
        parser.error(f"--repeats must be at least 2, got {arguments.repeats}")
    torch.set_num_threads(arguments.threads)
    steps = {name: build_step(own, arguments.classes, arguments.seed) for name, own in CONFIGS.items()}
    device = next(iter(steps.values())).learner.accelerator.device
    result = {
        **summary(measure(steps, arguments.repeats)),
        "batch_size": {name: step.learner.settings.batch_size for name, step in steps.items()},
        "repeats": arguments.repeats,
        "threads": arguments.threads,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "torch": torch.__version__,
    }
    print(table(result))
    for name, cost in result["distillation_cost"].items():
        print(f"{name}: {'within' if cost['ratio'] <= LIMIT else 'ABOVE'} the limit of {LIMIT} x the plain step")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
