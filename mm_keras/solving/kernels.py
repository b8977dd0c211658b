"""Kernels over blocks, and the features that represent them: exact for small data, Nyström landmarks for large."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.linalg import solve_triangular

from mm_keras.solving.blocks import Block

_JITTER = 1e-4


@dataclasses.dataclass(frozen=True)
class Kernel:
    """How similar two examples are, by some of their blocks.

    Attributes:
        blocks: numbers of the blocks, all with the same say.
        gamma: of a Gaussian kernel exp(-gamma x the mean squared distance of the blocks). None: a linear kernel, the mean inner
            product of the blocks, which becomes a dense layer without landmarks.
    """

    blocks: tuple[int, ...]
    gamma: float | None = None

    def matrix(self, rows: Sequence[Block], landmarks: Sequence[Block]) -> np.ndarray:
        """float32 [N, K]: the kernel of rows with landmarks, plus 1, so that regressions have an intercept.

        Args:
            rows, landmarks: all blocks of the examples, as `take` gives them.
        """
        total = 0.0
        for number in self.blocks:
            one, other = rows[number].values, landmarks[number].values
            products = _dense(one @ other.T)
            if self.gamma is not None:
                products = products - (_squares(one)[:, None] + _squares(other)[None, :]) / 2
            total = total + products
        total /= len(self.blocks)
        if self.gamma is not None:
            np.multiply(total, 2 * self.gamma, out=total)
            np.exp(np.minimum(total, 0, out=total), out=total)
        total += 1
        return total


@dataclasses.dataclass(frozen=True)
class KernelFeatures:
    """Features whose inner products are a kernel, as far as its landmarks tell: those of N examples, and how others get theirs.

    Reference: Williams and Seeger, "Using the Nyström Method to Speed Up Kernel Machines" (2000).

    Attributes:
        kernel: the kernel.
        landmarks: int [K], the rows that are landmarks; all of them, where there are few.
        values: float32 [N, K].
        factor: float32 [K, K], the lower Cholesky factor of the landmarks' kernel.
    """

    kernel: Kernel
    landmarks: np.ndarray
    values: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, kernel: Kernel, blocks: Sequence[Block], landmarks: np.ndarray) -> KernelFeatures:
        """Computes the features of all rows.

        Args:
            kernel: the kernel.
            blocks: all blocks.
            landmarks: int [K], some of their rows, each once.
        """
        to_landmarks = kernel.matrix(blocks, take(blocks, landmarks))
        among = to_landmarks[landmarks].astype("float64")
        among.flat[:: len(among) + 1] += _JITTER
        factor = np.linalg.cholesky((among + among.T) / 2).astype("float32")
        if len(landmarks) == len(to_landmarks) and (landmarks == np.arange(len(landmarks))).all():
            return cls(kernel, landmarks, factor, factor)
        values = solve_triangular(factor, to_landmarks.T, lower=True, check_finite=False).T
        return cls(kernel, landmarks, np.ascontiguousarray(values), factor)

    def dual(self, coefficients: np.ndarray) -> np.ndarray:
        """Coefficients of the features [K, L] -> of the kernel's landmarks float32 [K, L]."""
        return solve_triangular(self.factor, coefficients, lower=True, trans="T", check_finite=False)


def take(blocks: Sequence[Block], rows: np.ndarray) -> list[Block]:
    """All blocks of some rows."""
    return [dataclasses.replace(block, values=block.values[rows]) for block in blocks]


def _dense(products) -> np.ndarray:
    return np.asarray(products if isinstance(products, np.ndarray) else products.toarray(), np.float32)


def _squares(values) -> np.ndarray:
    squares = values * values if isinstance(values, np.ndarray) else values.multiply(values)
    return np.asarray(squares.sum(axis=1), np.float32).ravel()
