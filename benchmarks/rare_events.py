"""Leave one class out: what `training/finetune.py` makes of 5, 10 and 20 clips of a class that the base never heard.

    python benchmarks/rare_events.py --base dog_bark=runs/loco-dog_bark/model --base rooster=runs/loco-rooster/model \\
        --clips 5 10 20 --seeds 0 1 2 --out rare_events.json

Every base must have been trained without its class. Clips come from folds 1 to 3 of ESC-10, one recording after the
other; background: soundscapes of the other classes and outside sounds, both of the training side. Tested on fold 5:
the test soundscapes, and further ones mixed of the same clips and of outside sounds of the test split, two hours of
them without the class. The model is told nothing of fold 5. JSON goes to --out, a Markdown table to stdout; what --out
holds already is not done again."""

import argparse
import csv
import json
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

from data import Clip, decode_clips, load_clips_dataset, read_metadata
from evaluate import json_ready
from finetune import fine_tune_base
from rare_event_decision import Settings, alarm_figures, recall_figures
from rare_event_old_classes import LabelledSplit, changes
from rare_event_report import markdown
from rare_event_scores import RATES_PER_HOUR, judge_columns, threshold_at
from rare_event_statistics import FalseAlarms, Recall
from soundscape_split import load_model, read_split
from soundscapes import Recipe, SoundscapeMixer

from modeling_easysed.audio_easysed import read_audio
from modeling_easysed.decoding_easysed import class_parameters, decoding_for_exit, frame_borders

TRAINING_FOLDS, TEST_FOLD = ["1", "2", "3"], "5"
EXCLUDED_LICENSES = ["CC-Sampling+"]
TEST_SEED, BACKGROUND_SEED = 105, 106
TEST_SNR_DB = (3.0, 27.0)  # as in the test soundscapes
SAMPLING_RATE = 16000
Trial = tuple[str, int, int]  # class, clips, seed
RATE_PER_HOUR = 1.0


@dataclass
class Scene:
    """One recording of the test: samples (samples,), events of the class [(onset, offset, clip)], seconds."""

    samples: np.ndarray
    events: list[tuple[float, float, str]]


# ---- what is learned from --------------------------------------------------------------------------------------------


def draw_clips(data_dir: Path, label: str, num: int, seed: int) -> list[dict[str, str]]:
    """Rows of `num` clips of a class from the training folds: of every recording one, then second ones, at random.

    Raises:
        ValueError: when there are not so many.
    """
    rows = [
        row
        for row in read_metadata(data_dir / "esc10")
        if row["label"] == label and row["fold"] in TRAINING_FOLDS and row["license"] not in EXCLUDED_LICENSES
    ]
    if len(rows) < num:
        raise ValueError(f"{label} has {len(rows)} clips in folds {', '.join(TRAINING_FOLDS)}, {num} are asked")
    rng = np.random.default_rng([seed, num])
    drawn = [rows[index] for index in rng.permutation(len(rows))]
    taken: dict[str, int] = {}
    turns = []
    for row in drawn:
        turns.append(taken.get(row["freesound_id"], 0))
        taken[row["freesound_id"]] = turns[-1] + 1
    order = sorted(range(len(drawn)), key=lambda index: (turns[index], index))
    return [drawn[index] for index in order[:num]]


def write_folder(folder: Path, rows: list[dict[str, str]], audio_dir: Path) -> Path:
    """A folder with metadata.csv whose audio is that of another folder."""
    folder.mkdir(parents=True)
    (folder / "audio").symlink_to((audio_dir / "audio").resolve())
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def write_background(folder: Path, data_dir: Path, label: str, minutes: float) -> Path:
    """Soundscapes of the training folds and of outside sounds, without the class."""
    folder.mkdir(parents=True)
    clips = [clip for clip in esc10_clips(data_dir, TRAINING_FOLDS) if clip.label != label]
    mixer = SoundscapeMixer(clips + outside_clips(data_dir, "train"), SAMPLING_RATE, Recipe(num_variants=1), 0)
    for number in range(round(minutes * 60 / mixer.recipe.duration_s)):
        samples = mixer.mix(BACKGROUND_SEED, number).samples
        soundfile.write(folder / f"background{number:04d}x.flac", samples, SAMPLING_RATE)
    return folder


