"""What a model misses and what it takes for what, on a split of strongly labelled soundscapes.

    python training/confusions.py --model easysed-cnn --data ../shared/data/soundscapes --split test

A reference is missed when events of its class cover less than 30 % of it. An event is false when references of its
class cover less than 30 % of it; it then lies on the other class that covers most of it, if that is 30 % or more."""

import argparse
from collections import Counter

from soundscape_split import class_names, load_model, predict_split, read_split

from modeling_easysed.decoding_easysed import decode, decoding_for_exit

MIN_COVERAGE = 0.3

Span = tuple[float, float, str]  # onset, offset, label


def coverage(span: Span, others: list[Span], label: str) -> float:
    """Share of a span that the others of one label cover; those of one label do not overlap."""
    shared = [min(span[1], other[1]) - max(span[0], other[0]) for other in others if other[2] == label]
    return sum(max(0.0, overlap) for overlap in shared) / (span[1] - span[0])


def confused_with(event: Span, references: list[Span], classes: list[str]) -> str | None:
    """The class that a false event lies on, "nothing", or None for an event that is not false."""
    shares = {label: coverage(event, references, label) for label in classes}
    if shares.pop(event[2]) >= MIN_COVERAGE:
        return None
    best = max(shares, key=shares.__getitem__)
    return best if shares[best] >= MIN_COVERAGE else "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="bundled name, checkpoint folder or Hub id")
    parser.add_argument("--data", required=True, help="folder with SPLIT.tsv and audio/SPLIT/")
    parser.add_argument("--split", default="validation", help="which split (default: validation)")
    arguments = parser.parse_args()
    references, _, paths = read_split(arguments.data, arguments.split)
    model, extractor = load_model(arguments.model)
    classes = class_names(model, references)
    decoding = decoding_for_exit(model.config.decoding, model.num_exits)
    missed, total, false = Counter(), Counter(), {label: Counter() for label in classes}
    for name, (probabilities, borders) in predict_split(model, extractor, paths).items():
        events = [
            (box.onset, box.offset, classes[box.class_index]) for box in decode(probabilities[-1], borders, decoding)
        ]
        spans = [tuple(reference) for reference in references[name]]
        total.update(span[2] for span in spans)
        missed.update(span[2] for span in spans if coverage(span, events, span[2]) < MIN_COVERAGE)
        for event in events:
            other = confused_with(event, spans, classes)
            if other is not None:
                false[event[2]][other] += 1
    for label in classes:
        found = ", ".join(f"{count} on {other}" for other, count in false[label].most_common())
        print(f"{label}: {missed[label]} of {total[label]} missed; false: {found if found else 'none'}")


if __name__ == "__main__":
    main()
