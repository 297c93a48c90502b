"""The numbers behind the trust figures by hand, the files they write, and what they refuse."""

import numpy as np
import pytest
import trust_figures
from PIL import Image
from trust_figures import (
    draw_accuracy_compute,
    draw_interval_coverage,
    draw_reliability,
    draw_risk_coverage,
    risk_coverage,
    wilson_interval,
)

from modeling_easysed.metrics import aurc

MAX_BYTES = 120_000


def decisions(num_events=600, seed=0):
    """Probabilities and whether right, of a model that knows how sure it may be."""
    rng = np.random.default_rng(seed)
    probability = rng.beta(3, 1.3, num_events)
    return probability, (rng.random(num_events) < probability).astype(int)


def point(name="exit 1", method="none", shifts=0, milliseconds=9.0, f1=0.5, low=None, high=None):
    return dict(name=name, method=method, shifts=shifts, milliseconds=milliseconds, f1=f1, aurc=0.1, low=low, high=high)


def every_point():
    """Three exits of all methods, with and without shifts."""
    return [
        point(f"exit {number}", method, shifts, (6 + 5 * number) * factor * (1 + shifts), f1, f1 - 0.02, f1 + 0.02)
        for method, factor in [("none", 1.0), ("exits", 1.05), ("moments", 1.1), ("mc", 1.9)]
        for shifts in (0, 2)
        for number, f1 in enumerate((0.52 + 0.01 * shifts, 0.58, 0.61), start=1)
    ]


def check_png(path, min_dark_pixels=2000):
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert path.stat().st_size < MAX_BYTES
    with Image.open(path) as image:
        grey = np.asarray(image.convert("L"))
    height, width = grey.shape
    assert 700 <= width <= 1100 and 600 <= height <= 800
    assert (grey < 128).sum() > min_dark_pixels  # not a blank sheet


@pytest.fixture
def labels(monkeypatch):
    """Texts of every figure as it is saved: of the axes and of the legend."""
    seen = {"axes": [], "legend": [], "boxes": []}
    save = trust_figures._save

    def remember(figure, path):
        save(figure, path)
        for axes in figure.axes:
            seen["axes"] += [axes.get_title(loc="left"), *(text.get_text() for text in axes.texts)]
            seen["boxes"] += [text.get_window_extent() for text in axes.texts]
        seen["legend"] += [text.get_text() for legend in figure.legends for text in legend.get_texts()]

    monkeypatch.setattr(trust_figures, "_save", remember)
    return seen


def test_wilson_interval_by_hand():
    # z = 1.959964: (8 + z^2 / 2 +- z sqrt(8 * 2 / 10 + z^2 / 4)) / (10 + z^2)
    low, high = wilson_interval([8], [10], level=0.95)
    assert low[0] == pytest.approx(0.490162, abs=1e-6)
    assert high[0] == pytest.approx(0.943318, abs=1e-6)


def test_wilson_interval_of_none_and_all_right():
    # z^2 = 2.705543: z^2 / (10 + z^2) = 0.212942
    low, high = wilson_interval(np.array([0, 10]), np.array([10, 10]))
    assert low == pytest.approx([0, 1 - 0.212942], abs=1e-6)
    assert high == pytest.approx([0.212942, 1], abs=1e-6)


@pytest.mark.parametrize(
    ("right", "total", "level", "message"),
    [
        ([], [], 0.9, "non-empty shape"),
        ([1, 2], [3], 0.9, "one non-empty shape"),
        ([4], [3], 0.9, "0 <= right <= total"),
        ([0], [0], 0.9, "total >= 1"),
        ([1], [3], 1.0, "0 < level < 1"),
    ],
)
def test_wilson_interval_refuses(right, total, level, message):
    with pytest.raises(ValueError, match=message):
        wilson_interval(right, total, level)