def esc10_clips(data_dir: Path, folds: list[str]) -> list[Clip]:
    """Clips of some folds, without those whose licence forbids to release what is derived from them."""
    return decode_clips(load_clips_dataset(data_dir / "esc10", "fold", folds, EXCLUDED_LICENSES), SAMPLING_RATE)


def outside_clips(data_dir: Path, split: str) -> list[Clip]:
    return decode_clips(load_clips_dataset(data_dir / "outside", "split", [split]), SAMPLING_RATE)


# ---- what is tested on -----------------------------------------------------------------------------------------------


def scenes_of_test(data_dir: Path, label: str, hours: float, min_events: int) -> list[Scene]:
    """The test soundscapes, `hours` of further ones without the class, and some with it until there are enough events.

    Events are counted; the clip of each is the independent unit, of which a fold has eight.
    """
    scenes = []
    references, _, paths = read_split(data_dir / "soundscapes", "test")
    sources = event_sources(data_dir / "soundscapes" / "test.tsv")
    for name, path in paths.items():
        events = [(on, off, sources[name, on, label]) for on, off, own in references[name] if own == label]
        scenes.append(Scene(read_audio(str(path), SAMPLING_RATE).samples, events))
    clips, outside = esc10_clips(data_dir, [TEST_FOLD]), outside_clips(data_dir, "test")
    recipe = Recipe(num_variants=1, snr_db=TEST_SNR_DB)
    others = SoundscapeMixer([clip for clip in clips if clip.label != label] + outside, SAMPLING_RATE, recipe, 0)
    num_negative = round(hours * 3600 / recipe.duration_s)
    negatives = [Scene(others.mix(TEST_SEED, number).samples, []) for number in range(num_negative)]
    everything = SoundscapeMixer(clips + outside, SAMPLING_RATE, recipe, 0)
    number = 0
    while sum(len(scene.events) for scene in scenes) < min_events:
        mixed = everything.mix(TEST_SEED + 1, number)
        events = [(on, off, source) for on, off, own, source, _ in mixed.events if own == label]
        if events:
            scenes.append(Scene(mixed.samples, events))
        number += 1
    return scenes + negatives


