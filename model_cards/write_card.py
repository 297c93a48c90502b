"""Write a checkpoint's model card from its config, its measured results and the licences of its training clips.

    python model_cards/write_card.py --model DIR --results results.json --clips ../shared/data/esc10

Writes DIR/README.md, and DIR/reliability.png where the results hold what it shows. What was not measured is said to be
so: nothing stands in a card that no file says."""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import ModelCard, ModelCardData

from modeling_easysed import EasySEDForSoundEventDetection
from modeling_easysed.bundled import read_config, resolve_checkpoint
from modeling_easysed.costs import exit_costs
from modeling_easysed.model_cards.attribution import FILE_NAME as ATTRIBUTION_NAME
from modeling_easysed.model_cards.attribution import Clip, license_counts, read_attribution, write_attribution
from modeling_easysed.model_cards.measured import (
    check_results,
    class_rows,
    cost_rows,
    data_name,
    eval_results,
    exit_rows,
    label_names,
    trust_figures,
    was_fitted_on,
)
from modeling_easysed.model_cards.reliability_figure import FILE_NAME as FIGURE_NAME
from modeling_easysed.model_cards.reliability_figure import draw_reliability

BACKBONES = {"cnn": "A CNN", "transformer": "An AST-style Transformer", "ast": "An Audio Spectrogram Transformer"}
CITATIONS = {
    "esc10": 'ESC-10, K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015'
}
TAGS = ["sound-event-detection", "audio", "self-distillation"]


@dataclass
class CardSource:
    """Everything that a card is made of.

    Attributes:
        name: Hub id, or the name of a bundled checkpoint.
        config: the checkpoint's config.json; a student's own for a student.
        costs: of `modeling_easysed.costs.exit_costs`, shallowest exit first; the last is the card's own.
        results: what `training/evaluate.py --out` wrote for the teacher, or None.
        clips: the training clips with authors and licences; empty = not known.
        license: of the weights, or None.
        teacher: Hub id of the teacher, for a student.
        base_model: Hub id that the model was fine-tuned from, or None.
        students: Hub ids of a teacher's students.
        revision: tag that the examples load, or None.
        figure: file name of the reliability figure beside the card, or None.
    """

    name: str
    config: dict[str, Any]
    costs: list[dict[str, Any]]
    results: dict[str, Any] | None = None
    clips: list[Clip] = field(default_factory=list)
    license: str | None = None
    teacher: str | None = None
    base_model: str | None = None
    students: list[str] = field(default_factory=list)
    revision: str | None = None
    figure: str | None = None


