"""The report of a fine-tuned model on one page, in plain words."""

from typing import Any

MAX_CLASSES = 12  # rows of the table of old classes
MAX_SKIPPED = 10


def markdown(report: dict[str, Any]) -> str:
    """All sections, in order of what a user asks."""
    parts = [
        f"# {report['label']}: what was learned",
        *_data(report),
        "## Is it found?",
        *_recall(report),
        "## False alarms",
        *_false_alarms(report),
        "## Would more recordings help?",
        *_curve(report),
        "## What happened to the old classes?",
        *_old_classes(report),
        "## How far can a confidence be believed?",
        report["calibration"]["sentence"],
        "## What to do next",
        *(f"- {line}" for line in next_steps(report)),
        f"<!-- {report['command']} -->",
    ]
    return "\n\n".join(parts) + "\n"


def _data(report: dict[str, Any]) -> list[str]:
    data, base = report["data"], report["base"]
    lines = [
        f"Base: {base['name']} ({base['id']}), {len(base['labels'])} classes. New: {report['label']}, learned from "
        f"{data['num_clips']} clips of {data['num_recordings']} recordings ({data['num_events']} events found in them) "
        f"and {_duration(data['background_hours'])} of background in which it does not occur. "
        f"{report['minutes']:.1f} minutes.",
        report["phase"]["sentence"],
    ]
    if report["skipped"]:
        named = "; ".join(f"{file}: {reason}" for file, reason in report["skipped"][:MAX_SKIPPED])
        more = len(report["skipped"]) - MAX_SKIPPED
        lines.append(f"Skipped, {len(report['skipped'])} in all: {named}{f'; and {more} more' if more > 0 else ''}.")
    return lines


def _duration(hours: float) -> str:
    return f"{60 * hours:.1f} minutes" if hours < 1 else f"{hours:.1f} hours"


def _recall(report: dict[str, Any]) -> list[str]:
    return [
        "Every recording was mixed into background, 3 to 27 dB above it, and played to models that had heard neither:",
        f"- at the chosen threshold, {report['threshold']:.2f}: {report['recall']['sentence']}\n"
        f"- with 1 false alarm per hour: {report['recall_at_1_per_hour']['sentence']}",
        "The interval counts recordings, not mixtures: ten recordings are ten trials, however often each is played.",
        "\n".join(
            ["| false alarms per hour | threshold | recall | 90 % interval |", "| --- | --- | --- | --- |"]
            + [
                f"| {row['per_hour']:g} | {row['threshold']:.2f} | {row['value']:.2f} | {row['low']:.2f} to "
                f"{row['high']:.2f} |"
                for row in report["trade_off"]
            ]
        ),
    ]


def _false_alarms(report: dict[str, Any]) -> list[str]:
    alarms = report["false_alarms"]
    names = {
        "background": "background that was held out",
        "old_sounds": "sounds of the old classes that were held out",
        "old_data": "labelled recordings of the old classes",
        "noise": "pure noise, white to brown, faint to loud",
    }
    lines = [f"- {text}: {alarms[name]['sentence']}" for name, text in names.items() if alarms.get(name) is not None]
    where = "background" if alarms.get("old_sounds") is None else "background and old sounds"
    note = f"At the chosen threshold (goal: at most {report['goal_false_alarms_per_hour']:g} per hour of {where}):"
    return [note, "\n".join(lines)]


def _curve(report: dict[str, Any]) -> list[str]:
    curve = report["learning_curve"]
    points = ", ".join(
        f"{recall:.2f} with {size}" for size, recall in zip(curve["sizes"], curve["recall"], strict=True)
    )
    return [
        curve["sentence"],
        f"Recall by recordings learned from (own weights of the class alone, 1 to 30 false alarms per hour): {points}.",
    ]


def _old_classes(report: dict[str, Any]) -> list[str]:
    old = report["old_classes"]
    agreed = old["agreement"]
    lines = []
    if "change" in old:
        change, before, after = old["change"], old["before"], old["after"]
        lines += [
            f"On {old['num_files']} labelled recordings ({old['data']}), mean F1 over the old classes: event-based "
            f"{before['event']['macro']:.3f} before, {after['event']['macro']:.3f} after; segment-based "
            f"{before['segment']['macro']:.3f} before, {after['segment']['macro']:.3f} after.",
            _class_table(change),
        ]
    where = "background" if report["data"]["num_rehearsal_clips"] == 0 else "background and old sounds"
    lines.append(
        f"Agreement with the base on {where}: {100 * agreed['frame_f1']:.0f} % of the frames in which one of them "
        f"hears an old class (F1; {agreed['active_frames']} frames of the base), probabilities differ by "
        f"{agreed['mean_difference']:.4f} on average."
    )
    return lines


def _class_table(change: dict[str, dict[str, float]]) -> str:
    """The classes that lost or gained most."""
    names = sorted((name for name in change["event"] if name != "macro"), key=lambda name: change["event"][name])
    shown = names if len(names) <= MAX_CLASSES else names[: MAX_CLASSES // 2] + names[-MAX_CLASSES // 2 :]
    rows = ["| old class | event F1 | segment F1 |", "| --- | --- | --- |"]
    rows += [f"| {name} | {change['event'][name]:+.3f} | {change['segment'][name]:+.3f} |" for name in shown]
    return "\n".join(rows)


def next_steps(report: dict[str, Any]) -> list[str]:
    """What the figures suggest, the most useful first."""
    data, recall = report["data"], report["recall"]
    background = report["false_alarms"]["background"]
    steps = []
    if recall["low"] < 0.5:
        steps.append(
            f"Do not rely on it alone yet: with {data['num_recordings']} recordings the recall may be as low as "
            f"{recall['low']:.2f}. Record the sound in more places and add them to --positives."
        )
    if report["phase"]["number"] == 1 and data["num_rehearsal_clips"] == 0 and data["old_data"] is None:
        steps.append("Add --rehearsal or --old_data: training all weights usually finds much more.")
    if background["at_most_per_hour"] > report["goal_false_alarms_per_hour"]:
        needed = 2.303 / max(report["goal_false_alarms_per_hour"], 1e-9)
        if background["hours"] < needed:
            steps.append(
                f"Add background: {background['hours']:.1f} h cannot prove at most "
                f"{report['goal_false_alarms_per_hour']:g} false alarms per hour, {needed:.1f} h without one can."
            )
    noisy = [
        name
        for name in ("old_sounds", "old_data", "noise")
        if report["false_alarms"].get(name) is not None
        and report["false_alarms"][name]["per_hour"] > 5 * max(report["goal_false_alarms_per_hour"], 1.0)
    ]
    if noisy:
        names = {"old_sounds": "old sounds", "old_data": "the labelled recordings", "noise": "noise"}
        steps.append(
            f"It mistakes {' and '.join(names[name] for name in noisy)} for {report['label']}: put such recordings "
            "among the background."
        )
    steps.append("Listen to what it finds in recordings of your own: `easysed detect RECORDINGS --model .../model`.")
    return steps


__all__ = ["markdown", "next_steps"]
