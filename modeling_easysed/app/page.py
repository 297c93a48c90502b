"""The page: what can be chosen, and what happens then. All figures and texts come from elsewhere in this package."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr

from modeling_easysed.app.analysis import (
    GOALS,
    MAX_DURATION_S,
    MAX_FILE_BYTES,
    MAX_PASSES,
    MAX_SHIFTS,
    RefusedError,
    Settings,
    analyse,
    make_settings,
)
from modeling_easysed.app.catalogue import Entry
from modeling_easysed.app.comparison import Run, comparison_data, comparison_page, sizes_to_compare
from modeling_easysed.app.result import result_page
from modeling_easysed.cli.report import escaped

TITLE = "EasySED: sounds, when they sounded, and how sure that is"
INTRO = (
    "# EasySED\nWhat sounded, from when to when, and how sure the model is. It knows {classes} and no other sound; "
    "what it doubts, it leaves for review.\n\nUp to {minutes:g} minutes and {megabytes} MB a recording. Nothing is "
    "kept: the result is sent to you alone, uploads are deleted within the hour."
)
METHODS = [
    ("Monte Carlo dropout", "mc"),
    ("the exits as an ensemble", "exits"),
    ("closed-form moments", "moments"),
    ("none: one plain answer", "none"),
]
GOAL_CHOICES = [("default: precision 0.9", "default"), *((name, name) for name in GOALS)]
GOAL_VALUES = {"default": None, "precision": 0.9, "recall": 0.8, "false alarms per hour": 1.0}
EXAMPLES = {
    "wails_over_rain": "wails over rain",
    "rain_then_clock": "rain, then a clock",
    "helicopter_then_sea": "helicopter, then sea",
    "unknown_melody": "a melody it does not know",
    "near_silence": "almost silence",
}
EXAMPLES_NOTE = (
    "All examples are synthesised, nobody's recording is in them. The bundled models know real sounds: wails convince "
    "both, and rain the Transformer, but the CNN takes this rain for sea waves, both take the synthetic helicopter for "
    "crackling fire, and the CNN even the clock and the melody. See how that is left for review."
)
ONE_AT_A_TIME = {"concurrency_id": "model", "concurrency_limit": 1}


DEVICE_LINK = (
    "A compact model also runs [on this device](device/index.html), in the browser alone: no sound leaves it, and once "
    "opened it works without a network."
)


def build_page(catalogue: dict[str, Entry], has_device_page: bool = False) -> gr.Blocks:
    """The page of these models; `has_device_page` adds the link to /device."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(300, 3000)) as page:
        limits = {"minutes": MAX_DURATION_S / 60, "megabytes": MAX_FILE_BYTES // 10**6}
        gr.Markdown(INTRO.format(classes=_classes(catalogue), **limits))
        if has_device_page:
            gr.Markdown(DEVICE_LINK, elem_id="device-link")
        with gr.Tab("Detect"):
            _detect_tab(catalogue)
        with gr.Tab("Compare"):
            _compare_tab(catalogue)
        with gr.Tab("Live"):
            gr.HTML(_live_panel(catalogue), apply_default_css=False, js_on_load=None)
        _add_endpoints(catalogue)
    return page


def _classes(catalogue: dict[str, Entry]) -> str:
    labels = list(next(iter(catalogue.values())).pipe.model.config.id2label.values())
    shown = [one.replace("_", " ") for one in labels[:20]]
    if len(labels) > len(shown):
        return f"{', '.join(shown)} and {len(labels) - len(shown)} more"
    return ", ".join(shown[:-1]) + f" and {shown[-1]}" if len(shown) > 1 else "".join(shown)


def _page_of(page: Callable[..., str], name: str) -> Callable[..., str]:
    """The same function, with the friendly line in place of a page that cannot be made."""

    def answer(*given: Any) -> str:
        try:
            return page(*given)
        except RefusedError as error:
            text = f'<p class="refused" role="alert">{escaped(str(error))}</p>'
            return f'<section class="recording" aria-label="{name}">{text}</section>'

    return answer


def _waiting(name: str, text: str) -> str:
    return f'<section class="recording" aria-label="{name}"><p class="note">{text}</p></section>'


def _sound() -> gr.Audio:
    return gr.Audio(
        label="Sound: upload or record", sources=["upload", "microphone"], type="filepath", buttons=["download"]
    )


# ---- the tabs --------------------------------------------------------------------------------------------------------


def _detect_tab(catalogue: dict[str, Entry]) -> None:
    def detect(path: str | None, name: str, *chosen: Any) -> str:
        entry = catalogue[name]
        analysis = analyse(entry, path, make_settings(entry, *chosen))
        return result_page(analysis, entry, Path(path))

    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            sound = _sound()
            button = gr.Button("Detect", variant="primary", elem_id="detect")
            examples = gr.Column()
            controls = _controls(catalogue)
        with gr.Column(scale=5, min_width=300):
            waiting = _waiting("result", "The result will stand here.")
            result = gr.HTML(waiting, apply_default_css=False, js_on_load=None, elem_id="result")
    run, inputs = _page_of(detect, "result"), [sound, *controls]
    how = {"api_visibility": "private", "show_progress_on": result, "scroll_to_output": True, **ONE_AT_A_TIME}
    button.click(run, inputs, result, **how)
    gr.on([sound.upload, sound.stop_recording], run, inputs, result, **how)
    with examples:
        _examples(sound).click(run, inputs, result, **how)


def _examples(sound: gr.Audio) -> Any:
    """The bundled sounds; returns what happens after one was chosen."""
    folder = files("modeling_easysed.app") / "examples"
    paths = {name: str(folder / f"{name}.ogg") for name in EXAMPLES}
    given = gr.Examples(
        [[path] for path in paths.values()], sound, example_labels=list(EXAMPLES.values()), api_visibility="private"
    )
    gr.Markdown(EXAMPLES_NOTE, elem_classes="note")
    return given.dataset


def _controls(catalogue: dict[str, Entry]) -> list[gr.components.Component]:
    """Model, size, method, passes, shifts, goal and its value, in the order of `make_settings`."""
    first = next(iter(catalogue.values()))
    models = [(entry.title, name) for name, entry in catalogue.items()]
    model = gr.Radio(models, value=first.name, label="Architecture", elem_id="architecture")
    size = gr.Radio(first.sizes, value="auto", label="Model size: cost and measured accuracy", elem_id="size")
    with gr.Accordion("How doubt is measured, and the goal", open=False):
        method = gr.Dropdown(METHODS, value="mc", label="Uncertainty")
        passes = gr.Slider(1, MAX_PASSES, 20, step=1, label="Passes of Monte Carlo dropout")
        shifts = gr.Slider(0, MAX_SHIFTS, 2, step=1, label="Time shifts, steps to either side")
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


def _compare_tab(catalogue: dict[str, Entry]) -> None:
    def compare(path: str | None, passes: float, shifts: float) -> str:
        return comparison_page(_runs(catalogue, path, passes, shifts))

    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            sound = _sound()
            button = gr.Button("Compare", variant="primary", elem_id="compare")
            _examples(sound)
            passes = gr.Slider(1, MAX_PASSES, 20, step=1, label="Passes of Monte Carlo dropout")
            shifts = gr.Slider(0, MAX_SHIFTS, 2, step=1, label="Time shifts, steps to either side")
        with gr.Column(scale=5, min_width=300):
            text = "One recording, heard by every architecture, compact and large."
            result = gr.HTML(
                _waiting("comparison", text), apply_default_css=False, js_on_load=None, elem_id="comparison"
            )
    how = {"api_visibility": "private", "show_progress_on": result, "scroll_to_output": True, **ONE_AT_A_TIME}
    button.click(_page_of(compare, "comparison"), [sound, passes, shifts], result, **how)


def _live_panel(catalogue: dict[str, Entry]) -> str:
    """What live.js works on."""
    options = [
        f'<option value="{escaped(name)}|{one.number}">{escaped(entry.title)}, {one.words(len(entry.exits))}</option>'
        for name, entry in catalogue.items()
        for one in reversed(entry.exits)
    ]
    heads = "".join(f'<th scope="col">{one}</th>' for one in ("time", "sound", "confidence", "decision", "reasons"))
    return (
        '<section class="live" aria-label="live">'
        f'<p class="choice"><label>Model <select id="live-model">{"".join(options)}</select></label> '
        '<button type="button" id="live-start">Listen</button></p>'
        '<p id="live-status" role="status">Events appear at once; the band shows how far 20 answers lie apart. Its '
        "last seconds and their events may still change, because the model has not heard what follows.</p>"
        '<canvas id="live-canvas" role="img" aria-label="lanes, empty"></canvas>'
        f'<div class="scroll" tabindex="0" role="group" aria-label="events"><table id="live-events">'
        f'<caption class="unseen">events, the newest first</caption><thead><tr>{heads}</tr></thead>'
        '<tbody id="live-soon"></tbody><tbody id="live-told" aria-live="polite"></tbody></table></div></section>'
    )


def _runs(catalogue: dict[str, Entry], path: str | None, passes: float, shifts: float) -> list[Run]:
    """The large and the compact exit of every model on one recording."""
    runs = []
    for entry, size in sizes_to_compare(catalogue):
        settings = make_settings(entry, str(size.number), "mc", passes, shifts, "default", None)
        runs.append(Run(entry, size, analyse(entry, path, settings)))
    return runs


# ---- for programs ----------------------------------------------------------------------------------------------------


def _add_endpoints(catalogue: dict[str, Entry]) -> None:
    """/detect, /compare and /models, described on the page's API view."""
    first = next(iter(catalogue))

    def detect(
        sound: str | None,
        model: str,
        size: str,
        uncertainty: str,
        passes: float,
        shifts: float,
        goal: str,
        value: float,
    ) -> dict:
        """The detection of one recording, as `easysed detect --format json` prints it."""
        return _answer(lambda: _detect(catalogue, sound, model, size, uncertainty, passes, shifts, goal, value))

    def compare(sound: str | None, passes: float, shifts: float) -> dict:
        """Every model, compact and large, on one recording: time, detection, and agreement of each with each."""
        return _answer(lambda: comparison_data(_runs(catalogue, sound, passes, shifts)))

    def models() -> dict:
        """Models with their classes, and what every exit costs and was measured to do."""
        return {
            name: {
                "labels": list(entry.pipe.model.config.id2label.values()),
                "exits": [vars(one) for one in entry.exits],
            }
            for name, entry in catalogue.items()
        }

    with gr.Row(visible=False):
        sound = gr.Audio(type="filepath", label="sound")
        model = gr.Textbox(first, label="model")
        size = gr.Textbox("auto", label="size: auto or the number of an exit")
        method = gr.Textbox("mc", label="uncertainty: mc, exits, moments or none")
        passes, shifts = gr.Number(20, label="passes"), gr.Number(2, label="shifts")
        goal = gr.Textbox("default", label=f"goal: default, {', '.join(GOALS)}")
        value = gr.Number(0, label="value of the goal, if any")
        answer, button, compare_button, list_button = gr.JSON(), gr.Button(), gr.Button(), gr.Button()
    inputs = [sound, model, size, method, passes, shifts, goal, value]
    button.click(detect, inputs, answer, api_name="detect", **ONE_AT_A_TIME)
    compare_button.click(compare, [sound, passes, shifts], answer, api_name="compare", **ONE_AT_A_TIME)
    list_button.click(models, None, answer, api_name="models")


def _detect(catalogue: dict[str, Entry], sound: str | None, model: str, *chosen: Any) -> dict:
    if model not in catalogue:
        raise RefusedError(f"model must be one of {', '.join(catalogue)}, got {model!r}")
    entry = catalogue[model]
    return analyse(entry, sound, make_settings(entry, *chosen)).detection.to_dict()


def _answer(work: Callable[[], dict]) -> dict:
    try:
        return work()
    except RefusedError as error:
        raise gr.Error(str(error), print_exception=False) from error


def warm_up(entry: Entry) -> None:
    """The first pass of a network and the first picture are slower than all others: no visitor waits for them."""
    path = Path(str(files("modeling_easysed.app") / "examples" / "near_silence.ogg"))
    result_page(analyse(entry, path, Settings()), entry, path)


__all__ = ["build_page", "warm_up"]
