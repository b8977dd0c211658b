import colorsys

import numpy as np
import pytest
import tensorflow as tf

from mm_keras.data import pixels
from mm_keras.data.pixels import jitter_colors, rand_augment

IMAGE = np.random.default_rng(0).uniform(0, 255, (24, 32, 3)).astype("float32")
UP, DOWN = tf.constant(1.0), tf.constant(-1.0)


def _seed(number):
    return tf.stack([tf.constant(3, tf.int64), tf.cast(number, tf.int64)])


def _marked(row, column):
    """A grey picture with one white pixel."""
    image = np.full((21, 31, 3), 128, np.float32)
    image[row, column] = 255
    return tf.constant(image)


def _white(image):
    return tuple(int(place) for place in np.unravel_index(np.argmax(image.numpy()[..., 0]), image.shape[:2]))


@pytest.mark.parametrize(
    "change", [lambda i: jitter_colors(IMAGE, _seed(i), 0.4), lambda i: rand_augment(IMAGE, _seed(i), 2, 9)]
)
def test_same_seed_gives_the_same_picture_eagerly_and_inside_a_pipeline(change):
    eager = np.stack([change(tf.constant(number, tf.int64)) for number in range(24)])
    assert eager.dtype == np.float32
    assert eager.min() >= 0
    assert eager.max() <= 255
    assert len({each.tobytes() for each in eager}) >= 20  # RandAugment's identity, twice, changes nothing
    for _ in range(2):
        dataset = tf.data.Dataset.range(24).map(change, num_parallel_calls=4)
        assert dataset.element_spec.shape == IMAGE.shape
        np.testing.assert_allclose(np.stack(list(dataset.as_numpy_iterator())), eager, atol=1e-3)


def test_picture_with_a_size_that_is_not_known_beforehand_is_changed():
    signature = [tf.TensorSpec([None, None, 3], tf.float32), tf.TensorSpec([2], tf.int64)]
    function = tf.function(lambda image, seed: rand_augment(image, seed, 2, 9), input_signature=signature)
    for number in range(8):
        np.testing.assert_allclose(function(IMAGE, _seed(number)), rand_augment(IMAGE, _seed(number), 2, 9), atol=1e-3)


def test_strength_zero_changes_nothing():
    np.testing.assert_allclose(jitter_colors(IMAGE, _seed(0), 0.0), IMAGE, atol=1e-3)
    for change in (pixels.rotate, pixels.shear_x, pixels.move_y, pixels.solarize):
        np.testing.assert_allclose(change(tf.constant(IMAGE), 0.0, UP), IMAGE, atol=0.01)


def test_jitter_goes_to_both_sides_and_keeps_grey_pictures_grey():
    grey = np.full((4, 4, 3), 100, np.float32)
    grey[0] = 50
    changed = np.stack([jitter_colors(grey, _seed(number), 0.4) for number in range(60)])
    np.testing.assert_allclose(changed, np.repeat(changed[..., :1], 3, axis=-1), atol=0.1)
    means = changed.mean(axis=(1, 2, 3)) / grey.mean()
    assert 0.6 <= means.min() < 0.7
    assert 1.3 < means.max() <= 1.4
    contrasts = (changed[:, 1] - changed[:, 0]).mean(axis=(1, 2)) / 50 / means
    assert 0.6 <= contrasts.min() < 0.7
    assert 1.3 < contrasts.max() <= 1.41


def test_jitter_turns_the_hue_of_colours_by_at_most_a_tenth_of_the_circle():
    muted = np.full((2, 2, 3), (140, 110, 110), np.float32)
    hues = []
    for number in range(60):
        hue, _, _ = colorsys.rgb_to_hsv(*(jitter_colors(muted, _seed(number), 0.4).numpy()[0, 0] / 255))
        hues.append((hue + 0.5) % 1 - 0.5)
    assert -0.15 < min(hues) < -0.05  # YIQ's circle is not quite HSV's
    assert 0.05 < max(hues) < 0.15


def test_operations_move_things_where_they_should():
    assert _white(pixels.rotate(_marked(10, 25), 1.0, UP)) == (5, 24)
    assert _white(pixels.rotate(_marked(10, 25), 1.0, DOWN)) == (15, 24)
    assert _white(pixels.shear_x(_marked(0, 15), 1.0, UP)) == (0, 18)
    assert _white(pixels.shear_y(_marked(10, 25), 1.0, UP)) == (7, 25)
    assert _white(pixels.move_x(_marked(10, 15), 4 / 31 / 0.45, UP)) == (10, 11)
    assert _white(pixels.move_y(_marked(10, 15), 4 / 21 / 0.45, DOWN)) == (14, 15)


def test_what_comes_in_at_the_edges_is_grey():
    moved = pixels.move_x(tf.constant(IMAGE), 1.0, UP).numpy()
    np.testing.assert_array_equal(moved[:, -10:], np.full((24, 10, 3), 128, np.float32))


def test_operations_on_values_are_their_definitions():
    image = tf.constant(IMAGE)
    np.testing.assert_array_equal(pixels.posterize(image, 1.0, UP), np.floor(IMAGE / 16) * 16)
    np.testing.assert_allclose(pixels.solarize(image, 1.0, UP), 255 - IMAGE, atol=1e-4)
    np.testing.assert_allclose(pixels.solarize(image, 0.5, UP), np.where(IMAGE < 128, IMAGE, 255 - IMAGE), atol=1e-4)
    np.testing.assert_allclose(pixels.change_brightness(image, 0.5), IMAGE / 2, atol=1e-4)
    grey = IMAGE @ np.float32([0.299, 0.587, 0.114])
    np.testing.assert_allclose(pixels.change_saturation(image, 0.0), np.repeat(grey[..., None], 3, -1), atol=0.01)
    np.testing.assert_allclose(pixels.change_contrast(image, 0.0), np.full(IMAGE.shape, grey.mean()), rtol=1e-4)
    flat = tf.fill([5, 5, 3], 90.0)
    np.testing.assert_allclose(pixels.change_sharpness(flat, 1.9), flat, atol=1e-3)


def test_autocontrast_and_equalize_fill_the_range():
    narrow = tf.constant(100 + IMAGE / 10)
    for change in (pixels.autocontrast, pixels.equalize):
        changed = change(narrow, 1.0, UP).numpy()
        np.testing.assert_allclose(changed.min(axis=(0, 1)), 0, atol=1e-3)
        np.testing.assert_allclose(changed.max(axis=(0, 1)), 255, atol=1e-3)
    skewed = tf.constant(IMAGE**3 / 255**2)
    histogram, _ = np.histogram(pixels.equalize(skewed, 1.0, UP), bins=4, range=(0, 256))
    assert histogram.min() > 0.15 * IMAGE.size
    for change in (pixels.autocontrast, pixels.equalize):
        flat = tf.fill([5, 5, 3], 90.0)
        np.testing.assert_array_equal(change(flat, 1.0, UP), flat)