def render(source: CardSource) -> str:
    """The card's text, front matter first."""
    config, results = source.config, source.results
    provenance = config.get("provenance")
    provenance = {} if provenance is None else provenance
    exits, decoding = [cost["exit"] for cost in source.costs], config.get("decoding")
    rows = cost_rows(source.costs, results)
    # what the results lack is None or empty, and the template says so
    text = _template().render(
        **{name: value for name, value in vars(source).items() if name not in ("config", "costs")},
        front_matter=front_matter(source).to_yaml(),
        exit_index=exits[-1],
        backbone=BACKBONES[config["backbone"]],
        labels=label_names(config),
        on_hub="/" in source.name,
        pinned="" if source.revision is None else f', revision="{source.revision}"',
        frame_duration_ms=_frame_duration_ms(config),
        decoding=decoding,
        tuned_on=None if decoding is None else decoding.get("tuned_on"),
        calibration=config.get("calibration"),
        provenance=provenance,
        provenance_json=json.dumps(provenance, indent=2, ensure_ascii=False),
        citation=CITATIONS.get(provenance.get("clips")),
        data=None if results is None else data_name(results),
        exit_rows=[] if results is None else exit_rows(results, exits),
        class_rows=[] if results is None else class_rows(results, exits[-1]),
        cost_rows=rows,
        has_network_ms=any(row["network_ms"] is not None for row in rows),
        has_pipeline_ms=any(row["plain_ms"] is not None or row["default_ms"] is not None for row in rows),
        trust=trust_figures(results, exits[-1], source.teacher is not None),
        was_fitted_on_these=was_fitted_on(results, config),
        license_counts=license_counts(source.clips),
    )
    return str(ModelCard(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"))


def front_matter(source: CardSource) -> ModelCardData:
    """The metadata that the Hub reads."""
    provenance = source.config.get("provenance")
    clips = None if provenance is None else provenance.get("clips")
    measured = [] if source.results is None else eval_results(source.results, source.costs[-1]["exit"])
    return ModelCardData(
        license=source.license,
        library_name="transformers",
        pipeline_tag="audio-classification",  # the Hub's nearest task: it knows no detection of sound events
        tags=TAGS,
        datasets=None if clips is None else [clips],
        base_model=source.base_model if source.teacher is None else source.teacher,
        model_name=source.name if measured else None,
        eval_results=measured if measured else None,
    )


def _frame_duration_ms(config: dict[str, Any]) -> str:
    return f"{1000 * config['frame_stride'] * config['hop_length_samples'] / config['sampling_rate']:g}"


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "cell": cell,
        "code": code,
        "figure": lambda value: "-" if value is None else f"{value:.3f}",
        "milliseconds": lambda value: "not measured" if value is None else f"{value:.0f}",
        "or_unknown": lambda value: "not known" if value == "" else value,
        "percent": lambda value: f"{100 * value:.0f} %",
    }
    return environment.from_string(Path(__file__).with_name("template.md").read_text(encoding="utf-8"))


def cell(text: str) -> str:
    """Free text inside a table: what Markdown would read as its own is escaped, line breaks become spaces."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(str(text).split()))


def code(text: str) -> str:
    """Free text as a code span, with a longer fence where it holds backticks itself."""
    text = " ".join(str(text).split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


# ---- files and the command -------------------------------------------------------------------------------------------


def write_card(source: CardSource, folder: Path) -> None:
    """Writes the card, the table of clips where there are any, and a teacher's figure, into one folder."""
    if source.teacher is None and draw_reliability(source.results, folder / FIGURE_NAME):
        source = replace(source, figure=FIGURE_NAME)
    if source.clips:
        write_attribution(source.clips, folder / ATTRIBUTION_NAME)
    (folder / "README.md").write_text(render(source), encoding="utf-8")


def stated_license(folder: Path, config: dict[str, Any]) -> str | None:
    """The weights' licence by the config's provenance, else by the card that lies in the folder already."""
    provenance, card = config.get("provenance"), folder / "README.md"
    if provenance is not None and "license" in provenance:
        return str(provenance["license"])
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    return ModelCard(text, ignore_metadata_errors=True).data.get("license") if text.startswith("---") else None


def read_results(path: Path | None, config: dict[str, Any]) -> dict[str, Any] | None:
    """The results file of this checkpoint, or None without one.

    Raises:
        ValueError: no such file, no JSON, or results of another checkpoint.
    """
    if path is None:
        return None
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is not readable JSON ({error}): pass what training/evaluate.py --out wrote"
        ) from error
    check_results(results, config)
    return results


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="checkpoint folder or bundled name")
    parser.add_argument("--results", type=Path, help="what training/evaluate.py --out wrote")
    parser.add_argument("--clips", type=Path, help="folder of the training clips, with metadata.csv")
    parser.add_argument("--name", help="Hub id that the card speaks of (default: the folder's name)")
    parser.add_argument("--license", help="of the weights (default: as in the config or in the card that is there)")
    arguments = parser.parse_args(argv)
    try:
        folder = local_folder(arguments.model)
        config = read_config(folder)
        source = CardSource(
            name=folder.resolve().name if arguments.name is None else arguments.name,
            config=config,
            costs=exit_costs(EasySEDForSoundEventDetection.from_pretrained(folder)),
            results=read_results(arguments.results, config),
            clips=read_attribution(folder, arguments.clips, config.get("provenance")),
            license=stated_license(folder, config) if arguments.license is None else arguments.license,
        )
    except ValueError as error:
        print(f"write_card.py: error: {error}", file=sys.stderr)
        return 2
    write_card(source, folder)
    print(f"wrote {folder / 'README.md'}")
    return 0


def local_folder(name: str) -> Path:
    """The folder of a bundled name or path.

    Raises:
        ValueError: for a Hub id or a broken folder.
    """
    folder = Path(resolve_checkpoint(name))
    if not folder.is_dir():
        raise ValueError(f"the model must be a local folder or a bundled name, got {name}: download it first")
    return folder


if __name__ == "__main__":
    sys.exit(main())
