"""What trust costs: ratios to the plain pass, samples to events, one thread, one recording, one run.

    python benchmarks/trust_cost.py [--model easysed-cnn] [--seconds 10] [--repeats 30] [--out FILE.json]

All settings take turns within every repeat, so that a busy machine slows them alike; medians are compared. Features,
network, samples, decoding and judging are all inside. "naive" computes every pass and shift with a network pass of
its own: it is timed once and not repeated."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modeling_easysed import DEFAULT_CHECKPOINT, SoundEventDetectionPipeline
from modeling_easysed.shifts_easysed import SHIFT_S

SETTINGS: dict[str, dict[str, Any]] = {
    "plain pass": {"uncertainty": "none", "shifts": 0},
    "moments": {"uncertainty": "moments", "shifts": 0},
    "exits": {"uncertainty": "exits", "shifts": 0},
    "20 passes": {"uncertainty": "mc", "passes": 20, "shifts": 0},
    "100 passes": {"uncertainty": "mc", "passes": 100, "shifts": 0},
    "plain pass x 5 shifts": {"uncertainty": "none", "shifts": 2},
    "20 passes x 5 shifts": {"uncertainty": "mc", "passes": 20, "shifts": 2},
}
LIMITS = {"20 passes": 1.3, "moments": 1.1, "20 passes x 5 shifts": 6.0}  # what the project promises


def recording(seconds: float, sampling_rate: int) -> dict[str, Any]:
    """Noise with a louder, darker second in the middle: something to decode, of no class in particular."""
    rng = np.random.default_rng(0)
    samples = 0.01 * rng.standard_normal(int(seconds * sampling_rate))
    middle = slice(len(samples) // 2, len(samples) // 2 + sampling_rate)
    samples[middle] += 0.2 * np.cumsum(rng.standard_normal(len(samples[middle]))) / 50
    return {"array": samples.clip(-1, 1).astype(np.float32), "sampling_rate": sampling_rate}


def measure(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each run."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 3):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat >= 3:  # the first ones warm caches up
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def naive_milliseconds(pipe: SoundEventDetectionPipeline, source: dict[str, Any]) -> float:
    """20 passes x 5 shifts, each shift with features of its own and each pass with the whole network."""
    samples, rate = source["array"], source["sampling_rate"]
    start = time.perf_counter()
    for number in range(-2, 3):
        padded = np.roll(samples, -round(number * SHIFT_S * rate))
        features = pipe.feature_extractor(padded, sampling_rate=rate)
        pipe.model.monte_carlo(features["input_values"], passes=20, reuse_trunk=False)
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=DEFAULT_CHECKPOINT)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pipe = SoundEventDetectionPipeline.from_pretrained(arguments.model, device="cpu")
    source = recording(arguments.seconds, pipe.feature_extractor.sampling_rate)
    deepest = pipe.model.num_exits
    runs = {name: (lambda own=own: pipe(source, exit=deepest, **own)) for name, own in SETTINGS.items()} | {
        "default (exit auto)": lambda: pipe(source)
    }
    times = measure(runs, arguments.repeats)
    times["20 passes x 5 shifts, naive"] = naive_milliseconds(pipe, source)
    plain = times["plain pass"]
    print(f"{arguments.model}, {arguments.seconds:g} s, 1 thread, exit {deepest}")
    print("| setting | ms | times the plain pass | promised |")
    print("| --- | --- | --- | --- |")
    for name, value in times.items():
        promised = f"at most {LIMITS[name]:g}" if name in LIMITS else ""
        print(f"| {name} | {value:.1f} | {value / plain:.2f} | {promised} |")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({"milliseconds": times, "limits": LIMITS}, indent=1) + "\n")


if __name__ == "__main__":
    main()
