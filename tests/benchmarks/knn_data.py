"""Tables of vectors that the item graph is measured on."""

import numpy as np


def clustered(num_rows, dim, seed=0, size=None):
    """Skewed clusters of skewed clusters, of unit length; ``size`` of them, or all."""
    generator = np.random.default_rng(seed)
    num_top, num_sub = max(8, int(num_rows**0.5 / 8)), max(64, num_rows // 60)
    weights = 1 / np.arange(1, num_top + 1) ** 0.8
    top = generator.standard_normal((num_top, dim), dtype=np.float32)
    parents = generator.choice(num_top, num_sub, p=weights / weights.sum())
    sub = top[parents] + 0.6 * generator.standard_normal((num_sub, dim), dtype=np.float32)
    weights = generator.lognormal(0, 1, num_sub)
    for first in range(0, size or num_rows, 1 << 20):
        block = min(1 << 20, (size or num_rows) - first)
        members = generator.choice(num_sub, block, p=weights / weights.sum())
        rows = sub[members] + 0.7 * generator.standard_normal((block, dim), dtype=np.float32)
        yield rows / np.linalg.norm(rows, axis=1, keepdims=True)


def latent(num_rows, dim, seed=0):
    """Twelve latent dimensions through a random network, of unit length."""
    generator = np.random.default_rng(seed)
    hidden = generator.standard_normal((12, 128), dtype=np.float32)
    out = generator.standard_normal((128, dim), dtype=np.float32)
    for first in range(0, num_rows, 1 << 20):
        size = min(1 << 20, num_rows - first)
        rows = np.tanh(generator.standard_normal((size, 12), dtype=np.float32) @ hidden) @ out
        yield rows / np.linalg.norm(rows, axis=1, keepdims=True)


DATA = {"clustered": clustered, "latent": latent}


def vectors_file(folder, data, num_rows, dim):
    """The table of vectors, made when it is not there."""
    path = folder / f"{data}-{num_rows}-{dim}.npy"
    if not path.exists():
        partial = path.with_suffix(".partial")
        table = np.lib.format.open_memmap(
            partial, mode="w+", dtype=np.float32, shape=(num_rows, dim)
        )
        first = 0
        for block in DATA[data](num_rows, dim):
            table[first : first + len(block)] = block
            first += len(block)
        table.flush()
        partial.rename(path)
    return path
