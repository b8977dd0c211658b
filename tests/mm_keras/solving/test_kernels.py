import numpy as np
import pytest

from mm_keras.solving.kernels import Kernel, KernelFeatures, Similarities

KERNELS = [Kernel((0, 1)), Kernel((0, 2)), Kernel((0, 1), gamma=0.7)]


def _dense(block):
    return block.values if isinstance(block.values, np.ndarray) else block.values.toarray()


def _matrix(kernel, blocks, rows, landmarks, most=100):
    return Similarities(blocks, most).matrix(kernel, np.arange(rows), landmarks)


@pytest.mark.parametrize("most", [5, 100])
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_kernel_is_the_mean_over_its_blocks_plus_one(draw_rows, kernel, most):
    blocks = draw_rows(count=20).blocks
    matrix = _matrix(kernel, blocks, 5, np.arange(20), most)
    parts = [_dense(blocks[number]) for number in kernel.blocks]
    if kernel.gamma is None:
        expected = np.mean([part[:5] @ part.T for part in parts], axis=0)
    else:
        squares = [np.square(part[:5, None] - part[None]).sum(axis=2) for part in parts]
        expected = np.exp(-kernel.gamma * np.mean(squares, axis=0))
    np.testing.assert_allclose(matrix, expected + 1, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_products_of_features_are_the_kernel(draw_rows, kernel):
    blocks = draw_rows(count=60).blocks
    matrix = _matrix(kernel, blocks, 60, np.arange(60))
    exact = KernelFeatures.of(matrix, np.arange(60))
    np.testing.assert_allclose(exact.values @ exact.values.T, matrix, atol=1e-3)
    some = np.arange(0, 60, 2)
    approximate = KernelFeatures.of(matrix[:, some], some).values
    np.testing.assert_allclose(approximate @ approximate[some].T, matrix[:, some], atol=1e-3)


def test_coefficients_of_features_become_those_of_landmarks(draw_rows):
    blocks, landmarks = draw_rows(count=60).blocks, np.arange(0, 60, 3)
    matrix = _matrix(KERNELS[2], blocks, 60, landmarks)
    features = KernelFeatures.of(matrix, landmarks)
    coefficients = np.random.default_rng(0).normal(size=(len(landmarks), 3)).astype("float32")
    products = matrix @ features.dual(coefficients)
    np.testing.assert_allclose(products, features.values @ coefficients, atol=2e-3)
