"""Pictures of detections: what is drawn, at any size, in colour and grey; the spread behind the bands; the palette."""

import builtins

import numpy as np
import pytest
import torch
from test_pipeline import RATE, as_source, make_audio, make_pipe

from modeling_easysed import Detection, Event
from modeling_easysed.palette_easysed import (
    DECISIONS,
    THEMES,
    css_variables,
    duration_text,
    theme_named,
    time_text,
    time_ticks,
)
from modeling_easysed.plot_easysed import shown_classes

pytest.importorskip("matplotlib")

DURATION_S = 10.0


def make_event(onset: float, offset: float, label: str, decision: str | None, confidence: float | None = 0.8) -> Event:
    limits = (onset - 0.1, onset + 0.2, offset - 0.3, offset + 0.1) if decision else (None,) * 4
    names = ("onset_low", "onset_high", "offset_low", "offset_high")
    borders = dict(zip(names, limits, strict=True))
    return Event(onset, offset, label, 0.7, confidence=confidence, decision=decision, **borders)


EVENTS = [
    make_event(1.0, 3.0, "dog_bark", "accept"),
    make_event(4.0, 6.0, "rain $1", "review"),
    make_event(7.0, 9.0, "rain $1", "reject"),
]


def make_detection(
    events: list[Event] = EVENTS, num_classes: int = 3, num_frames: int = 251, duration: float = DURATION_S, **changes
) -> Detection:
    """Silent but for its events; labels dog_bark, rain $1, class_2, ..."""
    labels = ["dog_bark", "rain $1", *(f"class_{number}" for number in range(2, num_classes))]
    times = np.linspace(0.0, duration, num_frames)
    probabilities = np.full((num_frames, num_classes), 0.01)
    for event in events:
        probabilities[(times >= event.onset) & (times <= event.offset), labels.index(event.label)] = 0.9
    rng = np.random.default_rng(0)
    given = {
        "receipt": {"model": "somewhere/tiny"},
        "file": "yard.wav",
        "log_mel": rng.normal(-40, 10, (501, 32)).astype(np.float32),
        "mel_hz": np.linspace(60, 7700, 32),
        "envelope": np.stack([-rng.random(500), rng.random(500)], axis=1).astype(np.float32),
        "spread": np.full_like(probabilities, 0.2),
    }
    return Detection(events, times, probabilities, labels, duration, 44100, **{**given, **changes})


def bars(axes) -> list[tuple]:
    """(onset, offset, hatch, whether it is filled, edge) of all bars."""
    found = []
    for collection in axes.collections:
        if type(collection).__name__ not in ("PolyCollection", "BrokenBarHCollection") or len(
            collection.get_paths()[0].vertices
        ) not in (4, 5):
            continue
        for path in collection.get_paths():
            times = path.vertices[:, 0]
            filled = len(collection.get_facecolor()) > 0
            found.append((times.min(), times.max(), collection.get_hatch(), filled))
    return found


def texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


# ---- the picture -----------------------------------------------------------------------------------------------------


