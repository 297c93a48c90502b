"""Which candidates are right: the intersection criterion on cases that are worked out by hand."""

import math

import pytest
from event_truth import judge_boxes

from modeling_easysed.decoding_easysed import Box

CLASSES = ["dog_bark", "rain"]


def truth_of(onset: float, offset: float, references: list[list], class_index: int = 0):
    return judge_boxes([Box(onset, offset, class_index, 0.5)], references, CLASSES)[0]


@pytest.mark.parametrize(
    ("onset", "offset", "reference", "right"),
    [
        (1.0, 2.0, (1.0, 2.0), True),
        (0.0, 2.0, (1.0, 2.0), True),  # exactly half of the candidate
        (0.0, 2.1, (1.1, 2.1), False),  # 1 of 2.1 s
        (0.0, 2.0, (1.5, 1.9), False),  # all of the reference, a fifth of the candidate
        (0.0, 1.0, (0.0, 2.0), True),  # exactly half of the reference
        (0.0, 1.0, (0.0, 2.1), False),
        (1.0, 3.0, (2.0, 4.0), True),  # exactly half of both
        (0.1, 0.3, (0.2, 0.4), True),  # the same in floats: 0.3 - 0.2 < 0.1
        (1.0, 2.0, (2.0, 3.0), False),  # they only touch
        (1.0, 2.0, (3.0, 4.0), False),
    ],
)
def test_half_of_the_candidate_and_half_of_the_reference(onset, offset, reference, right):
    truth = truth_of(onset, offset, [[*reference, "dog_bark"]])
    assert truth.right is right
    if right:
        assert truth[1:] == reference
    else:
        assert math.isnan(truth.onset) and math.isnan(truth.offset)


def test_another_class_counts_for_nothing():
    references = [[1.0, 2.0, "rain"]]
    assert not truth_of(1.0, 2.0, references).right
    assert truth_of(1.0, 2.0, references, class_index=1).right


def test_two_references_may_share_a_candidate():
    # a quarter of the candidate each, half together; the first of two found alike is the one that was found
    assert truth_of(0.0, 4.0, [[0.0, 1.0, "dog_bark"], [3.0, 4.0, "dog_bark"]]) == (True, 0.0, 1.0)
    # two thirds of the first, all of the second
    assert truth_of(1.0, 5.0, [[0.0, 3.0, "dog_bark"], [4.0, 5.0, "dog_bark"]]) == (True, 4.0, 5.0)


def test_half_of_one_reference_must_be_covered():
    # 0.8 of the candidate lies on events, but it holds 0.4 of 1.4 s of either
    assert not truth_of(1.0, 2.0, [[0.0, 1.4, "dog_bark"], [1.6, 3.0, "dog_bark"]]).right


def test_without_references_nothing_is_right():
    assert not truth_of(1.0, 2.0, []).right
    assert judge_boxes([], [[1.0, 2.0, "dog_bark"]], CLASSES) == []


def test_every_candidate_has_its_truth_in_its_order():
    boxes = [Box(5.0, 6.0, 0, 0.9), Box(1.0, 2.0, 0, 0.5), Box(1.0, 2.0, 1, 0.7)]
    found = judge_boxes(boxes, [[1.0, 2.2, "dog_bark"], [0.9, 2.0, "rain"]], CLASSES)
    assert [one.right for one in found] == [False, True, True]
    assert found[1:] == [(True, 1.0, 2.2), (True, 0.9, 2.0)]
