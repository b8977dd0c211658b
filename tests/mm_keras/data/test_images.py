import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mm_keras.data.images import decode_augmented, decode_image, fit_image, fit_stored
from mm_keras.features import ImageSpec

RED, GREEN, BLUE, WHITE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (128, 128, 128)


@pytest.fixture(scope="module")
def marked():
    """A grey picture, 40 high and 80 wide, with a coloured square of 10 pixels in each corner."""
    image = np.full((40, 80, 3), GREY, np.uint8)
    image[:10, :10], image[:10, -10:], image[-10:, :10], image[-10:, -10:] = RED, GREEN, BLUE, WHITE
    return image


def _corners(image):
    return [tuple(int(value) for value in image[row, column]) for row in (0, -1) for column in (0, -1)]


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGB"), ("BMP", "RGB"), ("PNG", "L"), ("JPEG", "L"), ("PNG", "RGBA")])
def test_picture_of_any_kind_decodes_to_rgb(encode_image, kind, mode):
    picture = Image.new("RGB", (6, 4), (90, 90, 90)).convert(mode)
    image = decode_image(tf.constant(encode_image(picture, kind)))[0]
    assert image.dtype == tf.uint8
    assert image.shape == (4, 6, 3)
    np.testing.assert_array_equal(image, np.full((4, 6, 3), 90))


def test_animation_decodes_to_its_first_frame(encode_image):
    first, second = Image.new("P", (6, 4), 0), Image.new("P", (6, 4), 1)
    for frame in (first, second):
        frame.putpalette([*RED, *BLUE])
    data = encode_image(first, "GIF", save_all=True, append_images=[second])
    image = decode_image(tf.constant(data))[0]
    assert image.shape == (4, 6, 3)
    assert set(_corners(image.numpy())) == {RED}


def test_stretch_keeps_every_corner(marked):
    fitted = fit_image(tf.constant(marked), ImageSpec((40, 40), "stretch"))
    assert fitted.dtype == tf.float32
    assert fitted.shape == (40, 40, 3)
    np.testing.assert_allclose(_corners(fitted.numpy()), [RED, GREEN, BLUE, WHITE], atol=2)


def test_crop_takes_the_middle(marked):
    marked = marked.copy()
    marked[:, 20:60] = RED
    fitted = fit_image(tf.constant(marked), ImageSpec((40, 40), "crop"))
    np.testing.assert_array_equal(fitted, np.broadcast_to(np.float32(RED), (40, 40, 3)))


@pytest.mark.parametrize(
    ("size", "middle"), [((20, 40), (slice(2, 37), slice(5, 75))), ((40, 20), (slice(None), slice(30, 50)))]
)
def test_crop_has_the_aspect_of_the_tower(marked, size, middle):
    shrinks_to_half = size == (20, 40)
    expected = tf.image.resize(marked[middle], size, method="area" if shrinks_to_half else "bilinear")
    np.testing.assert_allclose(fit_image(tf.constant(marked), ImageSpec(size, "crop")), expected)


def test_picture_of_the_right_size_is_left_as_it_is(marked):
    for fit in ("crop", "stretch"):
        np.testing.assert_array_equal(fit_image(tf.constant(marked), ImageSpec((40, 80), fit)), marked.astype("float32"))


def test_picture_packed_at_256_is_cropped_to_224_and_not_resized():
    pixels = np.random.default_rng(0).integers(0, 256, (256, 320, 3), np.uint8)
    np.testing.assert_array_equal(fit_image(tf.constant(pixels), ImageSpec((224, 224), "crop")), pixels[16:240, 48:272])


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_picture_of_one_pixel_fills_the_tower(fit):
    fitted = fit_image(tf.constant([[RED]], tf.uint8), ImageSpec((8, 16), fit))
    np.testing.assert_array_equal(fitted, np.broadcast_to(np.float32(RED), (8, 16, 3)))


@pytest.mark.parametrize("side", [55, 100, 255, 256])
@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_fine_checkerboard_becomes_grey_where_it_shrinks(fit, side):
    side = round(side * 8 / 7) if fit == "crop" else side  # of which 7/8 are seen
    board = (np.indices((side, side)).sum(0) % 2 * 255).astype(np.uint8)
    fitted = fit_image(tf.constant(np.stack([board] * 3, -1)), ImageSpec((32, 32), fit)).numpy()
    assert abs(fitted.mean() - 127.5) < 1
    assert fitted[2:-2, 2:-2].std() < 5  # dozens for bilinear alone