def event_sources(table: Path) -> dict[tuple[str, float, str], str]:
    """{(file, onset, label): clip} of a table of soundscapes."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["onset"]]
    return {(row["filename"], float(row["onset"]), row["event_label"]): row["source"] for row in rows}


@torch.inference_mode()
def figures_of_test(model: Any, extractor: Any, label: str, scenes: list[Scene]) -> dict[str, Any]:
    """Recall and false alarms of a class at the deepest exit, at its threshold and at 1 false alarm per hour.

    "mean_recall" is over 1, 3, 10 and 30 false alarms per hour: at 1 alone it hangs on the worst two hits of two hours.
    """
    decoding, own = decoding_for_exit(model.config.decoding, model.num_exits), model.config.label2id[label]
    parameters = {
        name: float(values[own]) for name, values in class_parameters(decoding, model.config.num_labels).items()
    }
    threshold = parameters.pop("threshold")
    found, clips, wrong, hours = [], [], [], 0.0
    for scene in tqdm(scenes, "test", leave=False, disable=not sys.stderr.isatty()):
        features = extractor(scene.samples, sampling_rate=SAMPLING_RATE)["input_values"].to(model.device)
        logits = model(features, exit_index=model.num_exits).frame_logits[0, :, [own]].float()
        duration_s = len(scene.samples) / SAMPLING_RATE
        borders = frame_borders(len(logits), model.frame_duration_s, duration_s)
        spans = [(on, off) for on, off, _ in scene.events]
        ((scores, others),) = judge_columns(torch.sigmoid(logits).cpu().numpy(), borders, spans, parameters)
        found += scores.tolist()
        clips += [clip for *_, clip in scene.events]
        if not scene.events:
            wrong += others.tolist()
            hours += duration_s / 3600
    scores, alarms, num_clips = np.array(found), np.array(wrong), len(set(clips))
    at_rate = threshold_at(alarms, hours, RATE_PER_HOUR)
    thresholds = [threshold_at(alarms, hours, rate) for rate in RATES_PER_HOUR]
    return {
        "threshold": threshold,
        "mean_recall": float(np.mean([(scores > one).mean() for one in thresholds])),
        "recall": recall_figures(Recall(int((scores > threshold).sum()), len(scores), num_clips)),
        "false_alarms": alarm_figures(FalseAlarms(int((alarms > threshold).sum()), hours)),
        "threshold_at_1_per_hour": at_rate,
        "recall_at_1_per_hour": recall_figures(Recall(int((scores > at_rate).sum()), len(scores), num_clips)),
    }


# ---- one fine-tuned model --------------------------------------------------------------------------------------------


def run_trial(
    label: str, num_clips: int, seed: int, folder: Path, options: argparse.Namespace, scenes: list[Scene]
) -> dict[str, Any]:
    """Fine-tunes with some clips and tests; everything of one row."""
    data_dir, base = Path(options.data), dict(options.base)[label]
    rows = draw_clips(data_dir, label, num_clips, seed)
    positives = write_folder(folder / f"clips-{num_clips}-{seed}", rows, data_dir / "esc10")
    out = folder / f"model-{num_clips}-{seed}"
    settings = Settings(
        base=base,
        positives=str(positives),
        background=str(folder / "background"),
        label=label,
        output_dir=str(out),
        rehearsal=str(folder / "rehearsal") if options.rehearsal else None,
        old_data=str(data_dir / "soundscapes") if options.old_data else None,
        seed=seed,
        gap_s=Recipe().gap_s.get(label, Recipe().default_gap_s),
        fine_tune=options.fine_tune,
        calibration="none",
    )
    start_s = time.process_time()
    report = fine_tune_base(settings)
    report["cpu_minutes"] = (time.process_time() - start_s) / 60
    (out / "report.md").write_text(markdown(report), encoding="utf-8")
    model, extractor = load_model(str(out / "model"))
    before_model, _ = load_model(base)
    split = LabelledSplit(data_dir / "soundscapes", "test", [name for name in report["base"]["labels"]])
    before, after = split.figures(before_model, extractor), split.figures(model, extractor)
    return {
        "label": label,
        "num_clips": num_clips,
        "seed": seed,
        "phase": report["phase"],
        "test": figures_of_test(model, extractor, label, scenes),
        "old_classes": {"before": before, "after": after, "change": changes(before, after)},
        "cross_validated": {name: report[name] for name in ("recall", "recall_at_1_per_hour", "false_alarms")},
        "learning_curve": report["learning_curve"],
        "minutes": report["minutes"],
        "cpu_minutes": report["cpu_minutes"],
    }


def run_reference(label: str, options: argparse.Namespace) -> dict[str, Any]:
    """What a model reaches on the same test that learned the class from all its clips, in its first training."""
    model, extractor = load_model(options.reference)
    scenes = scenes_of_test(Path(options.data), label, options.hours, options.min_events)
    return {"model": options.reference, **figures_of_test(model, extractor, label, scenes)}


def run_class(label: str, options: argparse.Namespace, work: Path, done: set[Trial]) -> Iterator[dict[str, Any]]:
    """The trials of one class that are not done, as they end.

    Raises:
        ValueError: when the base knows the class.
    """
    todo = [(label, num, seed) for num in options.clips for seed in options.seeds if (label, num, seed) not in done]
    if not todo:
        return
    data_dir, folder = Path(options.data), work / label
    model, _ = load_model(dict(options.base)[label])
    if label in model.config.label2id:
        raise ValueError(f"--base {label}={dict(options.base)[label]} must never have heard {label}, but knows it")
    write_background(folder / "background", data_dir, label, options.background_minutes)
    old = [
        row
        for row in read_metadata(data_dir / "esc10")
        if row["label"] != label and row["fold"] in TRAINING_FOLDS and row["license"] not in EXCLUDED_LICENSES
    ]
    write_folder(folder / "rehearsal", old, data_dir / "esc10")
    scenes = scenes_of_test(data_dir, label, options.hours, options.min_events)
    for _, num_clips, seed in todo:
        trial = run_trial(label, num_clips, seed, folder, options, scenes)
        print(trial_line(trial), file=sys.stderr, flush=True)
        yield trial


# ---- tables ----------------------------------------------------------------------------------------------------------

COLUMNS = {  # heading: (path to the figure, factor)
    "recall at 1 false alarm/h": ("test", "recall_at_1_per_hour", "value"),
    "mean recall at 1 to 30": ("test", "mean_recall"),
    "recall at its threshold": ("test", "recall", "value"),
    "false alarms/h there": ("test", "false_alarms", "per_hour"),
    "false alarms/h, background (cross-validated)": ("cross_validated", "false_alarms", "background", "per_hour"),
    "false alarms/h, noise": ("cross_validated", "false_alarms", "noise", "per_hour"),
    "old event F1 before": ("old_classes", "before", "event", "macro"),
    "change": ("old_classes", "change", "event", "macro"),
    "old segment F1 before": ("old_classes", "before", "segment", "macro"),
    "change ": ("old_classes", "change", "segment", "macro"),
    "CPU minutes": ("cpu_minutes",),
}


def figure(trial: dict[str, Any], path: tuple[str, ...]) -> float:
    value: Any = trial
    for key in path:
        value = value[key]
    return float(value)


def trial_line(trial: dict[str, Any]) -> str:
    """One line for the terminal."""
    test = trial["test"]
    return (
        f"{trial['label']}, {trial['num_clips']} clips, seed {trial['seed']}, phase {trial['phase']['number']}: "
        f"at 1 false alarm per hour {test['recall_at_1_per_hour']['sentence']}"
    )


def table(trials: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds, one row per class and number of clips; then over classes as well."""
    lines = [
        "| class | clips | seeds | all weights kept | " + " | ".join(name.strip() for name in COLUMNS) + " |",
        "| --- " * (4 + len(COLUMNS)) + "|",
    ]
    labels = list(dict.fromkeys(trial["label"] for trial in trials))
    for label in [*labels, *(["all"] if len(labels) > 1 else [])]:
        for num_clips in sorted({trial["num_clips"] for trial in trials}):
            own = [t for t in trials if label in (t["label"], "all") and t["num_clips"] == num_clips]
            if not own:
                continue
            kept = sum(trial["phase"]["number"] == 2 for trial in own)
            cells = [mean_and_deviation([figure(trial, path) for trial in own]) for path in COLUMNS.values()]
            lines.append(f"| {label} | {num_clips} | {len(own)} | {kept} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Recall at 1 false alarm per hour, every model; the interval counts the clips of fold 5, not events:",
        "",
    ]
    return "\n".join(lines + [f"- {trial_line(trial)}" for trial in trials])


