"""Hours of audio per minute of `easysed detect FOLDER --out FOLDER`, end to end, and where the time goes.

    python benchmarks/throughput.py --out benchmarks/results/throughput.json

The folder holds FLAC files of `--minutes` minutes made of the test soundscapes; the command is run as a user would,
start and loading included, plain and with 20 passes x 5 shifts, by one and two workers. Shares are those of one file in
one process."""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from runtimes import detector_on

from modeling_easysed import DEFAULT_CHECKPOINT, detector_easysed
from modeling_easysed.audio_easysed import read_audio

RATE = 16000
SETTINGS = {"plain": {"uncertainty": "none", "shifts": 0}, "trusted": {"uncertainty": "mc", "passes": 20, "shifts": 2}}
STAGES = {  # functions of the pipeline's module; the rest is warnings, pictures and the like
    "read and resample": ("read_audio",),
    "features": ("recording_features",),
    "network and samples": ("sample_recording",),
    "averaging, decoding, evidence": ("frame_line", "find_candidates"),
}


def write_files(folder: Path, data: Path, num_files: int, minutes: float) -> None:
    sounds = [read_audio(path, RATE).samples for path in sorted(data.glob("*"))]
    rng = np.random.default_rng(0)
    for number in range(num_files):
        order = rng.permutation(len(sounds))
        needed = round(minutes * 60 * RATE)
        samples = np.concatenate([sounds[index] for index in np.tile(order, 1 + needed // (10 * RATE * len(sounds)))])
        soundfile.write(folder / f"{number:03d}.flac", samples[:needed], RATE)


def run_command(folder: Path, out: Path, model: str, settings: dict[str, Any], workers: int) -> float:
    """Seconds of the whole command."""
    options = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "modeling_easysed.cli.main", "detect", str(folder), "--model", model, "--out"]
    command += [f"{out}/", "--format", "csv", "--workers", str(workers), "--device", "cpu", *options]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def shares(path: Path, model: str, settings: dict[str, Any]) -> dict[str, float]:
    """Share of every stage in the time of one recording, one thread."""
    pipe = detector_on("onnx", model)
    samples, rate = soundfile.read(path, frames=300 * RATE, dtype="float32")  # five minutes: taken as a whole
    with tempfile.NamedTemporaryFile(suffix=".flac") as file:
        soundfile.write(file.name, samples, rate)
        pipe(file.name, **settings)  # warms up
        with watched(STAGES) as spent:
            start = time.perf_counter()
            pipe(file.name, **settings)
            total = time.perf_counter() - start
    found = {stage: round(spent[stage] / total, 3) for stage in STAGES}
    return {**found, "everything else": round(1 - sum(found.values()), 3), "times real time": round(300 / total, 1)}


@contextlib.contextmanager
def watched(stages: dict[str, tuple[str, ...]]) -> Iterator[Counter]:
    """Seconds that the functions of every stage take inside; they are those that detector_easysed calls."""
    spent, originals = Counter(), {}
    for stage, names in stages.items():
        for name in names:
            originals[name] = getattr(detector_easysed, name)
            setattr(detector_easysed, name, timed(originals[name], spent, stage))
    try:
        yield spent
    finally:
        for name, original in originals.items():
            setattr(detector_easysed, name, original)


def timed(function: Callable, spent: Counter, stage: str) -> Callable:
    def wrapper(*arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            spent[stage] += time.perf_counter() - start

    return wrapper


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_CHECKPOINT)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/soundscapes/audio/test"))
    parser.add_argument("--files", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, help="results, JSON")
    arguments = parser.parse_args()
    hours = arguments.files * arguments.minutes / 60
    result: dict[str, Any] = {"model": arguments.model, "hours": hours, "end_to_end": {}, "shares": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "audio")
        folder.mkdir()
        write_files(folder, arguments.data, arguments.files, arguments.minutes)
        for setting, values in SETTINGS.items():
            for workers in (1, 2):
                seconds = run_command(folder, Path(name, f"{setting}-{workers}"), arguments.model, values, workers)
                result["end_to_end"][f"{setting}, {workers} worker{'s' if workers > 1 else ''}"] = {
                    "seconds": round(seconds, 1),
                    "hours_per_minute": round(60 * hours / seconds, 2),
                    "times_real_time": round(3600 * hours / seconds, 1),
                }
            result["shares"][setting] = shares(folder / "000.flac", arguments.model, values)
    print(json.dumps(result, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
