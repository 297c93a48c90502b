"""Hours of a stream: memory as it goes on, latency of every event, and the events of the recording as a whole.

    python benchmarks/streaming.py --hours 2 --out benchmarks/results/streaming.json

The test soundscapes follow each other in blocks of random length, 10 ms to 2 s, over and over."""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from runtimes import add_runtime, detector_on

from modeling_easysed import DEFAULT_CHECKPOINT, Event, EventStream
from modeling_easysed.audio_easysed import read_audio

RATE = 16000
TOLERANCE_S = 0.1


def resident_mb() -> float:
    """Memory of this process now, not its peak (Linux)."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * 4096 / 2**20


def drive(stream: EventStream, samples: np.ndarray, seconds: float, seed: int) -> dict:
    """Pushes `samples` over and over; returns events with the time when each came, and memory by the minute."""
    rng, came, memory, position, last = np.random.default_rng(seed), [], [], 0, -60.0
    begin = time.perf_counter()
    while stream.duration < seconds:
        size = int(RATE * np.exp(rng.uniform(np.log(0.01), np.log(2.0))))
        block = samples[position : position + size]
        came += [(event, stream.duration) for event in stream.push(block)]
        position = 0 if position + size >= len(samples) else position + size
        if stream.duration >= last + 60:
            last = stream.duration
            memory.append(resident_mb())
    end = stream.duration
    came += [(event, end) for event in stream.close()]
    return {"came": came, "memory": memory, "compute_s": time.perf_counter() - begin}


def same_events(streamed: list[Event], offline: list[Event]) -> int:
    """How many of both have a partner of the same label whose borders lie within the tolerance."""
    rest, num_same = list(offline), 0
    for event in streamed:
        for other in rest:
            distance = max(abs(other.onset - event.onset), abs(other.offset - event.offset))
            if other.label == event.label and distance <= TOLERANCE_S:
                rest.remove(other)
                num_same += 1
                break
    return num_same


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_CHECKPOINT)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/soundscapes/audio/test"))
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    add_runtime(parser)
    parser.add_argument("--out", type=Path, help="results, JSON")
    arguments = parser.parse_args()
    pipe = detector_on(arguments.runtime, arguments.model)
    samples = np.concatenate([read_audio(path, RATE).samples for path in sorted(arguments.data.glob("*"))])
    stream = EventStream(pipe, RATE)
    result = drive(stream, samples, arguments.hours * 3600, arguments.seed)
    first_round = len(samples) / RATE - 30.0
    offline = pipe({"array": samples, "sampling_rate": RATE}, exit=pipe.model.num_exits).events
    offline = [event for event in offline if event.offset < first_round]
    streamed = [event for event, _ in result["came"] if event.offset < first_round]
    waits = [at_s - event.offset for event, at_s in result["came"]]
    summary = {
        "model": arguments.model,
        "runtime": arguments.runtime,
        "hours": arguments.hours,
        "events": len(result["came"]),
        "stated_latency_s": round(stream.latency_s, 2),
        "seconds_after_offset": {
            name: round(float(np.quantile(waits, quantile)), 2)
            for name, quantile in (("median", 0.5), ("95 %", 0.95), ("largest", 1.0))
        },
        "first_round": {
            "streamed": len(streamed),
            "offline": len(offline),
            "same_within_100_ms": same_events(streamed, offline),
        },
        "resident_mb": {
            "after_10_minutes": round(result["memory"][min(10, len(result["memory"]) - 1)], 1),
            "at_the_end": round(result["memory"][-1], 1),
            "largest": round(max(result["memory"]), 1),
        },
        "times_real_time": round(arguments.hours * 3600 / result["compute_s"], 1),
    }
    print(json.dumps(summary, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