def mean_and_deviation(values: list[float]) -> str:
    """E.g. "0.512 ± 0.034"; no deviation of one value."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


# ---- the command -----------------------------------------------------------------------------------------------------


def base_of(text: str) -> tuple[str, str]:
    """CLASS=PATH."""
    label, _, path = text.partition("=")
    if not label or not path:
        raise argparse.ArgumentTypeError(f"must be CLASS=PATH, got {text!r}")
    return label, path


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=base_of, action="append", required=True, help="CLASS=PATH, one for each class")
    parser.add_argument("--data", default="../shared/data", help="folder with esc10/, outside/ and soundscapes/")
    parser.add_argument("--reference", metavar="MODEL", help="a model that knows all classes, to compare with")
    parser.add_argument("--clips", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the draw and of the training")
    parser.add_argument("--fine_tune", choices=("auto", "never", "always"), default="auto")
    parser.add_argument("--rehearsal", action=argparse.BooleanOptionalAction, default=True, help="old clips, folds 1-3")
    parser.add_argument(
        "--old_data", action=argparse.BooleanOptionalAction, default=True, help="validation soundscapes"
    )
    parser.add_argument("--background_minutes", type=float, default=60.0)
    parser.add_argument("--hours", type=float, default=2.0, help="of further test soundscapes without the class")
    parser.add_argument("--min_events", type=int, default=60, help="of the class in the test")
    parser.add_argument("--work", type=Path, help="folder for the models; default: a temporary one")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for all figures")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            work = Path(temporary) if options.work is None else options.work
            options.out.parent.mkdir(parents=True, exist_ok=True)
            results = {"trials": [], "references": {}}
            if options.out.is_file():
                results |= json.loads(options.out.read_text(encoding="utf-8"))
            results["command"] = shlex.join(["python", *sys.argv])
            done = {(trial["label"], trial["num_clips"], trial["seed"]) for trial in results["trials"]}
            for label, _ in options.base:
                if options.reference is not None and label not in results["references"]:
                    results["references"][label] = json_ready(run_reference(label, options))
                for trial in run_class(label, options, work, done):
                    results["trials"].append(json_ready(trial))
                    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(table(results["trials"]))
    for label, reference in results["references"].items():
        at_rate = reference["recall_at_1_per_hour"]["sentence"]
        print(f"- {label}, {reference['model']}, which learned it from the start: at 1 false alarm per hour {at_rate}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
