"""Misses and confusions by hand."""

import pytest
from confusions import confused_with, coverage

CLASSES = ["dog_bark", "rain", "sea_waves"]
REFERENCES = [(0.0, 4.0, "rain"), (3.0, 5.0, "sea_waves")]


def test_coverage():
    assert coverage((3.0, 5.0, "rain"), REFERENCES, "rain") == pytest.approx(0.5)
    assert coverage((3.0, 5.0, "rain"), REFERENCES, "dog_bark") == 0.0


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ((0.5, 4.5, "rain"), None),
        ((3.9, 4.9, "rain"), "sea_waves"),
        ((0.0, 1.0, "dog_bark"), "rain"),
        ((7.0, 8.0, "dog_bark"), "nothing"),
    ],
)
def test_what_a_false_event_lies_on(event, expected):
    assert confused_with(event, REFERENCES, CLASSES) == expected
