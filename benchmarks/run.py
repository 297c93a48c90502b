"""Speed, from the front end to whole commands, against yardsticks measured in the same run.

    python benchmarks/run.py [--quick] [--out benchmarks/results/speed.json] [--table FILE.md]

Prints milliseconds for 10 s of sound, ratios to CNN14's shape and to the Audio Spectrogram Transformer, and which share
of the machine's own rate (a large matrix product) a network reaches. `--quick` leaves out compiled teachers, exported
graphs and the training step, and takes six minutes of sound for an hour. Nothing else should run meanwhile."""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import soundfile
import speed_cases
import speed_commands
import torch
from speed_cases import RATE, SECONDS, Case
from trust_cost import recording

from modeling_easysed import BUNDLED_CHECKPOINTS

NUM_WARM_UP = 3
THREADS = (1, 2)
PROMISES: dict[str, float | None] = {  # of one run on two cores; None = nothing is promised
    "CNN teacher against CNN14's shape": 40,
    "smallest CNN student against CNN14's shape": 150,
    "CNN teacher against AST base": 150,
    "trusted inference with the student against CNN14's shape": 30,
    "trusted detection, to judged events, against CNN14's shape": None,
    "an hour, plain, times real time": 400,
    "an hour, trusted, times real time": 80,
}


@torch.inference_mode()
def measure(cases: list[Case], repeats: int) -> dict[str, dict[str, float]]:
    """Median and fastest milliseconds of every case, in turns."""
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    for repeat in range(repeats + NUM_WARM_UP):
        for case in cases:
            start = time.perf_counter()
            case.run()
            if repeat >= NUM_WARM_UP:
                times[case.name].append(1000 * (time.perf_counter() - start))
    return {
        case.name: {
            "ms": round(statistics.median(times[case.name]), 3),
            "fastest_ms": round(min(times[case.name]), 3),
            **({} if case.macs is None else {"macs": case.macs}),
        }
        for case in cases
    }