def test_waveform_spectrogram_and_a_lane_per_class(tmp_path):
    path = tmp_path / "yard.png"
    figure = make_detection().plot(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    wave, mel, lanes = figure.axes
    assert wave.get_ylabel() == "level" and len(mel.images) == 1 and mel.get_ylabel() == "kHz"
    assert [label.get_text() for label in lanes.get_yticklabels()] == ["dog bark", r"rain \$1"]
    assert all(axes.get_xlim() == (0.0, DURATION_S) for axes in figure.axes)
    assert figure.get_suptitle() == "yard.wav  ·  10.00 s  ·  3 events  ·  tiny"


def test_decisions_differ_in_fill_hatch_and_symbol():
    figure = make_detection().plot()
    lanes = figure.axes[-1]
    assert bars(lanes) == [(1.0, 3.0, None, True), (4.0, 6.0, "////", True), (7.0, 9.0, None, False)]
    assert [text for text in texts(figure) if "0.80" in text] == ["✓ 0.80", "? 0.80", "✗ 0.80"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [
        "probability",
        "its spread (±1.64 sd)",
        "✓ accept: 1",
        "? review: 1",
        "✗ reject: 1",
        "border, 90 % interval",
    ]


def test_events_without_a_calibration_show_their_score():
    figure = make_detection([make_event(1.0, 3.0, "dog_bark", None, None)]).plot()
    assert "0.70" in texts(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()][2:] == ["not judged: 1"]


def test_the_curve_and_its_band_stay_between_0_and_1():
    lanes = make_detection().plot().axes[-1]
    curve, band = lanes.lines[0].get_xydata(), lanes.collections[1].get_paths()[0].vertices
    assert curve[0][0] == 0.0 and curve[-1][0] == DURATION_S
    top, bottom = curve[:, 1].min(), curve[:, 1].max()
    zero = bottom + 0.01 / 0.89 * (bottom - top)  # from 0.9 and 0.01 to 0 and 1
    one = zero - (zero - top) / 0.9
    assert band[:, 1].min() == pytest.approx(one) and band[:, 1].max() == pytest.approx(zero)


def test_whiskers_are_the_intervals_of_the_borders():
    lanes = make_detection([make_event(2.0, 5.0, "dog_bark", "review")]).plot().axes[-1]
    segments = [
        segment for lines in lanes.collections if hasattr(lines, "get_segments") for segment in lines.get_segments()
    ]
    spans = [tuple(np.round(one[:, 0], 6)) for one in segments if one[0][1] == one[1][1]]
    assert (1.9, 2.2) in spans and (4.7, 5.1) in spans


@pytest.mark.parametrize("missing", ["envelope", "log_mel", "mel_hz", "spread"])
def test_what_is_missing_is_left_out(missing):
    figure = make_detection(**{missing: None}).plot()
    assert len(figure.axes) == (3 if missing in ("mel_hz", "spread") else 2)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any("spread" in text for text in legend) == (missing != "spread")
    if missing == "mel_hz":
        assert figure.axes[1].get_ylabel() == "mel band"


def test_no_class_comes_near():
    figure = make_detection([], envelope=None, log_mel=None).plot()
    assert texts(figure) == ["no class comes near sounding; the nearest, dog bark, reaches 0.01"]
    assert figure.legends == []


def test_a_class_without_events_has_a_lane_when_it_comes_near():
    detection = make_detection()
    detection.probabilities[10, 2] = 0.25
    assert shown_classes(detection) == ([0, 1, 2], 0)
    detection.probabilities[10, 2] = 0.15
    assert shown_classes(detection) == ([0, 1], 0)


def test_of_527_classes_those_that_sound_most_are_drawn_and_the_others_counted():
    detection = make_detection(num_classes=527)
    detection.probabilities[5, 100:130] = np.linspace(0.3, 0.59, 30)
    detection.probabilities[5, 0] = 0.1
    chosen, num_hidden = shown_classes(detection)
    assert chosen == [0, 1, *range(120, 130)] and num_hidden == 20
    figure = detection.plot()
    assert len(figure.axes[-1].get_yticklabels()) == 12
    assert "20 more classes" in figure.axes[-1].get_xlabel()


@pytest.mark.parametrize("num_frames", [1, 2, 20_000])
def test_few_and_many_frames(num_frames):
    detection = make_detection(num_frames=num_frames)
    detection.probabilities[num_frames // 2, 2] = 0.95  # one frame long
    lanes = detection.plot().axes[-1]
    curve = lanes.lines[-1].get_xydata()
    assert len(curve) <= 1602 and curve[0][0] == 0.0 and curve[-1][0] == DURATION_S
    assert curve[:, 1].min() == pytest.approx(2 + 0.57 - 0.51 * 0.95)


def test_hours_are_counted_in_hours_and_short_events_are_lines_as_high_as_their_decision():
    events = [
        make_event(1000.0 * number, 1000.0 * number + 2, "dog_bark", name) for number, name in enumerate(DECISIONS, 1)
    ]
    figure = make_detection(events, num_frames=20_000, duration=6 * 3600.0).plot()
    lanes = figure.axes[-1]
    assert [label.get_text() for label in lanes.get_xticklabels()] == [f"{hour}:00:00" for hour in range(7)]
    assert lanes.get_xlabel() == "time (h:mm:ss)" and bars(lanes) == []
    heights = {}
    for lines in lanes.collections:
        for segment in lines.get_segments() if hasattr(lines, "get_segments") else []:
            if segment[0][0] == segment[1][0]:
                heights[segment[0][0]] = abs(segment[1][1] - segment[0][1]) / 0.24
    assert [heights[1000.0 * number + 1] for number in range(1, 5)] == pytest.approx([1.0, 0.66, 0.33, 1.0])


def test_names_that_would_be_formulas_or_break_the_line():
    figure = make_detection(file="folder/" + "a" * 200 + "$x$\n.wav").plot()
    title = figure.get_suptitle()
    assert r"\$x\$ .wav" in title and "…" in title and len(title) < 130
    figure.canvas.draw()


def test_dark_is_dark():
    colours = [make_detection().plot(theme=name).get_facecolor()[0] for name in ("light", "dark")]
    assert colours[0] == 1.0 and colours[1] < 0.1
    with pytest.raises(ValueError, match="theme must be one of light, dark, got 'blue'"):
        make_detection().plot(theme="blue")


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="doc"):
        make_detection().plot(tmp_path / "yard.doc")


def test_no_matplotlib_is_one_clear_line(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **named):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"plots need matplotlib: pip install 'easysed\[plot\]'"):
        make_detection().plot()


def test_real_soundscapes_have_pictures(data_dir, tmp_path):
    detection = make_pipe()(str(data_dir / "soundscapes" / "audio" / "test" / "test_0000.ogg"))
    detection.plot(tmp_path / "scene.svg")
    assert (tmp_path / "scene.svg").stat().st_size > 10_000
    assert detection.envelope.shape == (2000, 2) and (detection.envelope[:, 0] <= detection.envelope[:, 1]).all()


# ---- the spread behind the band --------------------------------------------------------------------------------------


def test_spread_is_the_deviation_of_the_passes():
    pipe, samples = make_pipe(), make_audio(1.5)
    detection = pipe(as_source(samples), passes=8, shifts=0)
    features = pipe.feature_extractor(samples, sampling_rate=RATE).input_values
    expected = torch.sigmoid(pipe.model.monte_carlo(features, 8, 0).frame_logits[:, 0]).numpy()
    assert detection.spread == pytest.approx(expected.std(axis=0), abs=1e-5)
    assert detection.probabilities == pytest.approx(expected.mean(axis=0), abs=1e-5)


def test_spread_of_shifts_is_that_of_passes_and_views_together():
    pipe, samples = make_pipe(), make_audio(1.5)
    detection = pipe(as_source(samples), passes=8, shifts=2)
    features = pipe.feature_extractor(samples, sampling_rate=RATE).input_values
    at, views = np.arange(features.shape[1]), []
    for start in range(4):
        values = torch.sigmoid(pipe.model.monte_carlo(features[:, start:], 8, 0).frame_logits[:, 0]).numpy()
        centres = start + 4 * np.arange(values.shape[1])
        views.append([[np.interp(at, centres, column) for column in one.T] for one in values])
    exact = np.concatenate(views).std(axis=0).T  # of every single pass, interpolated
    # (grid, classes)
    assert (detection.spread >= exact - 1e-5).all()
    assert detection.spread == pytest.approx(exact, abs=0.02)


def test_one_answer_has_no_spread_and_several_have():
    pipe, source = make_pipe(), as_source(make_audio(1.5))
    assert pipe(source, uncertainty="none", shifts=0).spread is None
    for settings in ({"uncertainty": "none", "shifts": 2}, {"uncertainty": "exits", "shifts": 0}):
        detection = pipe(source, **settings)
        assert detection.spread.shape == detection.probabilities.shape and detection.spread.max() > 0.01


def test_the_arrays_are_not_in_the_json():
    assert set(make_detection().to_dict()) == {
        *("file", "duration", "sampling_rate", "events", "warnings", "receipt", "decision_rule")
    }


def test_mel_centres_are_those_of_the_scale():
    extractor = make_pipe().feature_extractor
    mel = np.linspace(*(2595 * np.log10(1 + hz / 700) for hz in (50.0, 8000.0)), 34)[1:-1]
    assert extractor.mel_hz() == pytest.approx(700 * (10 ** (mel / 2595) - 1), abs=16)  # half a bin of the transform


# ---- the palette -----------------------------------------------------------------------------------------------------


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[index : index + 2], 16) for index in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    """Relative luminance. Source: WCAG 2.2."""
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("name", THEMES)
def test_all_text_can_be_read_and_all_marks_be_seen(name):
    theme = theme_named(name)
    for ground in (theme.background, theme.surface):
        assert contrast(theme.ink, ground) > 7 and contrast(theme.muted, ground) > 4.5
        assert (
            contrast(theme.curve, ground) > 3 and contrast(theme.wave, ground) > 3 and contrast(theme.focus, ground) > 3
        )
    for own in theme.decisions.values():
        assert contrast(own.ink, theme.background if own.fill is None else own.fill) > 4.5
        assert contrast(own.edge, theme.background) > 3
    assert contrast(theme.curve, theme.band) > 3


