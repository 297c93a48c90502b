"""Teach a model one more sound from a handful of clips, and say honestly how well that went.

    accelerate launch training/finetune.py --base MODEL --positives DIR --background DIR --label NAME --output_dir DIR

--positives: five clips of the new sound or more; --background: recordings in which it does not occur, the more the
better. With --rehearsal (labelled clips of the old classes) or --old_data (labelled recordings of them), all weights
may learn, not only the new class's own. Writes output_dir/model, report.md and report.json."""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from evaluate import json_ready
from new_label import TUNING_STEPS, with_new_label
from precision import has_bf16
from rare_event_calibration import calibrate_new_label
from rare_event_data import check_label, read_rare_event_data
from rare_event_decision import Settings, choose_phase, measure, new_decoding
from rare_event_old_classes import LabelledSplit
from rare_event_report import markdown
from rare_event_scenes import Featurizer, SceneMixer, make_scenes
from rare_event_validation import Learning
from soundscape_split import load_model

from modeling_easysed import EasySEDConfig, __version__
from modeling_easysed.receipt_easysed import model_identity

PATHS = ("base", "positives", "background", "rehearsal", "old_data")


def build_accelerator() -> Accelerator:
    """On the GPU where there is one; bf16 where the hardware has it.

    Raises:
        ValueError: for more than one process.
    """
    on_cpu = not torch.cuda.is_available()
    bf16 = has_bf16(torch.device("cpu" if on_cpu else "cuda"))
    accelerator = Accelerator(cpu=on_cpu, mixed_precision="bf16" if bf16 else "no")
    if accelerator.num_processes > 1:
        raise ValueError(
            f"finetune.py runs in one process, got {accelerator.num_processes}: accelerate launch --num_processes 1 ..."
        )
    return accelerator


def rehearsal_folds(settings: Settings, config: EasySEDConfig) -> list[str] | None:
    """The folds of --rehearsal to read: as asked, else those that the base was trained on where there are folds."""
    if settings.rehearsal is None or settings.rehearsal_folds is not None:
        return settings.rehearsal_folds
    table = Path(settings.rehearsal, "metadata.csv")
    has_folds = table.is_file() and "fold" in table.read_text(encoding="utf-8-sig").split("\n", 1)[0].split(",")
    return config.provenance.get("folds") if has_folds and config.provenance is not None else None


def fine_tune_base(settings: Settings) -> dict[str, Any]:
    """Everything: reads, learns, measures, calibrates, saves; returns the report.

    Raises:
        ValueError, OSError: for what cannot work.
    """
    start_s, out = time.monotonic(), Path(settings.output_dir)
    if (out / "model").exists():
        raise ValueError(f"--output_dir {out} holds a model already: choose another")
    accelerator = build_accelerator()
    base, extractor = load_model(settings.base)
    base = base.to(accelerator.device)
    labels = [base.config.id2label[index] for index in range(base.config.num_labels)]
    check_label(settings.label, labels)
    check_decoding(base.config)
    split = None
    if settings.old_data is not None:
        split = LabelledSplit(settings.old_data, settings.old_split, labels)
    say("reading")
    data = read_rare_event_data(
        settings.label,
        Path(settings.positives),
        Path(settings.background),
        extractor.sampling_rate,
        gap_s=settings.gap_s,
        max_background_hours=settings.max_background_hours,
        seed=settings.seed,
        rehearsal=None if settings.rehearsal is None else Path(settings.rehearsal),
        rehearsal_folds=rehearsal_folds(settings, base.config),
    )
    say(
        f"{len(data.positives)} clips of {len(data.groups)} recordings, {60 * data.background_hours:.1f} minutes of "
        f"background, {len(data.rehearsal)} clips of old classes; mixing"
    )
    mixer = SceneMixer(data, extractor.sampling_rate, settings.seed)
    scenes = make_scenes(mixer, Featurizer(extractor, base.config, settings.seed))
    learning = Learning(base, with_new_label(base, settings.label, settings.seed), data, scenes, settings.seed)
    say("phase 1: the new class on frozen features, cross-validated")
    choice = choose_phase(learning, settings, accelerator, split, extractor)
    curve = learning.curve()
    say("measuring")
    report = {"label": settings.label, "base": base_of(base, settings)} | measure(
        learning, choice, curve, settings, split, extractor
    )
    model = choice.phase.model
    model.config.decoding = new_decoding(base.config.decoding, learning, report["exits"], settings)
    model.config.provenance = provenance(base, report, settings)
    if settings.calibration == "auto":
        say("calibrating")
        model.config.calibration, report["calibration"] = calibrate_new_label(learning, mixer, choice, split, extractor)
    else:
        report["calibration"] = {"kind": "none", "sentence": "Not calibrated, as asked (--calibration none)."}
    model.save_pretrained(out / "model")
    extractor.save_pretrained(out / "model")
    report["minutes"] = round((time.monotonic() - start_s) / 60, 2)
    report["command"] = command_without_paths(settings)
    return report


