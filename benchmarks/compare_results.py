"""Whether two results of `training/evaluate.py` say the same: every figure but times and commands.

    python training/evaluate.py --model easysed-cnn --data ../shared/data/soundscapes --runtime onnx --out onnx.json
    python benchmarks/compare_results.py benchmarks/results/easysed-cnn.json onnx.json

Prints how many figures were compared and the largest difference of each part; ends with 1 where one is above --within,
anything else differs, or nothing could be compared."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PARTS = ("exits", "trust")
NOT_COMPARED = ("costs", "milliseconds")  # what hangs on the machine


def differences(one: Any, other: Any, where: str = "") -> Iterator[tuple[str, float]]:
    """(place, distance) of every number; infinite for anything else that differs."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            if key in NOT_COMPARED:
                continue
            if key in one and key in other:
                yield from differences(one[key], other[key], f"{where}/{key}")
            else:
                yield f"{where}/{key}", float("inf")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (own, its) in enumerate(zip(one, other, strict=True)):
            yield from differences(own, its, f"{where}/{number}")
    elif all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (one, other)):
        yield where, abs(one - other)
    elif one != other:
        yield where, float("inf")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--within", type=float, default=1e-4, help="largest difference allowed (default: 1e-4)")
    options = parser.parse_args(argv)
    one, other = (json.loads(path.read_text(encoding="utf-8")) for path in (options.one, options.other))
    is_same = any(part in one and part in other for part in PARTS)
    for part in PARTS:
        if part not in one or part not in other:
            print(f"{part}: not in both")
            continue
        found = list(differences(one[part], other[part]))
        place, largest = max(found, key=lambda pair: pair[1], default=("", 0.0))
        is_same = is_same and largest <= options.within
        print(f"{part}: {len(found)} figures, largest difference {largest:.2g}{f' ({place})' if largest > 0 else ''}")
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
