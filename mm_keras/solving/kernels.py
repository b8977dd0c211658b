"""Kernels over blocks, and the features that represent them: exact for small data, Nyström landmarks for large."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence

import numpy as np
from scipy.linalg import solve_triangular

from mm_keras.solving.blocks import Block

_JITTER = 1e-4


@dataclasses.dataclass(frozen=True)
class Kernel:
    """How similar two examples are, by some of their blocks.

    Attributes:
        blocks: numbers of the blocks, which all have the same weight.
        gamma: of a Gaussian kernel exp(-gamma x the mean squared distance of the blocks). None: a linear kernel, the mean inner
            product of the blocks, which becomes a dense layer without landmarks.
    """

    blocks: tuple[int, ...]
    gamma: float | None = None


class Similarities:
    """The kernels of examples with landmarks among them.

    Args:
        blocks: all blocks of all examples.
        most: with at most so many examples, the inner products of all of them are kept, once a block for all kernels.
    """

    def __init__(self, blocks: Sequence[Block], most: int):
        self._blocks = blocks
        self._squares = [_squares(block.values) for block in blocks]
        self._kept: dict[int, np.ndarray] | None = {} if len(self._squares[0]) <= most else None
        self._lock = threading.Lock()  # threads may ask for the same block at the same time

    def matrix(self, kernel: Kernel, rows: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """float32 [n, K]: the kernel of some rows with landmarks, plus 1, so that regressions have an intercept.

        Args:
            kernel: the kernel.
            rows, landmarks: int [n] and [K], numbers of examples.
        """
        if kernel.gamma is not None:
            total = self.exponents(kernel, rows, landmarks)
            np.exp(total, out=total)
        else:
            total = sum(self._products(number, rows, landmarks) for number in kernel.blocks) / len(kernel.blocks)
        total += 1
        return total

    def exponents(self, kernel: Kernel, rows: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """float32 [n, K], at most 0: the logarithm of a Gaussian kernel."""
        total = np.zeros((len(rows), len(landmarks)), np.float32)
        for number in kernel.blocks:
            squares = self._squares[number]
            total += self._products(number, rows, landmarks)
            total -= (squares[rows][:, None] + squares[landmarks][None, :]) / 2
        total *= 2 * kernel.gamma / len(kernel.blocks)
        return np.minimum(total, 0, out=total)

    def _products(self, number: int, rows: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        values = self._blocks[number].values
        if self._kept is None:
            return _dense(values[rows] @ values[landmarks].T)
        with self._lock:
            if number not in self._kept:
                self._kept[number] = _dense(values @ values.T)
        return self._kept[number][np.ix_(rows, landmarks)]


@dataclasses.dataclass(frozen=True)
class KernelFeatures:
    """Features whose inner products approximate a kernel, by its values at landmarks.

    Reference: Williams and Seeger, "Using the Nyström Method to Speed Up Kernel Machines" (2000).

    Attributes:
        values: float32 [N, K].
        factor: float32 [K, K], the lower Cholesky factor of the landmarks' kernel.
    """

    values: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray, landmarks: np.ndarray) -> KernelFeatures:
        """Computes the features of all rows.

        Args:
            matrix: float32 [N, K], the kernel of all rows with the landmarks.
            landmarks: int [K], which of the rows the landmarks are, each once and in rising order.
        """
        landmark_kernel = matrix[landmarks].astype("float64")
        landmark_kernel.flat[:: len(landmark_kernel) + 1] += _JITTER
        factor = np.linalg.cholesky((landmark_kernel + landmark_kernel.T) / 2).astype("float32")
        if len(landmarks) == len(matrix):
            return cls(factor, factor)
        values = solve_triangular(factor, matrix.T, lower=True, check_finite=False).T
        return cls(np.ascontiguousarray(values), factor)

    def dual(self, coefficients: np.ndarray) -> np.ndarray:
        """Coefficients of the features [K, L] -> coefficients of the kernel's landmarks float32 [K, L]."""
        return solve_triangular(self.factor, coefficients, lower=True, trans="T", check_finite=False)


def _dense(products) -> np.ndarray:
    return np.asarray(products if isinstance(products, np.ndarray) else products.toarray(), np.float32)


def _squares(values) -> np.ndarray:
    squares = values * values if isinstance(values, np.ndarray) else values.multiply(values)
    return np.asarray(squares.sum(axis=1), np.float32).ravel()