@pytest.mark.parametrize("name", THEMES)
def test_decisions_can_be_told_apart_in_grey(name):
    theme = theme_named(name)
    fills = [theme.decisions[one].fill or theme.background for one in ("accept", "review", "reject")]
    assert contrast(fills[0], fills[1]) > 3 and contrast(fills[0], fills[2]) > 3
    assert len({(DECISIONS[one].symbol, DECISIONS[one].hatch) for one in ("accept", "review", "reject")}) == 3


# Severity 1.0 of protanopia and deuteranopia, linear RGB. Source: Machado, Oliveira & Fernandes 2009, table 1.
CONFUSED = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.mark.parametrize("kind", CONFUSED)
@pytest.mark.parametrize("name", THEMES)
def test_edges_of_accept_and_review_differ_for_colour_blind_eyes(name, kind):
    theme = theme_named(name)
    seen = [np.array(CONFUSED[kind]) @ linear(theme.decisions[one].edge) for one in ("accept", "review")]
    assert np.abs(seen[0] - seen[1]).max() > 0.15


def test_css_has_every_colour_once_per_mode():
    css = css_variables()
    assert css.count("--accept-fill:#") == css.count("--ink:#") == 2 and css.count("--reject-fill:transparent") == 2
    assert css.count("{") == css.count("}") == 3
    own = css_variables(".dark")
    assert "@media" not in own and "\n.dark{color-scheme:dark;" in own and own.count("--ink:#") == 2


@pytest.mark.parametrize(
    ("seconds", "longest", "decimals", "expected"),
    [
        (3.214, 10, 2, "3.21"),
        (75.5, 180, 1, "75.5"),
        (75.5, 181, 1, "0:01:15.5"),
        (3723.999, 9000, 2, "1:02:04.00"),
        (59.999, 900, 0, "0:01:00"),
    ],
)
def test_times_are_written(seconds, longest, decimals, expected):
    assert time_text(seconds, longest, decimals) == expected


def test_durations_have_their_unit():
    assert [duration_text(one) for one in (1.0, 180.0, 180.6, 7322.0)] == ["1.00 s", "180.00 s", "0:03:01", "2:02:02"]


@pytest.mark.parametrize("duration", [0.005, 0.3, 1.0, 9.99, 179.0, 181.0, 3600.0, 86400.0, 40 * 86400.0])
def test_ticks_are_round_and_few(duration):
    times, names = time_ticks(duration)
    assert 1 <= len(times) <= 11 and times[0] == 0.0 and times[-1] <= duration + 1e-6 and len(set(names)) == len(names)
    assert len(times) >= 3 or duration < 0.02
