"""An order of many things that is never written down."""

import numpy as np
from numpy.typing import NDArray

from egra_dist.graph.sampler import combine_keys, mix

_NUM_ROUNDS = 4


class PseudorandomPermutation:
    """A permutation of ``0 .. size - 1`` of which any part is computed when it is asked for.

    A Feistel network over the next even power of two (Luby & Rackoff 1988); numbers that leave
    the range are sent through it again until they are back (Black & Rogaway 2002).

    Args:
        seed: Names the permutation.
        size: How many numbers.
    """

    def __init__(self, seed: list[int], size: int) -> None:
        self._size = size
        self._bits = np.uint64((max(size - 1, 1).bit_length() + 1) // 2)
        self._keys = [np.uint64(combine_keys(*seed, number)) for number in range(_NUM_ROUNDS)]

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> NDArray[np.int64]:
        """The numbers at consecutive places."""
        numbers = np.arange(*part.indices(self._size)).astype(np.uint64)
        outside = np.arange(len(numbers))
        while len(outside):
            numbers[outside] = self._shuffle(numbers[outside])
            outside = outside[numbers[outside] >= self._size]
        return numbers.astype(np.int64)

    def _shuffle(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        mask = (np.uint64(1) << self._bits) - np.uint64(1)
        left, right = numbers >> self._bits, numbers & mask
        for key in self._keys:
            left, right = right, left ^ (mix(right + key) & mask)
        return (left << self._bits) | right
