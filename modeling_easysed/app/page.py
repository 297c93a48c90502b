"""The page: what can be chosen, and what happens then. All figures and texts come from elsewhere in this package."""

from pathlib import Path
from typing import Any

import gradio as gr

from modeling_easysed.app.analysis import GOALS, MAX_PASSES, MAX_SHIFTS, RefusedError, analyse, make_settings
from modeling_easysed.app.catalogue import Entry
from modeling_easysed.app.result import result_page
from modeling_easysed.cli.report import escaped

METHODS = [
    ("Monte Carlo dropout", "mc"),
    ("the exits as an ensemble", "exits"),
    ("closed-form moments", "moments"),
    ("none: one plain answer", "none"),
]
GOAL_CHOICES = [("default: precision 0.9", "default"), *((name, name) for name in GOALS)]
GOAL_VALUES = {"default": None, "precision": 0.9, "recall": 0.8, "false alarms per hour": 1.0}
TITLE = "EasySED: sounds, when they sounded, and how sure that is"
INTRO = (
    "# EasySED\nWhat sounded, from when to when, and how sure the model is. It knows {classes} — and says so when it "
    "hears something else."
)
WAITING = '<section class="recording" aria-label="result"><p class="note">The result will stand here.</p></section>'


def build_page(catalogue: dict[str, Entry]) -> gr.Blocks:
    """The page of these models."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(300, 3600)) as page:
        gr.Markdown(INTRO.format(classes=_classes(catalogue)))
        with gr.Tab("Detect"):
            _detect_tab(catalogue)
    return page


def _classes(catalogue: dict[str, Entry]) -> str:
    labels = next(iter(catalogue.values())).pipe.model.config.id2label.values()
    shown = [one.replace("_", " ") for one in list(labels)[:20]]
    return ", ".join(shown[:-1]) + f" and {shown[-1]}" if len(shown) > 1 else "".join(shown)


def _detect_tab(catalogue: dict[str, Entry]) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            sound = gr.Audio(label="Sound: upload or record", sources=["upload", "microphone"], type="filepath")
            button = gr.Button("Detect", variant="primary", elem_id="detect")
            controls = make_controls(catalogue)
        with gr.Column(scale=5, min_width=320):
            result = gr.HTML(WAITING, apply_default_css=False, elem_id="result")

    def run(path: str | None, *chosen: Any) -> str:
        try:
            entry = catalogue[chosen[0]]
            analysis = analyse(entry, path, make_settings(entry, *chosen[1:]))
            return result_page(analysis, entry, Path(path))
        except RefusedError as error:
            return refused(error)

    inputs = [sound, *controls]
    limits = {"concurrency_id": "model", "concurrency_limit": 1}
    button.click(run, inputs, result, api_visibility="private", show_progress_on=result, **limits)
    gr.on([sound.upload, sound.stop_recording], run, inputs, result, api_visibility="private", **limits)


def refused(error: RefusedError) -> str:
    """The friendly line, where the result would stand."""
    return f'<section class="recording" aria-label="result"><p class="refused" role="alert">{escaped(str(error))}</p></section>'


def make_controls(catalogue: dict[str, Entry]) -> list[gr.components.Component]:
    """Model, size, method, passes, shifts, goal and its value, in the order of `make_settings`."""
    first = next(iter(catalogue.values()))
    models = [(entry.title, name) for name, entry in catalogue.items()]
    model = gr.Radio(models, value=first.name, label="Architecture", elem_id="architecture")
    size = gr.Radio(first.sizes, value="auto", label="Model size: cost and measured accuracy", elem_id="size")
    with gr.Accordion("How doubt is measured, and the goal", open=False):
        method = gr.Dropdown(METHODS, value="mc", label="Uncertainty")
        passes = gr.Slider(1, MAX_PASSES, 20, step=1, label="Passes of Monte Carlo dropout")
        shifts = gr.Slider(0, MAX_SHIFTS, 2, step=1, label="Time shifts of 30 ms to either side")
        goal = gr.Dropdown(GOAL_CHOICES, value="default", label="Goal of the decisions", elem_id="goal")
        value = gr.Number(None, label="How much of it", visible=False, elem_id="goal-value")
    model.change(lambda name: gr.Radio(catalogue[name].sizes, value="auto"), model, size, api_visibility="private")
    goal.change(
        lambda name: gr.Number(value=GOAL_VALUES[name], visible=name != "default", label=f"Wanted {name}"),
        goal,
        value,
        api_visibility="private",
    )
    return [model, size, method, passes, shifts, goal, value]


__all__ = ["build_page"]
