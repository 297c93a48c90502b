"""What a detector says about an hour of sounds that it does not know: 360 recordings of 10 s, no target class in any.

    python benchmarks/outside_hour.py --model easysed-cnn --data ../shared/data --split test --out FILE.json

DATA/outside, chirps, synthetic speech (by the command espeak-ng), noise and silence: what is accepted there is a false
alarm. Right events on DATA/soundscapes are held against it. Tables go to stdout, everything to --out as JSON."""

import argparse
import json
import math
import shlex
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from modeling_easysed import SoundEventDetectionPipeline
from modeling_easysed.metrics import error_detection_auroc

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

from evaluate import json_ready
from outside_recordings import (
    NUM_RECORDINGS,
    NUM_SAMPLES,
    SAMPLING_RATE,
    SPLITS,
    outside_recordings,
    planned_recordings,
)
from soundscape_split import read_split

MIN_OVERLAP = 0.5
EVENT_FIELDS = ("label", "onset", "offset", "score", "confidence", "decision", "reasons", "unfamiliarity")
DECISIONS = {"accepted": "accept", "review": "review", "reject": "reject", "undecided": None}
DOUBTS = ("unfamiliar sound", "too quiet", "unfamiliar sound or too quiet")  # parts of an event's reasons
NO_SPEECH = "espeak-ng not found: chirps take the place of speech; install it with: apt-get install -y espeak-ng"
UNDECIDED = "events without a decision (no calibration?): the rate of accepted events says nothing"


def detect_hour(pipe: Callable[..., Any], recordings: Iterable[tuple[str, str, np.ndarray]]) -> list[dict[str, Any]]:
    """{"name", "kind", "events"} of every recording; `pipe(audio)` returns a `Detection`."""
    rows, num = [], sum(NUM_RECORDINGS.values())
    for name, kind, samples in tqdm(recordings, desc="outside hour", total=num, disable=not sys.stderr.isatty()):
        events = pipe({"array": samples, "sampling_rate": SAMPLING_RATE}).events
        events = [{field: getattr(event, field, None) for field in EVENT_FIELDS} for event in events]
        rows.append({"name": name, "kind": kind, "events": events})
    return rows


def target_unfamiliarity(pipe: Callable[..., Any], soundscapes_dir: str | Path, split: str) -> list[float | None]:
    """Unfamiliarity of the right events: each shares at least half of itself and of a reference of its class."""
    references, _, paths = read_split(soundscapes_dir, split)
    values = []
    for name, path in tqdm(paths.items(), desc="soundscapes", disable=not sys.stderr.isatty()):
        for event in pipe(str(path)).events:
            for onset, offset, label in references[name]:
                overlap = min(event.offset, offset) - max(event.onset, onset)
                if label == event.label and overlap >= MIN_OVERLAP * max(event.offset - event.onset, offset - onset):
                    values.append(getattr(event, "unfamiliarity", None))
                    break
    return values


def poisson_interval(count: int, tail: float = 0.05) -> tuple[float, float]:
    """Exact interval of the mean behind a Poisson count, `tail` left out on either side. Source: Garwood 1936."""
    bounds = []
    for most, probability in ((count - 1, 1 - tail), (count, tail)):  # P(N <= most) at the bound
        low, high = 0.0, 2.0 * count + 20.0
        for _ in range(60):  # bisection: P(N <= most) falls as the mean grows
            mean = (low + high) / 2
            found = sum(math.exp(n * math.log(mean) - mean - math.lgamma(n + 1)) for n in range(most + 1))
            low, high = (mean, high) if found > probability else (low, mean)
        bounds.append(low)
    return bounds[0], bounds[1]


def counts(rows: list[dict[str, Any]], target: list[float | None]) -> dict[str, float | None]:
    """One line of the table; `auroc`: P(event here less familiar than a right one), None where values are missing."""
    events = [event for row in rows for event in row["events"]]
    decisions, values = ([event[field] for event in events] for field in ("decision", "unfamiliarity"))
    sizes = {"recordings": len(rows), "minutes": len(rows) * NUM_SAMPLES / SAMPLING_RATE / 60, "reported": len(events)}
    sizes |= {name: decisions.count(decision) for name, decision in DECISIONS.items()}
    known = len(values) > 0 and len(target) > 0 and None not in [*values, *target]
    errors = [1] * len(values) + [0] * len(target)
    return sizes | {"auroc": error_detection_auroc([*values, *target], errors) if known else None}


