"""Splits by recording: which clips belong together, and that no recording is ever cut in two."""

import itertools
from collections import Counter

import numpy as np
import pytest
from recording_splits import folds_by_recording, group_of, split_by_recording


@pytest.mark.parametrize(
    ("file_name", "group"),
    [
        ("audio/5-151085-A.ogg", "5-151085"),
        ("5-151085-B.ogg", "5-151085"),
        ("rec12_03.wav", "rec12"),
        ("rec12-003.wav", "rec12"),
        ("rec12 (2).wav", "rec12"),
        ("rec12_take2.wav", "rec12"),
        ("kitchen-slice-04.wav", "kitchen"),
        ("kitchen (2).wav", "kitchen"),
        ("100032-3-0-1.wav", "100032-3-0"),  # one part, not all of them
        ("rec12.wav", "rec12"),
        ("dog/dog_01.wav", "dog_01"),  # a word and a number: a recording of its own
        ("2024.wav", "2024"),
        ("_03.wav", "_03"),
        ("-A.wav", "-A"),
        ("a.b.wav", "a.b"),
    ],
)
def test_group_of_a_name(file_name, group):
    assert group_of(file_name, {}) == group


@pytest.mark.parametrize("column", ["source", "recording", "freesound_id", "group"])
def test_group_of_a_column(column):
    assert group_of("rec12_03.wav", {column: " 77 "}) == "77"
    assert group_of("rec12_03.wav", {column: 77}) == "77"
    assert group_of("rec12_03.wav", {column: " "}) == "rec12"
    assert group_of("rec12_03.wav", {column: None}) == "rec12"


def test_the_first_column_with_a_value_counts():
    assert group_of("a.wav", {"group": "g", "freesound_id": "f", "recording": "r", "source": ""}) == "r"


def random_groups(rng: np.random.Generator, num_groups: int, largest: int) -> list[str]:
    sizes = rng.integers(1, largest + 1, size=num_groups)
    groups = [f"r{number}" for number, size in enumerate(sizes) for _ in range(size)]
    return [groups[index] for index in rng.permutation(len(groups))]


def check_parts(groups: list[str], parts: list[list[int]]) -> None:
    assert sorted(itertools.chain(*parts)) == list(range(len(groups)))
    assert all(part == sorted(part) and part for part in parts)
    for one, other in itertools.combinations(parts, 2):
        assert not {groups[index] for index in one} & {groups[index] for index in other}


@pytest.mark.parametrize("case", range(60))
def test_every_recording_is_whole_and_parts_are_close_to_their_shares(case):
    rng = np.random.default_rng(case)
    num_parts = int(rng.integers(1, 5))
    groups = random_groups(rng, int(rng.integers(num_parts, 40)), int(rng.integers(1, 12)))
    shares = rng.uniform(0.1, 1.0, size=num_parts)
    parts = split_by_recording(groups, shares.tolist(), seed=case)
    check_parts(groups, parts)
    wanted, largest = shares / shares.sum() * len(groups), max(Counter(groups).values())
    if wanted.min() >= largest:
        assert np.abs(np.array([len(part) for part in parts]) - wanted).max() < largest


@pytest.mark.parametrize("case", range(40))
def test_folds_differ_by_less_than_the_largest_recording(case):
    rng = np.random.default_rng(case)
    num_folds = int(rng.integers(2, 6))
    groups = random_groups(rng, int(rng.integers(num_folds, 40)), int(rng.integers(1, 12)))
    folds = folds_by_recording(groups, num_folds, seed=case)
    check_parts(groups, folds)
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= max(Counter(groups).values())


def test_single_clips_are_shared_out_exactly():
    groups = [f"r{number}" for number in range(100)]
    parts = split_by_recording(groups, (0.7, 0.2, 0.1), seed=3)
    assert [len(part) for part in parts] == [70, 20, 10]
    assert [len(fold) for fold in folds_by_recording(groups, 5, seed=3)] == [20] * 5


def test_shares_need_no_sum_of_one():
    groups = [f"r{number // 2}" for number in range(40)]
    assert split_by_recording(groups, (4, 1), seed=0) == split_by_recording(groups, (0.8, 0.2), seed=0)


def test_the_seed_decides():
    groups = [f"r{number // 2}" for number in range(60)]
    assert split_by_recording(groups, (0.5, 0.5), seed=1) == split_by_recording(groups, (0.5, 0.5), seed=1)
    assert split_by_recording(groups, (0.5, 0.5), seed=1) != split_by_recording(groups, (0.5, 0.5), seed=2)


def test_the_order_of_clips_does_not_decide():
    groups = random_groups(np.random.default_rng(0), 20, 5)
    turned = groups[::-1]
    names = [{groups[index] for index in part} for part in split_by_recording(groups, (0.6, 0.4), seed=7)]
    assert names == [{turned[index] for index in part} for part in split_by_recording(turned, (0.6, 0.4), seed=7)]


def test_a_small_share_still_gets_a_recording():
    parts = split_by_recording(["a"] * 10 + ["b"] * 10 + ["c"], (0.5, 0.5, 0.001), seed=0)
    assert parts[2] == [20]


@pytest.mark.parametrize("shares", [(), (0.5, 0.0), (0.5, -1.0), (0.5, float("nan")), (1.0, float("inf"))])
def test_shares_must_be_positive(shares):
    with pytest.raises(ValueError, match="shares must be positive numbers, one for each part, got"):
        split_by_recording(["a", "b"], shares, seed=0)


def test_fewer_recordings_than_parts():
    with pytest.raises(ValueError, match="3 parts need at least as many recordings, got 2 in 5 clips: add"):
        folds_by_recording(["a", "a", "b", "b", "b"], 3, seed=0)


def test_one_fold_is_none():
    with pytest.raises(ValueError, match="num_folds must be at least 2, got 1"):
        folds_by_recording(["a", "b"], 1, seed=0)
