"""Write a checkpoint's model card from its config, its measured results and the licences of its training clips.

    python model_cards/write_card.py --model DIR --results results.json --clips ../shared/data/esc10

Writes DIR/README.md: what it is, how to use it, figures per exit and class, limits, provenance, attribution."""

import argparse
import csv
import json
from pathlib import Path
from string import Template
from typing import Any

TEMPLATE = Path(__file__).with_name("card_template.md")


def exit_rows(results: dict[str, Any]) -> list[str]:
    """One table row per exit: PSDS1, PSDS2, macro event F1, micro segment F1."""
    rows = ["| exit | PSDS1 | PSDS2 | event F1 (macro) | segment F1 (micro) |", "| --- | --- | --- | --- | --- |"]
    for name, scores in results["exits"].items():
        figures = (
            _area(scores["psds1"]),
            _area(scores["psds2"]),
            scores["event_based"]["macro"]["f1"],
            scores["segment_based"]["micro"]["f1"],
        )
        rows.append(f"| {name} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |")
    return rows


def _area(scenario: dict[str, Any]) -> float:
    """PSDS from boxes where the decoding makes them, else from frame scores."""
    return scenario["frames" if scenario["boxes"] is None else "boxes"]["psds"]


def class_rows(results: dict[str, Any]) -> list[str]:
    """One table row per class for the deepest exit."""
    deepest = results["exits"][list(results["exits"])[-1]]
    event, segment = deepest["event_based"]["class_wise"], deepest["segment_based"]["class_wise"]
    rows = ["| class | event F1 | segment F1 |", "| --- | --- | --- |"]
    return rows + [f"| {label} | {event[label]['f1']:.3f} | {segment[label]['f1']:.3f} |" for label in event]


def trust_text(results: dict[str, Any]) -> str:
    """What was measured of the calibration; says so where nothing was."""
    trust = results.get("trust")
    if trust is None:
        return "Not calibrated: `confidence`, intervals and decisions are null."
    name, one = next(iter(trust["settings"].items()))
    on, accept = trust["fitted_on"], one["decisions"]["accept"]
    share = "none" if accept["share_right"] is None else f"{100 * accept['share_right']:.0f} %"
    num_events = sum(on["num_events"].values())
    lines = [
        f"Calibration `{trust['calibration']}`, fitted on {on['num_recordings']} recordings of `{on['split']}` with "
        f"{num_events} events and on sounds of no target class. An event is right when half of it lies on events of "
        f"its class and it covers half of one. On the same recordings as above, default setting ({name}):",
        "",
        "| | ECE | Brier | NLL | AURC |",
        "| --- | --- | --- | --- | --- |",
    ]
    for title, kind in (
        ("raw score", "raw"),
        ("temperature scaling alone", "temperature"),
        ("confidence", "confidence"),
    ):
        lines.append(
            f"| {title} | " + " | ".join(f"{one[kind][key]:.3f}" for key in ("ece", "brier", "nll", "aurc")) + " |"
        )
    lines += [
        "",
        f"90 % intervals hold {100 * one['onset']['coverage']:.0f} % of the true onsets and "
        f"{100 * one['offset']['coverage']:.0f} % of the true offsets. Of {one['num_reported']} reported events "
        f"{accept['num']} are accepted, of which {share} are right.",
        "",
        *(f"- {sentence}" for sentence in one["decisions"]["rule"]),
    ]
    return "\n".join(lines)


def attribution_rows(clips: Path, folds: list[str], excluded: list[str]) -> list[str]:
    """One table row per training clip: its author, licence and source."""
    with (clips / "metadata.csv").open(newline="", encoding="utf-8") as file:
        used = [row for row in csv.DictReader(file) if row["fold"] in folds and row["license"] not in excluded]
    rows = ["| clip | author | licence | source |", "| --- | --- | --- | --- |"]
    for row in used:
        rows.append(f"| {Path(row['file_name']).name} | {row['author']} | {row['license']} | {row['source_url']} |")
    return rows


def render(config: dict[str, Any], results: dict[str, Any], clips: Path, name: str) -> str:
    """The card's text."""
    provenance = config["provenance"]
    labels = [config["id2label"][str(index)] for index in range(len(config["id2label"]))]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        name=name,
        backbone={"cnn": "CNN", "transformer": "AST-style Transformer"}[config["backbone"]],
        labels=", ".join(labels),
        num_exits=len(results["exits"]),
        folds=", ".join(provenance["folds"]),
        data=f"`{results['split']}` ({results['num_files']} soundscapes of 10 s)",
        command=results["command"],
        exit_table="\n".join(exit_rows(results)),
        class_table="\n".join(class_rows(results)),
        trust=trust_text(results),
        provenance=json.dumps(provenance, indent=2),
        num_clips=len(attribution_rows(clips, provenance["folds"], provenance["excluded_licenses"])) - 2,
        attribution="\n".join(attribution_rows(clips, provenance["folds"], provenance["excluded_licenses"])),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--results", type=Path, required=True, help="what training/evaluate.py --out wrote")
    parser.add_argument("--clips", type=Path, required=True, help="folder of the training clips, with metadata.csv")
    arguments = parser.parse_args()
    config = json.loads((arguments.model / "config.json").read_text(encoding="utf-8"))
    results = json.loads(arguments.results.read_text(encoding="utf-8"))
    card = render(config, results, arguments.clips, arguments.model.resolve().name)
    (arguments.model / "README.md").write_text(card, encoding="utf-8")
    print(f"wrote {arguments.model / 'README.md'}")


if __name__ == "__main__":
    main()