def summary(rows: list[dict[str, Any]], target: list[float | None]) -> dict[str, Any]:
    """The figures of the rows of `detect_hour` and of the right events' unfamiliarity."""
    kinds = {row["kind"]: [other for other in rows if other["kind"] == row["kind"]] for row in rows} | {"all": rows}
    table = {kind: counts(own, target) for kind, own in kinds.items()}
    accepted, hours = table["all"]["accepted"], table["all"]["minutes"] / 60
    events = [{"name": row["name"], **event} for row in rows for event in row["events"]]
    texts = ["; ".join(event["reasons"] or []) for event in events]
    found = {doubt: sum(any(part in text for part in doubt.split(" or ")) for text in texts) for doubt in DOUBTS}
    return {
        "kinds": table,
        "accepted_per_hour": [accepted / hours, *(bound / hours for bound in poisson_interval(accepted))],
        "share_in_doubt": {doubt: count / len(events) if events else None for doubt, count in found.items()},
        "accepted": [event for event in events if event["decision"] == "accept"],
        "notes": [NO_SPEECH] * ("speech" not in kinds) + [UNDECIDED] * (table["all"]["undecided"] > 0),
    }


def report(results: dict[str, Any]) -> str:
    """The table by kind, the rate, the doubts and the accepted events."""
    lines = [f"{'':10}" + "".join(f"{name:>11}" for name in results["kinds"]["all"])]
    for kind, row in results["kinds"].items():
        lines.append(f"{kind:10}" + "".join(f"{'-' if cell is None else f'{cell:.4g}':>11}" for cell in row.values()))
    lines.append("auroc: unfamiliarity of these events against that of right events on target soundscapes")
    lines.append("accepted per hour: {:.1f}, 90 % interval {:.1f} to {:.1f}".format(*results["accepted_per_hour"]))
    for doubt, share in results["share_in_doubt"].items():
        lines.append(f"share of events with the reason {doubt}: {'-' if share is None else f'{share:.3f}'}")
    lines += [f"note: {note}" for note in results["notes"]] + [f"accepted events: {len(results['accepted'])}"]
    line = "  {name:45} {label:15} {onset:5.2f}-{offset:5.2f} s  {confidence!s:.6}  {reasons}"
    return "\n".join(lines + [line.format(**event) for event in results["accepted"]])


def evaluate_hour(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs the model on the target soundscapes, then on the hour; returns figures, events and arguments."""
    pipe = SoundEventDetectionPipeline.from_pretrained(arguments.model)
    detect = partial(pipe, passes=arguments.passes, shifts=arguments.shifts, uncertainty=arguments.uncertainty, seed=0)
    target = target_unfamiliarity(detect, Path(arguments.data) / "soundscapes", arguments.split)
    rows = detect_hour(detect, outside_recordings(Path(arguments.data) / "outside", arguments.split, arguments.seed))
    asked = {"arguments": vars(arguments), "command": shlex.join(["python", *sys.argv])}
    return asked | summary(rows, target) | {"recordings": rows, "right_events_unfamiliarity": target}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="bundled name, checkpoint folder or Hub id")
    parser.add_argument("--data", required=True, help="folder with outside/ and soundscapes/")
    parser.add_argument("--split", default="test", choices=SPLITS)
    parser.add_argument("--out", required=True, help="JSON file for all figures")
    for name, default in (("passes", 20), ("shifts", 2), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--uncertainty", default="mc", choices=("mc", "exits", "moments", "none"))
    arguments = parser.parse_args()
    try:
        if "speech" not in planned_recordings():
            print(f"warning: {NO_SPEECH}", file=sys.stderr)
        Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
        results = evaluate_hour(arguments)
        print(report(results))
        Path(arguments.out).write_text(json.dumps(json_ready(results), indent=1) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
