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