def test_risk_coverage_by_hand():
    coverage, risk = risk_coverage([0.6, 0.9, 0.8, 0.7], [0, 1, 1, 0])
    assert coverage == pytest.approx([0.25, 0.5, 0.75, 1])
    assert risk == pytest.approx([0, 0, 1 / 3, 2 / 4])


def test_risk_coverage_shares_the_errors_of_a_tie():
    _, risk = risk_coverage([0.9, 0.5, 0.5, 0.5], [True, False, True, False])
    assert risk == pytest.approx([0, (2 / 3) / 2, (4 / 3) / 3, 2 / 4])
    _, reordered = risk_coverage([0.5, 0.5, 0.9, 0.5], [True, False, True, False])
    assert reordered == pytest.approx(risk)


def test_mean_risk_is_the_aurc():
    confidence, right = decisions()
    confidence = confidence.round(1)
    assert risk_coverage(confidence, right)[1].mean() == pytest.approx(aurc(-confidence, 1 - right))


@pytest.mark.parametrize(
    ("confidence", "right", "message"),
    [
        ([], [], r"confidence of the curve must be \(n,\), n >= 1"),
        ([0.5, 0.6], [1], r"right of the curve must be \(n,\), n = 2"),
        ([[0.5]], [[1]], r"confidence of the curve must be \(n,\)"),
        ([np.nan, 0.6], [1, 0], "confidence of the curve must be finite"),
        ([0.5, 0.6], [1, 0.5], "right of the curve must be 0 or 1"),
    ],
)
def test_risk_coverage_refuses(confidence, right, message):
    with pytest.raises(ValueError, match=message):
        risk_coverage(confidence, right)


def test_reliability(tmp_path, labels):
    probability, right = decisions()
    draw_reliability({"raw score": (probability**0.5, right), "confidence": (probability, right)}, tmp_path / "a.png")
    check_png(tmp_path / "a.png")
    before, after = (title.split("\n") for title in labels["axes"] if title)
    assert (before[0], after[0]) == ("Before: raw score", "After: confidence")
    assert before[1].endswith("600 events")
    assert float(before[1].split()[1][:-1]) > float(after[1].split()[1][:-1])


def test_reliability_title_has_the_error_of_15_bins(tmp_path, labels):
    # the bin of 0.9 holds three right of four, the bin of 0.1 none of one: (4 * 0.15 + 1 * 0.1) / 5
    group = ([0.9, 0.9, 0.9, 0.9, 0.1], [1, 1, 1, 0, 0])
    draw_reliability({"a": group, "b": group}, tmp_path / "a.png")
    assert labels["axes"][0] == "Before: a\nECE 0.140, 5 events"


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({}, "groups must be two"),
        ({"a": ([0.5], [1])}, "groups must be two, before and after, got 1"),
        ({"a": ([0.5], [1]), "b": ([], [])}, "confidence of b must be"),
        ({"a": ([0.5], [1, 0]), "b": ([0.5], [1])}, r"right of a must be \(n,\), n = 1"),
        ({"a": ([1.5], [1]), "b": ([0.5], [1])}, r"probabilities must be in \[0, 1\]"),
    ],
)
def test_reliability_refuses(tmp_path, groups, message):
    with pytest.raises(ValueError, match=message):
        draw_reliability(groups, tmp_path / "a.png")


def test_risk_coverage_figure(tmp_path, labels):
    confidence, right = decisions()
    noisy = confidence + np.random.default_rng(1).normal(scale=0.3, size=len(right))
    draw_risk_coverage({"confidence": (confidence, right), "noise": (noisy, right)}, tmp_path / "a.png")
    check_png(tmp_path / "a.png")
    assert labels["legend"][0] == f"confidence, AURC {aurc(-confidence, 1 - right):.3f}"
    assert set(labels["axes"]) == {"", "confidence", "noise"}


@pytest.mark.parametrize("right", [[1], [1, 1, 1], [0, 0, 0]])
def test_risk_coverage_figure_of_few_events(tmp_path, right):
    draw_risk_coverage({"confidence": (np.linspace(0.4, 0.6, len(right)), right)}, tmp_path / "a.png")
    check_png(tmp_path / "a.png")