def check_decoding(config: EasySEDConfig) -> None:
    """
    Raises:
        ValueError: when the base is not decoded by boxes, whose scores are what thresholds are chosen on.
    """
    method = "boxes" if config.decoding is None else config.decoding.get("method", "boxes")
    if method != "boxes":
        raise ValueError(
            f"--base must be decoded by 'boxes', got {method!r}: run training/tune_decoding.py --method boxes first"
        )


def base_of(base: Any, settings: Settings) -> dict[str, Any]:
    """Name, id and classes of the base."""
    name, revision = model_identity(base)
    labels = [base.config.id2label[index] for index in range(base.config.num_labels)]
    return {"name": short_name(settings.base if name in (None, "model") else name), "id": revision, "labels": labels}


def short_name(path: str) -> str:
    """The last part of a path that says something; a Hub id stays."""
    own = Path(path)
    if not own.exists():
        return path
    own = own.resolve()
    return own.parent.name if own.name == "model" else own.name


def provenance(base: Any, report: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Of the base, with one more entry of "added_classes"."""
    before = {} if base.config.provenance is None else base.config.provenance
    added = {
        "label": settings.label,
        "base": report["base"]["name"],
        "base_id": report["base"]["id"],
        "package_version": __version__,
        "command": command_without_paths(settings),
        "seed": settings.seed,
        "phase": report["phase"]["number"],
        **report["data"],
    }
    return {**before, "added_classes": [*before.get("added_classes", []), added]}


def command_without_paths(settings: Settings) -> str:
    """The command with names in the place of paths, and without where it writes: nobody's folders are published."""
    parts = ["accelerate launch training/finetune.py"]
    for name, value in vars(settings).items():
        if name == "output_dir" or value is None or value == getattr(Settings, name, None):
            continue
        values = value if isinstance(value, list) else [value]
        words = [short_name(word) if name in PATHS else str(word) for word in values]
        parts.append(f"--{name} {shlex.join(words)}")
    return " ".join(parts)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(argv: list[str] | None = None) -> Settings:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="bundled name, checkpoint folder or Hub id")
    parser.add_argument(
        "--positives", required=True, help="folder of clips of the new sound, each with the sound in it"
    )
    parser.add_argument("--background", required=True, help="folder of recordings in which it does not occur")
    parser.add_argument("--label", required=True, help="name of the new sound")
    parser.add_argument("--output_dir", required=True, help="where model/, report.md and report.json go")
    parser.add_argument("--rehearsal", help="folder of labelled clips of the old classes, with metadata.csv")
    parser.add_argument("--rehearsal_folds", nargs="+", help="folds to read (default: those of the base's training)")
    parser.add_argument("--old_data", help="folder with SPLIT.tsv and audio/SPLIT/ of labelled recordings")
    parser.add_argument("--old_split", default="validation", help="which split of --old_data (default: validation)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--gap_s", type=float, default=0.3, help="pauses within one event, seconds (default: 0.3)")
    parser.add_argument(
        "--max_false_alarms_per_hour",
        type=float,
        default=1.0,
        help="of the threshold, on background and old sounds (default: 1)",
    )
    parser.add_argument("--max_background_hours", type=float, default=2.0, help="read at most so much (default: 2)")
    parser.add_argument(
        "--fine_tune", choices=("auto", "never", "always"), default="auto", help="train all weights (default: auto)"
    )
    parser.add_argument("--fine_tune_steps", type=int, default=TUNING_STEPS, help=f"default: {TUNING_STEPS}")
    parser.add_argument("--calibration", choices=("auto", "none"), default="auto", help="confidences (default: auto)")
    return Settings(**vars(parser.parse_args(argv)))


def main(argv: list[str] | None = None) -> int:
    settings = parse(argv)
    try:
        settings.check()
        report = fine_tune_base(settings)
    except (ValueError, OSError) as error:
        print(f"finetune.py: error: {error}", file=sys.stderr)
        return 2
    out, text = Path(settings.output_dir), markdown(report)
    (out / "report.json").write_text(json.dumps(json_ready(report), indent=1) + "\n", encoding="utf-8")
    (out / "report.md").write_text(text, encoding="utf-8")
    print(text)
    print(f"model saved to {out / 'model'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
