"""Parameters and multiply-accumulates of every exit, against numbers worked out by hand."""

import pytest
from tiny import tiny_model

from modeling_easysed.costs import exit_costs

FRAMES, MELS, WIDTH, CLASSES = 1001, 32, 8, 3  # log-mel frames of 10 s, and the tiny model's sizes
HALF, QUARTER = 501, 251  # frames after the first and the second strided convolution
STEM = 9 * 1 * 4 * HALF * MELS // 2 + 9 * 4 * 4 * QUARTER * MELS // 4
TEMPORAL_BLOCK, CLASSIFIER = 3 * WIDTH * WIDTH * QUARTER, WIDTH * CLASSES * QUARTER


def head(in_features: int) -> int:
    return in_features * WIDTH * QUARTER + TEMPORAL_BLOCK + CLASSIFIER


def test_convolutions_are_counted_as_by_hand():
    first, second, _ = exit_costs(tiny_model())
    block = 2 * 9 * 4 * 4 * QUARTER * 8  # two 3x3 convolutions at a quarter of the frames and of the mels
    assert first["macs_per_10_s"] == STEM + block + head(4 * 8)
    # 4 to 6 channels at half the mels with a 1x1 shortcut, then 6 to 6
    blocks = (9 * 4 * 6 + 9 * 6 * 6 + 4 * 6) * QUARTER * 4 + 2 * 9 * 6 * 6 * QUARTER * 4
    assert second["macs_per_10_s"] == first["macs_per_10_s"] + blocks + head(6 * 4)


def test_attention_is_counted_as_by_hand():
    first = exit_costs(tiny_model("transformer"))[0]
    hidden, mlp = 16, 24
    products = QUARTER * QUARTER * hidden * 2  # queries with keys, weights with values, over all heads
    layers = QUARTER * (hidden * 3 * hidden + hidden * hidden + 2 * hidden * mlp)
    assert first["macs_per_10_s"] == STEM + QUARTER * 4 * 8 * hidden + layers + products + head(hidden)


def first_exit(frames: int) -> int:
    """The tiny CNN's first exit by hand, for any number of frames."""
    half = -(-frames // 2)
    quarter = -(-half // 2)
    stem = 9 * 1 * 4 * half * 16 + 9 * 4 * 4 * quarter * 8
    block = 2 * 9 * 4 * 4 * quarter * 8
    return stem + block + quarter * (32 * WIDTH + 3 * WIDTH * WIDTH + WIDTH * CLASSES)


def test_shorter_windows_are_counted_as_the_pipeline_cuts_them():
    """Windows of 400 frames start every 300; the last one starts at the frame 604, so that it reaches the end."""
    in_windows = exit_costs(tiny_model(window_s=4.0, context_s=0.5))[0]
    assert in_windows["macs_per_10_s"] == 3 * first_exit(400) + first_exit(397)
    assert exit_costs(tiny_model())[0]["macs_per_10_s"] == first_exit(FRAMES)


@pytest.mark.parametrize("backbone", ["cnn", "transformer"])
def test_parameters_are_those_of_the_students(backbone):
    model = tiny_model(backbone)
    costs = exit_costs(model)
    assert [cost["exit"] for cost in costs] == list(range(1, model.num_exits + 1))
    for cost in costs:
        assert cost["parameters"] == sum(value.numel() for value in model.student(cost["exit"]).parameters())
    assert model.device.type == "cpu" and not model.training