def test_risk_coverage_figure_refuses(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_risk_coverage({}, tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"right of raw score must be \(n,\), n = 2"):
        draw_risk_coverage({"raw score": ([0.5, 0.6], [1])}, tmp_path / "a.png")


def test_interval_coverage(tmp_path, labels):
    levels = np.array([0.2, 0.5, 0.8, 1.0])
    observed = {"onset": [0.2, 0.5, 0.8, 1.0], "offset": [0.1, 0.4, 0.6, 0.8]}
    bands = {"onset": ([0.1, 0.4, 0.7, 0.9], [0.3, 0.6, 0.9, 1.0])}
    draw_interval_coverage(levels, observed, tmp_path / "a.png", bands)
    check_png(tmp_path / "a.png")
    # halfway between 0.8 and 1
    assert labels["legend"] == ["onset, 90 % inside the stated 90 %", "offset, 70 % inside the stated 90 %"]


def test_interval_coverage_says_nothing_of_a_level_that_it_lacks(tmp_path, labels):
    draw_interval_coverage([0.5, 0.8], {"onset": [0.5, 0.7]}, tmp_path / "a.png")
    assert labels["legend"] == ["onset"]


@pytest.mark.parametrize(
    ("levels", "observed", "bands", "message"),
    [
        ([], {"onset": []}, None, r"levels must be \(n,\), n >= 1"),
        ([0.5, 0.9], {}, None, "levels must increase, bands be of observed names"),
        ([0.9, 0.5], {"onset": [0.4, 0.8]}, None, "levels must increase"),
        ([0.5, 90], {"onset": [0.4, 0.8]}, None, r"levels must be in \[0, 1\], got 0.5 to 90.0"),
        ([0.5, 0.9], {"onset": [0.4]}, None, r"onset must be \(n,\), n = 2"),
        ([0.5, 0.9], {"onset": [0.4, 0.8]}, {"offset": ([0, 0], [1, 1])}, "bands be of observed names"),
        ([0.5, 0.9], {"onset": [0.4, 0.8]}, {"onset": ([0], [1, 1])}, r"band of onset must be \(n,\), n = 2"),
    ],
)
def test_interval_coverage_refuses(tmp_path, levels, observed, bands, message):
    with pytest.raises(ValueError, match=message):
        draw_interval_coverage(levels, observed, tmp_path / "a.png", bands)


def test_accuracy_compute(tmp_path, labels):
    draw_accuracy_compute(every_point(), tmp_path / "a.png")
    check_png(tmp_path / "a.png")
    assert labels["legend"][:2] == ["one pass, no shifts", "one pass, 2 shifts"]
    assert len(labels["legend"]) == 8


def test_names_of_exits_do_not_overlap(tmp_path, labels):
    draw_accuracy_compute(every_point(), tmp_path / "a.png")
    boxes = labels["boxes"]
    assert len(boxes) >= 12
    assert all(box.count_overlaps(boxes[:index]) == 0 for index, box in enumerate(boxes))


def test_accuracy_compute_of_one_point_without_a_bar(tmp_path, labels):
    draw_accuracy_compute([point()], tmp_path / "a.png")
    check_png(tmp_path / "a.png")
    assert labels["axes"][-1] == "exit 1"


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "nothing to draw"),
        ([point(method="magic")], "method must be in"),
        ([point(milliseconds=0)], "milliseconds > 0"),
        ([point(f1=52)], r"in \[0, 1\]"),
        ([point(f1=float("nan"))], r"in \[0, 1\]"),
        ([point(low=0.4, high=60)], r"f1 and bar in \[0, 1\]"),
    ],
)
def test_accuracy_compute_refuses(tmp_path, points, message):
    with pytest.raises(ValueError, match=message):
        draw_accuracy_compute(points, tmp_path / "a.png")
