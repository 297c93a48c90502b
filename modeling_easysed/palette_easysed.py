"""One visual language for pictures, pages and the report: colours, decisions, font sizes and times.

Plain data without any drawing library. Every pair that must be told apart differs in lightness as well as in hue, and a
decision never speaks by colour alone: accepted is solid with a tick, review is pale and hatched with a question mark,
rejected is hollow with a cross."""

import math
from dataclasses import dataclass

TITLE_POINTS, TEXT_POINTS, SMALL_POINTS = 11.0, 9.0, 7.5  # of pictures 10 inches wide
# Lines of a chart. Okabe and Ito's colours for colour-blind readers, darker, so that white numbers can be read on them,
# and four more.
SERIES = ("#0072B2", "#C44E00", "#00805C", "#B2558A", "#A87400", "#2A86BF", "#7A5195", "#8C6D31", "#5F6B6D", "#B22222")
LONG_S = 180.0  # longer recordings count their time in h:mm:ss
TICK_STEPS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30)
LONG_TICK_STEPS_S = (30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


@dataclass(frozen=True)
class Theme:
    """Colours as #rrggbb.

    Attributes:
        background, surface: of the page, and of a panel on it.
        ink, muted, line: text, lesser text, and rules that nobody has to read.
        wave: of the waveform; curve, band: of a probability and of its spread.
        spectrogram: name of a matplotlib colour map whose lightness rises or falls all the way.
        decisions: {decision: colours}; None is the decision of events without a calibration.
    """

    background: str
    surface: str
    ink: str
    muted: str
    line: str
    wave: str
    curve: str
    band: str
    focus: str
    spectrogram: str
    decisions: dict[str | None, "DecisionColours"]


@dataclass(frozen=True)
class DecisionColours:
    """fill of a mark (None = hollow), its edge and hatch, and the ink of text on it."""

    fill: str | None
    edge: str
    ink: str


@dataclass(frozen=True)
class Decision:
    """What marks a decision beside its colours.

    Attributes:
        symbol, hatch: on a mark; the hatch in matplotlib's letters.
        height: of a mark too narrow for either, as a share of the full height.
        word, meaning: for people.
    """

    symbol: str
    hatch: str | None
    height: float
    word: str
    meaning: str


DECISIONS: dict[str | None, Decision] = {
    "accept": Decision("✓", None, 1.0, "accept", "needs nobody"),
    "review": Decision("?", "////", 0.66, "review", "worth a person's ear"),
    "reject": Decision("✗", None, 0.33, "reject", "not believed"),
    None: Decision("", None, 1.0, "not judged", "no calibration"),
}

LIGHT = Theme(
    background="#ffffff",
    surface="#f5f6f8",
    ink="#1a1f24",
    muted="#59626c",
    line="#d5dae0",
    wave="#5b6b7b",
    curve="#22303c",
    band="#b9c8d6",
    focus="#0060c0",
    spectrogram="magma",
    decisions={
        "accept": DecisionColours("#00588f", "#00588f", "#ffffff"),
        "review": DecisionColours("#ffe2b0", "#9a5800", "#1a1f24"),
        "reject": DecisionColours(None, "#6b747e", "#1a1f24"),
        None: DecisionColours("#4d5a66", "#4d5a66", "#ffffff"),
    },
)
DARK = Theme(
    background="#12161b",
    surface="#1b2128",
    ink="#e8ecf0",
    muted="#a3adb8",
    line="#38424d",
    wave="#93a5b6",
    curve="#dfe7ee",
    band="#455a6d",
    focus="#7db8ff",
    spectrogram="magma",
    decisions={
        "accept": DecisionColours("#62bdf0", "#62bdf0", "#0b1116"),
        "review": DecisionColours("#5c3f0c", "#f2b84b", "#f4f6f8"),
        "reject": DecisionColours(None, "#8f9aa5", "#e8ecf0"),
        None: DecisionColours("#a9b6c2", "#a9b6c2", "#0b1116"),
    },
)
THEMES = {"light": LIGHT, "dark": DARK}


def theme_named(name: str) -> Theme:
    """The theme "light" or "dark".

    Raises:
        ValueError: another name.
    """
    if name not in THEMES:
        raise ValueError(f"theme must be one of {', '.join(THEMES)}, got {name!r}")
    return THEMES[name]


def css_variables(dark_selector: str | None = None) -> str:
    """The colours as CSS custom properties (--ink, --accept-fill, ...).

    Args:
        dark_selector: what makes a page dark, e.g. ".dark"; None = the system's light or dark mode.
    """
    light, dark = ("".join(f"--{name}:{value};" for name, value in _flat(theme)) for theme in (LIGHT, DARK))
    if dark_selector is not None:
        return f":root{{color-scheme:light;{light}}}\n{dark_selector}{{color-scheme:dark;{dark}}}\n"
    return f":root{{color-scheme:light dark;{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"


def _flat(theme: Theme) -> list[tuple[str, str]]:
    names = ("background", "surface", "ink", "muted", "line", "wave", "curve", "band", "focus")
    colours = [(name, getattr(theme, name)) for name in names]
    for decision, own in theme.decisions.items():
        name = "unjudged" if decision is None else decision
        fill = "transparent" if own.fill is None else own.fill
        colours += [(f"{name}-fill", fill), (f"{name}-edge", own.edge), (f"{name}-ink", own.ink)]
    return colours


def tidy_label(label: str) -> str:
    """A class name as people read it."""
    return label.replace("_", " ")


def time_text(seconds: float, longest: float, decimals: int = 2) -> str:
    """A time as "3.21", or as "1:02:03.2" where times up to `longest` seconds need hours and minutes to be read."""
    if longest <= LONG_S:
        return f"{seconds:.{decimals}f}"
    seconds = round(seconds, decimals)
    whole = int(seconds)
    rest = f"{seconds - whole:.{decimals}f}"[1:] if decimals > 0 else ""
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}{rest}"


def duration_text(seconds: float) -> str:
    """A duration with its unit: "10.00 s", or "1:02:03"."""
    return f"{seconds:.2f} s" if seconds <= LONG_S else time_text(seconds, seconds, 0)


def time_ticks(duration: float, most: int = 11) -> tuple[list[float], list[str]]:
    """Round times from 0 to `duration` seconds, at most `most` of them, and how they are written."""
    steps = TICK_STEPS_S if duration <= LONG_S else LONG_TICK_STEPS_S
    days = math.ceil(duration / (86400 * (most - 1)))  # of the longest recordings
    step = next((one for one in steps if duration / one <= most - 1), 86400 * days)
    decimals = max(0, -math.floor(math.log10(step))) if step < 1 else 0
    times = [number * step for number in range(int(duration / step + 1e-6) + 1)]
    return times, [time_text(one, duration, decimals) for one in times]


__all__ = [
    "DARK",
    "DECISIONS",
    "LIGHT",
    "SERIES",
    "THEMES",
    "Decision",
    "DecisionColours",
    "Theme",
    "css_variables",
    "duration_text",
    "theme_named",
    "tidy_label",
    "time_text",
    "time_ticks",
]
