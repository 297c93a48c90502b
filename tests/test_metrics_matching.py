"""Maximum matching against a search over all assignments."""

from itertools import permutations

import numpy as np
import pytest

from modeling_easysed.metrics.matching import maximum_matching


def test_a_greedy_choice_is_undone():
    # row 0 takes column 0 first; rows 1 and 2 then need it to move on, twice
    allowed = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1]], dtype=bool)
    assert maximum_matching(allowed).tolist() == [1, 0, 2]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_match(shape):
    assert maximum_matching(np.zeros(shape, dtype=bool)).tolist() == [-1] * shape[0]


@pytest.mark.parametrize("seed", range(40))
def test_matches_as_many_as_exhaustive_search(seed):
    rng = np.random.default_rng(seed)
    allowed = rng.random((5, 5)) < 0.35
    most = max(allowed[range(5), columns].sum() for columns in permutations(range(5)))
    matched = maximum_matching(allowed)
    rows = np.flatnonzero(matched >= 0)
    assert len(rows) == most
    assert allowed[rows, matched[rows]].all()
    assert len(set(matched[rows])) == len(rows)
