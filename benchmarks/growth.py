"""How time and memory grow with the recording, the classes, the passes, the shifts and the workers, in one figure.

    python benchmarks/growth.py --out benchmarks/results/growth.json --figure benchmarks/results/growth.png

Durations and workers: the whole command on two threads, start included. The rest: one minute in a process that runs
already, one thread. More classes than ten are the ten again and again, which makes as many times the events: an upper
bound. Recordings are the test soundscapes one after the other. Nothing else should run meanwhile."""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from speed_cases import PLAIN, RATE, TRUSTED
from speed_commands import EASYSED, best_of, describe_machine

from modeling_easysed import BUNDLED_CHECKPOINTS, EasySEDConfig, EasySEDForSoundEventDetection
from modeling_easysed.audio_easysed import read_audio
from modeling_easysed.export.graphs import write_graphs
from modeling_easysed.feature_extraction_easysed import EasySEDFeatureExtractor
from modeling_easysed.runtime.detector import OnnxDetector

MODEL = "easysed-cnn"
DURATIONS_S = (10, 60, 600, 3600, 36_000)
CLASSES, PASSES, SHIFTS, WORKERS = (10, 50, 200, 527), (1, 2, 5, 10, 20, 50, 100), (0, 1, 2, 3, 4), (1, 2)
NUM_FILES, FILE_S = 16, 60
BLOCK_S = 600
REPEATS = 5
SETTINGS = {"plain": PLAIN, "20 passes x 5 shifts": TRUSTED}
Figures = dict[str, float]


def write_recording(path: Path, sounds: np.ndarray, seconds: int) -> Path:
    """The sounds again and again, block by block."""
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for start in range(0, seconds, BLOCK_S):
            count = min(BLOCK_S, seconds - start) * RATE
            file.write(np.take(sounds, np.arange(start * RATE, start * RATE + count), mode="wrap"))
    return path


def options_of(settings: dict[str, Any]) -> list[str]:
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]


def over_durations(folder: Path, sounds: np.ndarray, longest_s: int) -> dict[str, dict[int, Figures]]:
    """{setting: {seconds: {"seconds", "peak_mb"}}} of whole commands."""
    found: dict[str, dict[int, Figures]] = {title: {} for title in SETTINGS}
    for seconds in [one for one in DURATIONS_S if one <= longest_s]:
        path = write_recording(folder / "recording.flac", sounds, seconds)
        for title, settings in SETTINGS.items():
            command = [*EASYSED, "detect", str(path), "--model", MODEL, "--format", "csv", "--device", "cpu"]
            found[title][seconds] = best_of([*command, *options_of(settings)], 2, 3 if seconds <= 600 else 1)
            say(f"{seconds} s, {title}: {found[title][seconds]}")
    return found


def over_workers(folder: Path, sounds: np.ndarray) -> dict[str, dict[int, Figures]]:
    """The same of a folder of recordings of a minute."""
    files = folder / "files"
    files.mkdir()
    for number in range(NUM_FILES):
        write_recording(files / f"{number:02d}.flac", np.roll(sounds, -number * 7 * RATE), FILE_S)
    found: dict[str, dict[int, Figures]] = {title: {} for title in SETTINGS}
    for workers in WORKERS:
        for title, settings in SETTINGS.items():
            out = folder / f"out-{workers}-{len(title)}"
            command = [*EASYSED, "detect", str(files), "--model", MODEL, "--out", f"{out}/", "--workers", str(workers)]
            found[title][workers] = best_of([*command, "--device", "cpu", *options_of(settings)], 1, 1)
            say(f"{workers} workers, {title}: {found[title][workers]}")
    return found


def tiled_checkpoint(folder: Path, num_classes: int) -> Path:
    """The bundled checkpoint with its classes again and again, without calibration."""
    source = BUNDLED_CHECKPOINTS[MODEL]
    model = EasySEDForSoundEventDetection.from_pretrained(source)
    own = model.config.num_labels
    labels = {number: f"{model.config.id2label[number % own]} {number // own}" for number in range(num_classes)}
    values = {**model.config.to_dict(), "id2label": labels, "calibration": None, "provenance": None}
    values.pop("label2id")
    for one in values["decoding"]["exits"].values():
        one["classes"] = {str(number): one["classes"][str(number % own)] for number in range(num_classes)}
    wide = EasySEDForSoundEventDetection(EasySEDConfig.from_dict(values))
    state = model.state_dict()
    index = torch.arange(num_classes) % own
    wide.load_state_dict({name: one[index] if ".classifier." in name else one for name, one in state.items()})
    wide.save_pretrained(folder)
    EasySEDFeatureExtractor.from_pretrained(source).save_pretrained(folder)
    write_graphs(folder)
    return folder


