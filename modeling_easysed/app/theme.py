"""gradio's theme in the colours of palette_easysed, and the head of the page: styles and scripts, all from here."""

from importlib.resources import files

import gradio as gr

from modeling_easysed.palette_easysed import DARK, LIGHT, css_variables

FONTS = ["system-ui", "sans-serif"]  # names of fonts at hand: gradio's own themes ask another host for theirs
SCRIPTS = ("page.js", "live.js")
MONO_FONTS = ["ui-monospace", "monospace"]


def make_theme() -> gr.themes.Base:
    """Both themes of the picture."""
    colours = {
        "body_background_fill": "background",
        "background_fill_primary": "background",
        "background_fill_secondary": "surface",
        "block_background_fill": "background",
        "input_background_fill": "background",
        "body_text_color": "ink",
        "block_label_text_color": "ink",
        "block_title_text_color": "ink",
        "body_text_color_subdued": "muted",
        "block_info_text_color": "muted",
        "border_color_primary": "line",
        "input_border_color": "muted",
        "checkbox_label_background_fill": "background",
        "checkbox_label_background_fill_hover": "surface",
        "checkbox_label_border_color": "line",
        "checkbox_label_text_color": "ink",
        "button_secondary_background_fill": "surface",
        "button_secondary_text_color": "ink",
        "checkbox_border_color": "muted",
        "link_text_color": "focus",
    }
    values = {name: getattr(LIGHT, own) for name, own in colours.items()}
    values |= {f"{name}_dark": getattr(DARK, own) for name, own in colours.items()}
    for suffix, theme in (("", LIGHT), ("_dark", DARK)):
        accept = theme.decisions["accept"]
        values |= {
            f"button_primary_background_fill{suffix}": accept.fill,
            f"button_primary_background_fill_hover{suffix}": theme.focus,
            f"button_primary_text_color{suffix}": accept.ink,
            f"slider_color{suffix}": accept.edge,
            f"checkbox_background_color_selected{suffix}": accept.edge,
            f"checkbox_border_color_selected{suffix}": accept.edge,
            f"checkbox_label_background_fill_selected{suffix}": theme.surface,
            f"checkbox_label_border_color_selected{suffix}": accept.edge,
            f"checkbox_label_text_color_selected{suffix}": theme.ink,
        }
    return gr.themes.Base(primary_hue="sky", font=FONTS, font_mono=MONO_FONTS).set(**values)


def page_head() -> str:
    """What stands in the page's <head>."""
    app, cli = files("modeling_easysed.app"), files("modeling_easysed.cli")
    styles = [(cli / "recording.css").read_text("utf-8"), (app / "page.css").read_text("utf-8")]
    scripts = [(cli / "recording.js").read_text("utf-8"), *((app / name).read_text("utf-8") for name in SCRIPTS)]
    return (
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{css_variables('.dark')}{''.join(styles)}</style>"
        f"<script>(() => {{ 'use strict';\n{''.join(scripts)} }})();</script>"
    )


__all__ = ["make_theme", "page_head"]
