"""A recording of hours against its six-minute pieces: peak memory, time, and whether they give the same events.

    python benchmarks/long_recording.py --hours 6 --out benchmarks/results/long_recording.json

The recording is made of ESC-10's clips over a bed of noise: one on every border between two windows of the network, one
between them, none within five seconds of a border between two pieces. Every run is a process of its own."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from runtimes import add_runtime, detector_on

from modeling_easysed import DEFAULT_CHECKPOINT
from modeling_easysed.audio_easysed import read_audio

RATE, PIECE_S, QUIET_S, CLIP_S = 16000, 360.0, 5.0, 5.0
BED_DB, CLIP_DB = -60.0, -30.0  # RMS of full scale
TOLERANCE_S = 0.1


def plan(hours: float, step_s: float, clips: list[Path], seed: int) -> list[tuple[float, Path, bool]]:
    """(start, clip, whether its middle lies on a border between windows); `step_s`: seconds between these borders."""
    rng, planned, total_s = np.random.default_rng(seed), [], hours * 3600
    for number in range(1, int(2 * total_s / step_s)):
        start = number * step_s / 2 - CLIP_S / 2
        to_piece = (start + CLIP_S / 2) % PIECE_S
        if min(to_piece, PIECE_S - to_piece) > QUIET_S + CLIP_S / 2 and start + CLIP_S < total_s:
            planned.append((start, clips[rng.integers(len(clips))], number % 2 == 0))
    return planned


def write(path: Path, hours: float, planned: list[tuple[float, Path, bool]], seed: int) -> None:
    """Piece by piece, 16-bit."""
    rng, read = np.random.default_rng(seed + 1), {}
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        for piece in range(int(np.ceil(hours * 3600 / PIECE_S))):
            samples = rng.standard_normal(int(PIECE_S * RATE)) * 10 ** (BED_DB / 20)
            for start, clip, _ in planned:
                if not 0 <= start - piece * PIECE_S < PIECE_S:
                    continue
                if clip not in read:
                    read[clip] = read_audio(clip, RATE).samples
                first = int((start - piece * PIECE_S) * RATE)
                own = read[clip] * 10 ** (CLIP_DB / 20) / max(float(read[clip].std()), 1e-6)
                samples[first : first + len(own)] += own
            file.write(samples.clip(-0.999, 0.999))


def detect(model: str, runtime: str, path: str, what: str, settings: dict) -> None:
    """In a process of its own: prints events, seconds and peak memory as JSON.

    `what`: "whole", "first" (the first six minutes) or "pieces" (all six-minute pieces, one after the other).
    """
    pipe = detector_on(runtime, model)
    total_s = soundfile.info(path).duration
    starts = {"whole": [0.0], "first": [0.0], "pieces": np.arange(0, total_s, PIECE_S).tolist()}[what]
    events, begin = [], time.perf_counter()
    for start_s in starts:
        source = path
        if what != "whole":
            samples, rate = soundfile.read(path, int(PIECE_S * RATE), int(start_s * RATE), dtype="float32")
            source = {"array": samples, "sampling_rate": rate}
        found = pipe(source, **settings).events
        events += [[event.label, event.onset + start_s, event.offset + start_s, event.decision] for event in found]
    seconds = time.perf_counter() - begin
    peak_mb = own_peak_mb()
    print(json.dumps({"events": events, "seconds": seconds, "peak_mb": peak_mb, "duration_s": total_s}))


def own_peak_mb() -> float:
    """Of this program alone (Linux); `getrusage` would count what its parent had when it was forked."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def run(arguments: list[str]) -> dict:
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(whole: list[list], pieces: list[list]) -> dict[str, int]:
    """How many events have a partner of the same label whose borders lie within the tolerance."""
    rest, num_same = list(pieces), 0
    for label, onset, offset, _ in whole:
        for other in rest:
            if other[0] == label and max(abs(other[1] - onset), abs(other[2] - offset)) <= TOLERANCE_S:
                rest.remove(other)
                num_same += 1
                break
    return {"whole": len(whole), "pieces": len(pieces), "same": num_same}


def reported_on_borders(whole: list[list], planned: list[tuple[float, Path, bool]]) -> dict[str, int]:
    """Of the borders with an event across: reported once, more than once (two events of a class meet there)."""
    counts = {"borders": 0, "across": 0, "cut": 0}
    for start, _, is_border in planned:
        if not is_border:
            continue
        middle = start + CLIP_S / 2
        counts["borders"] += 1
        counts["across"] += any(onset < middle < offset for _, onset, offset, _ in whole)
        ends = {label for label, _, offset, _ in whole if abs(offset - middle) < TOLERANCE_S}
        begins = {label for label, onset, _, _ in whole if abs(onset - middle) < TOLERANCE_S}
        counts["cut"] += len(ends & begins) > 0
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_CHECKPOINT)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/esc10"), help="ESC-10's clips")
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=0)
    add_runtime(parser)
    parser.add_argument("--settings", type=json.loads, default={"exit": 4}, help="of the pipeline, JSON")
    parser.add_argument("--out", type=Path, help="results, JSON")
    parser.add_argument("--detect", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.detect is not None:
        detect(arguments.model, arguments.runtime, *arguments.detect, arguments.settings)
        return 0
    from modeling_easysed import EasySEDConfig
    from modeling_easysed.bundled import resolve_checkpoint

    config = EasySEDConfig.from_pretrained(resolve_checkpoint(arguments.model))
    step_s = config.window_s - 2 * config.context_s
    clips = sorted(arguments.data.glob("5-*")) + sorted(arguments.data.glob("audio/5-*"))
    planned = plan(arguments.hours, step_s, clips, arguments.seed)
    common = ["--model", arguments.model, "--runtime", arguments.runtime]
    common += ["--settings", json.dumps(arguments.settings), "--detect"]
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "long.wav"))
        write(Path(path), arguments.hours, planned, arguments.seed)
        short, whole, pieces = (run([*common, path, what]) for what in ("first", "whole", "pieces"))
    result = {
        "model": arguments.model,
        "runtime": arguments.runtime,
        "settings": arguments.settings,
        "hours": arguments.hours,
        "planned_clips": len(planned),
        "peak_mb_six_minutes": round(short["peak_mb"], 1),
        "peak_mb_whole": round(whole["peak_mb"], 1),
        "seconds_whole": round(whole["seconds"], 1),
        "times_real_time": round(whole["duration_s"] / whole["seconds"], 1),
        "events": compare(whole["events"], pieces["events"]),
        "on_window_borders": reported_on_borders(whole["events"], planned),
    }
    print(json.dumps(result, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