def timed(detector: OnnxDetector, source: dict[str, Any], settings: dict[str, Any]) -> float:
    """Median seconds of several calls, after one that warms up."""
    times = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        detector(source, **settings)
        times.append(time.perf_counter() - start)
    return round(statistics.median(times[1:]), 4)


def over_settings(folder: Path, sounds: np.ndarray) -> dict[str, dict[str, dict[int, float]]]:
    """{"classes", "passes", "shifts": {setting: {number: seconds}}}."""
    source = {"array": sounds[: FILE_S * RATE], "sampling_rate": RATE}
    classes: dict[str, dict[int, float]] = {title: {} for title in SETTINGS}
    for number in CLASSES:
        detector = OnnxDetector(tiled_checkpoint(folder / f"classes-{number}", number), 1)
        for title, settings in SETTINGS.items():
            classes[title][number] = timed(detector, source, settings)
    detector = OnnxDetector(BUNDLED_CHECKPOINTS[MODEL], 1)
    passes = {
        "no shifts": {number: timed(detector, source, {"passes": number, "shifts": 0}) for number in PASSES},
        "5 shifts": {number: timed(detector, source, {"passes": number, "shifts": 2}) for number in PASSES},
    }
    shifts = {
        "plain": {number: timed(detector, source, {**PLAIN, "shifts": number}) for number in SHIFTS},
        "20 passes": {number: timed(detector, source, {"passes": 20, "shifts": number}) for number in SHIFTS},
    }
    return {"classes": classes, "passes": passes, "shifts": shifts}


# ---- what is shown ---------------------------------------------------------------------------------------------------


def draw(found: dict[str, Any], path: Path) -> None:
    """Six panels: seconds and memory over duration, seconds over everything else."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(12, 6.5), layout="constrained")
    panels = [
        ("duration", "seconds", "recording, s", "whole command, s", True),
        ("duration", "peak_mb", "recording, s", "peak memory, MB", True),
        ("classes", None, "classes (and as many times the events)", "one minute of sound, s", False),
        ("passes", None, "passes", "one minute of sound, s", False),
        ("shifts", None, "shifts to either side", "one minute of sound, s", False),
        ("workers", "seconds", "workers", f"{NUM_FILES} recordings of a minute, s", False),
    ]
    for axis, (what, key, x_name, y_name, is_log) in zip(axes.flat, panels, strict=True):
        for marker, (title, line) in zip("os", found[what].items(), strict=True):
            y = [one if key is None else one[key] for one in line.values()]
            axis.plot([float(x) for x in line], y, marker=marker, label=title)
        if is_log:
            axis.set_xscale("log")
        if is_log and key == "seconds":
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        axis.set_xlabel(x_name)
        axis.set_ylabel(y_name)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize="small")
    axes[1, 2].set_xticks(WORKERS)
    figure.savefig(path, dpi=110)


def markdown(found: dict[str, Any]) -> list[str]:
    """A table per axis."""
    lines = []
    for what in ("duration", "classes", "passes", "shifts", "workers"):
        titles = list(found[what])
        lines += ["", f"| {what} | " + " | ".join(titles) + " |", "| --- " * (1 + len(titles)) + "|"]
        for number in found[what][titles[0]]:
            cells = [found[what][title][number] for title in titles]
            texts = [
                f"{one['seconds']:g} s, {one['peak_mb']:.0f} MB" if isinstance(one, dict) else f"{one:g} s"
                for one in cells
            ]
            lines.append(f"| {number} | " + " | ".join(texts) + " |")
    return lines[1:]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/soundscapes/audio/test"))
    parser.add_argument("--longest_s", type=int, default=DURATIONS_S[-1], help="leave longer recordings out")
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--figure", type=Path, help="picture")
    arguments = parser.parse_args()
    sounds = np.concatenate([read_audio(path, RATE).samples for path in sorted(arguments.data.glob("*"))[:60]])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        found: dict[str, Any] = {"machine": describe_machine()}
        found["duration"] = over_durations(folder, sounds, arguments.longest_s)
        found["workers"] = over_workers(folder, sounds)
        found |= over_settings(folder, sounds)
    print("\n".join(markdown(found)))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if arguments.figure is not None:
        draw(found, arguments.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