def measure_all(is_quick: bool, repeats: int, only: str = "") -> dict[str, Any]:
    """{threads: {group: {case: figures}}} of the groups whose names begin with `only`."""
    found: dict[str, Any] = {}
    for threads in THREADS:
        torch.set_num_threads(threads)
        groups = {
            "ceiling": lambda: speed_cases.ceiling(),
            "yardsticks": lambda: speed_cases.yardsticks(),
            "front end": lambda own=threads: speed_cases.front_ends(own),
            **{
                f"network {name}": lambda own=threads, name=name: speed_cases.networks(name, own, is_quick)
                for name in BUNDLED_CHECKPOINTS
            },
            "detection easysed-cnn": lambda own=threads: speed_cases.detections("easysed-cnn", own),
            "decoding": lambda: speed_cases.decodings(),
        }
        if not is_quick:
            groups["exported easysed-cnn"] = lambda own=threads: speed_cases.exported("easysed-cnn", own)
        found[str(threads)] = {}
        for group, make in groups.items():
            if not group.startswith(only):
                continue
            few = max(3, repeats // 4) if group == "yardsticks" else repeats
            found[str(threads)][group] = measure(make(), few)
            print(f"{group}, {threads} thread{'s' * (threads > 1)}: done", file=sys.stderr, flush=True)
    return found


def commands(data: Path, is_quick: bool) -> dict[str, Any]:
    """Start-up of every command, and an hour from file to events on two threads."""
    sounds = sorted(data.glob("*"))[:30]
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.wav")
        soundfile.write(clip, recording(SECONDS, RATE)["array"], RATE)
        started = speed_commands.starts(clip, 2 if is_quick else 5)
    minutes = 6.0 if is_quick else 60.0
    return {
        "starts": started,
        "minutes": minutes,
        "long file": speed_commands.long_file("easysed-cnn", sounds, minutes, 2),
    }


def training_step(repeats: int) -> dict[str, float]:
    """Seconds of a step of both configs, one thread."""
    import training_step as own

    torch.set_num_threads(1)
    steps = {name: own.build_step(own.CONFIGS[name], 10, 0) for name in ("cnn", "transformer")}
    return {name: round(statistics.median(times), 4) for name, times in own.measure(steps, repeats).items()}


def ratios(found: dict[str, Any], whole: dict[str, Any]) -> dict[str, float]:
    """What is promised, measured; networks on whichever runtime is faster."""
    one = found["1"]
    cnn14, ast = (one["yardsticks"][name]["ms"] for name in ("CNN14's shape", "AST base"))
    network, detection = one["network easysed-cnn"], one["detection easysed-cnn"]
    deepest = max(int(name.split(",")[0].removeprefix("exit ")) for name in network)
    teacher, student = (fastest(network, f"exit {number},") for number in (deepest, 1))
    values = {
        "CNN teacher against CNN14's shape": cnn14 / teacher,
        "smallest CNN student against CNN14's shape": cnn14 / student,
        "CNN teacher against AST base": ast / teacher,
        "trusted inference with the student against CNN14's shape": cnn14
        / fastest(detection, "exit 1, trusted inference"),
        "trusted detection, to judged events, against CNN14's shape": cnn14 / fastest(detection, "exit 1, trusted,"),
        "an hour, plain, times real time": whole["long file"]["plain, onnx"]["times_real_time"],
        "an hour, trusted, times real time": whole["long file"]["trusted, onnx"]["times_real_time"],
    }
    return {name: round(value, 1) for name, value in values.items()}


def fastest(group: dict[str, dict[str, float]], prefix: str) -> float:
    return min(one["ms"] for name, one in group.items() if name.startswith(prefix))


# ---- what is printed -------------------------------------------------------------------------------------------------


def case_table(cases: dict[str, Any]) -> list[str]:
    """Milliseconds of everything; shares where the ceiling was measured as well."""
    lines = ["| what (10 s of sound) | ms, 1 thread | ms, 2 threads | share of the ceiling, 1 thread |"]
    lines += ["| --- | --- | --- | --- |"]
    product = cases["1"].get("ceiling", {}).get("matrix product")
    for group, own in cases["1"].items():
        for name, one in own.items():
            share = ""
            if product is not None and "macs" in one:
                share = f"{100 * one['macs'] / one['ms'] / (product['macs'] / product['fastest_ms']):.0f} %"
            lines.append(f"| {group}: {name} | {one['ms']:g} | {cases['2'][group][name]['ms']:g} | {share} |")
    return lines


def markdown(result: dict[str, Any]) -> list[str]:
    """Promises, then a table per group."""
    lines = ["| promise | at least | measured |", "| --- | --- | --- |"]
    for name, value in result["ratios"].items():
        least = "" if PROMISES[name] is None else f"{PROMISES[name]} x"
        lines.append(f"| {name} | {least} | {value:g} x |")
    lines += ["", *case_table(result["cases"])]
    lines += [
        "",
        "| part of a trusted detection, 1 thread, onnxruntime | exit 1, ms | exit 4, ms |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {name} | {ms:g} | {result['parts']['4'][name]:g} |" for name, ms in result["parts"]["1"].items()]
    lines += ["", "| command, 1 thread | seconds | peak MB |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {one['seconds']:g} | {one['peak_mb']:g} |" for name, one in result["starts"].items()]
    lines += ["", f"| {result['minutes']:g} minutes of stereo FLAC, 2 threads | seconds | times real time | peak MB |"]
    lines += ["| --- | --- | --- | --- |"]
    for name, one in result["long file"].items():
        lines.append(f"| {name} | {one['seconds']:g} | {one['times_real_time']:g} | {one['peak_mb']:g} |")
    if "training step" in result:
        lines += ["", "| training step, 1 thread | seconds |", "| --- | --- |"]
        lines += [f"| {name} | {seconds:g} |" for name, seconds in result["training step"].items()]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", metavar="GROUP", help="measure this group alone, e.g. exported; no commands")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/soundscapes/audio/test"))
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--table", type=Path, help="the tables as Markdown")
    arguments = parser.parse_args()
    repeats = 5 if arguments.quick else arguments.repeats
    result: dict[str, Any] = {"machine": speed_commands.describe_machine()}
    if arguments.only is not None:
        print("\n".join(case_table(measure_all(arguments.quick, repeats, arguments.only))))
        return 0
    result["cases"] = measure_all(arguments.quick, repeats)
    result["parts"] = {str(exit): speed_cases.parts("easysed-cnn", exit, repeats) for exit in (1, 4)}
    result |= commands(arguments.data, arguments.quick)
    result["ratios"] = ratios(result["cases"], result)
    if not arguments.quick:
        result["training step"] = training_step(5)
    text = "\n".join(markdown(result))
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.table is not None:
        arguments.table.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