def test_side_that_shrinks_does_not_alias_while_the_other_is_enlarged():
    stripes = np.zeros((16, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    stripes[:8] //= 2
    fitted = fit_image(tf.constant(stripes), ImageSpec((64, 64), "stretch")).numpy()
    assert fitted[:, 2:-2].std(axis=1).max() < 4
    steps = np.abs(np.diff(fitted[:, 32, 0]))
    assert steps.max() < 20  # bilinear between the two halves; averaging would jump by 64


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_stored_jpeg_is_seen_as_a_client_s_to_the_last_bit(encode_image, mode, progressive, fit):
    colours = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    for height, width in [(60, 40), (61, 97), (90, 140), (77, 77), (20, 131)]:
        photo = Image.fromarray(colours[:height, :width]).convert(mode)
        data = tf.constant(encode_image(photo, progressive=progressive, subsampling=2))  # chroma at half the size
        for spec in (ImageSpec((24, 24), fit), ImageSpec((48, 40), fit)):
            np.testing.assert_array_equal(fit_stored(data, spec), fit_image(decode_image(data)[0], spec))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_augmentation_shows_a_part_of_what_evaluation_shows(encode_image, mode, progressive):
    noise = Image.effect_noise((90, 90), 90).resize((30, 30)).resize((90, 90)).convert(mode)
    data = tf.constant(encode_image(noise, progressive=progressive, quality=95))
    whole, spec = decode_image(data)[0].numpy(), ImageSpec((90, 90))
    for index in range(4):
        seed = tf.constant([1, index], tf.int64)
        everything = decode_augmented(data, spec, seed, min_area=1.0).numpy()
        mirrored = np.abs(everything - whole).mean() > 1
        np.testing.assert_allclose(everything, whole[:, ::-1] if mirrored else whole, atol=1e-3)


@pytest.fixture(scope="module")
def columns(encode_image):
    """A square of 200 pixels whose brightness tells the column, as a JPEG."""
    return tf.constant(encode_image(np.tile(np.arange(0, 200, dtype=np.uint8), (200, 1)), quality=100))


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_augmentation_depends_on_its_seed_alone(columns, fit):
    spec = ImageSpec((24, 24), fit)
    first = decode_augmented(columns, spec, tf.constant([3, 4], tf.int64))
    tf.random.set_seed(99)
    np.testing.assert_array_equal(decode_augmented(columns, spec, tf.constant([3, 4], tf.int64)), first)
    assert not np.array_equal(decode_augmented(columns, spec, tf.constant([3, 5], tf.int64)), first)


def test_augmentation_is_the_same_in_a_pipeline(columns):
    spec = ImageSpec((24, 24), "crop")
    seeds = [[7, index] for index in range(20)]
    dataset = tf.data.Dataset.from_tensor_slices(tf.constant(seeds, tf.int64))
    piped = dataset.map(lambda seed: decode_augmented(columns, spec, seed))
    assert piped.element_spec.shape == (24, 24, 3)
    for seed, image in zip(seeds, piped, strict=True):
        np.testing.assert_allclose(decode_augmented(columns, spec, tf.constant(seed, tf.int64)), image, atol=1e-3)


def test_augmentation_mirrors_half_of_the_time_and_takes_no_less_than_its_area(columns):
    mirrored, widths = [], []
    for index in range(200):
        image = decode_augmented(columns, ImageSpec((40, 40)), tf.constant([0, index], tf.int64)).numpy()
        left, right = image[0, 0, 0], image[0, -1, 0]
        mirrored.append(left > right)
        widths.append(abs(right - left) / 200 / (39 / 40))
        assert image.min() >= 0
        assert image.max() <= 255
    assert 70 < sum(mirrored) < 130
    assert min(widths) ** 2 > 0.33
    assert min(widths) ** 2 < 0.45
    assert max(widths) > 0.95


def test_augmentation_takes_its_part_anywhere(encode_image):
    places = []
    for axis in (0, 1):
        ramp = np.indices((200, 200), np.uint8)[axis]
        data = tf.constant(encode_image(ramp, quality=100))
        middles = [
            float(tf.reduce_mean(decode_augmented(data, ImageSpec((8, 8)), tf.constant([0, index], tf.int64))))
            for index in range(100)
        ]
        places.append(middles)
        assert min(middles) < 75
        assert max(middles) > 124
        assert abs(np.mean(middles) - 99.5) < 5
    assert abs(np.corrcoef(*places)[0, 1]) < 0.3
