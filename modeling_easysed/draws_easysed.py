"""What Monte Carlo passes draw, without PyTorch: the masks of `monte_carlo_easysed.sample_masks`, bit by bit.

RECIPE says how in words that a programmer of any language can follow; it travels with every export."""

import math
from functools import lru_cache

import numpy as np

RECIPE = (
    "words: 32-bit outputs of MT19937 (Matsumoto and Nishimura 1998), state initialised by init_genrand(seed mod 2^32);"
    " one word per value, order passes, sites, width, last fastest; a value is dropped (0) where (word mod 2^24) / 2^24"
    " < probability, else kept; plain pass: ones"
)
MAX_PASSES = 10_000


@lru_cache(maxsize=8)
def seed_masks(passes: int, num_sites: int, width: int, probability: float, seed: int) -> np.ndarray:
    """Keep masks (passes, sites, width), float32: 0 with `probability`, else 1 / (1 - probability).

    All windows and views share one array: nobody writes into it.
    """
    generator = np.random.RandomState(seed % 2**32)  # the legacy seeding is init_genrand
    words = generator.randint(0, 2**32, size=(passes, num_sites, width), dtype=np.uint32)
    uniform = (words & np.uint32(2**24 - 1)).astype(np.float32) / np.float32(2**24)
    return (uniform >= np.float32(probability)).astype(np.float32) / np.float32(1.0 - probability)


def check_passes(passes: int) -> None:
    """Raises ValueError when `passes` is no whole number from 1 to 10 000."""
    if isinstance(passes, bool) or not isinstance(passes, int) or not 1 <= passes <= MAX_PASSES:
        raise ValueError(f"passes must be a whole number from 1 to {MAX_PASSES}, got {passes!r}; 20 is usual")


def check_closed_form(monte_carlo_blocks: int) -> None:
    """Raises ValueError when dropout in front of a block, whose output is no sum of its inputs, is sampled as well."""
    if monte_carlo_blocks > 0:
        raise ValueError(
            f"moments are exact for the classifier's dropout alone (monte_carlo_blocks=0), got {monte_carlo_blocks}: "
            "use uncertainty='mc'"
        )


def normal_nodes(num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights, each (nodes,), whose weighted sum is the mean over a standard normal distribution."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    return nodes.astype(np.float32), (weights / math.sqrt(2 * math.pi)).astype(np.float32)


__all__ = ["MAX_PASSES", "RECIPE", "check_closed_form", "check_passes", "normal_nodes", "seed_masks"]
