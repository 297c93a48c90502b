"""A seed's dropout masks without PyTorch: those of `monte_carlo_easysed.sample_masks`, bit by bit.

RECIPE says how in words that a programmer of any language can follow; it travels with every export."""

import numpy as np

RECIPE = (
    "words: 32-bit outputs of MT19937 (Matsumoto and Nishimura 1998), state initialised by init_genrand(seed mod 2^32);"
    " one word per value, order passes, sites, width, last fastest; a value is dropped (0) where (word mod 2^24) / 2^24"
    " < probability, else kept; plain pass: ones"
)


def seed_masks(passes: int, num_sites: int, width: int, probability: float, seed: int) -> np.ndarray:
    """Keep masks (passes, sites, width), float32: 0 with `probability`, else 1 / (1 - probability)."""
    generator = np.random.RandomState(seed % 2**32)  # the legacy seeding is init_genrand
    words = generator.randint(0, 2**32, size=(passes, num_sites, width), dtype=np.uint32)
    uniform = (words & np.uint32(2**24 - 1)).astype(np.float32) / np.float32(2**24)
    return (uniform >= np.float32(probability)).astype(np.float32) / np.float32(1.0 - probability)


__all__ = ["RECIPE", "seed_masks"]
