import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageFilter
from PIL.Image import Resampling

from tfrecords_tools.packing.images import BadImageError, ImageOptions, check_jpeg, prepare_image

KEEP = ImageOptions()
SMALL = ImageOptions(short_side=100)
PASSTHROUGH = ImageOptions(short_side=None)


def _pixels(prepared):
    """The stored picture as Pillow reads it, checked against what `prepared` says about it."""
    image = Image.open(io.BytesIO(prepared.data))
    assert (image.format, image.height, image.width) == ("JPEG", prepared.height, prepared.width)
    assert check_jpeg(prepared.data) == (prepared.height, prepared.width)
    return np.asarray(image.convert("RGB")).astype(int)


def _is_colour(pixels, colour, tolerance=6):
    return np.abs(pixels.reshape(-1, 3).mean(0) - colour).max() < tolerance


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)


@pytest.fixture(scope="module")
def left_red_right_blue():
    pixels = np.zeros((30, 60, 3), np.uint8)
    pixels[:, :30, 0] = 200
    pixels[:, 30:, 2] = 200
    return pixels


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_small_jpeg_keeps_its_bytes(encode_image, mode):
    data = encode_image(Image.new(mode, (40, 30), 99 if mode == "L" else (9, 99, 199)))
    prepared = prepare_image(data, KEEP)
    assert (prepared.data, prepared.height, prepared.width, prepared.reencoded) == (data, 30, 40, False)


def test_image_is_never_enlarged(encode_image):
    prepared = prepare_image(encode_image(Image.new("RGB", (20, 300)), "PNG"), KEEP)
    assert (prepared.height, prepared.width) == (300, 20)


@pytest.mark.parametrize(
    ("size", "stored"),
    [((2000, 1000), (200, 100)), ((450, 150), (300, 100)), ((130, 100), (130, 100)), ((101, 333), (100, 330))],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_large_image_shrinks_to_the_short_side_and_keeps_its_aspect(encode_image, size, stored, kind):
    prepared = prepare_image(encode_image(Image.new("RGB", size, "orange"), kind), SMALL)
    assert (prepared.width, prepared.height) == stored
    assert prepared.reencoded == (kind == "PNG" or size != stored)
    assert _is_colour(_pixels(prepared), (255, 165, 0))


def test_lower_quality_makes_smaller_files(encode_image, noise):
    data = encode_image(noise, "PNG")
    low, high = (prepare_image(data, ImageOptions(short_side=100, quality=quality)) for quality in (30, 95))
    assert len(low.data) < len(high.data) / 2


def _checkerboard(encode_image, kind):
    board = (np.indices((1024, 1024)).sum(0) % 2 * 255).astype(np.uint8)
    return encode_image(board, kind, **({"quality": 100} if kind == "JPEG" else {}))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_shrinking_averages_over_areas(encode_image, kind):
    pixels = _pixels(prepare_image(_checkerboard(encode_image, kind), SMALL))
    assert abs(pixels.mean() - 127.5) < 3
    assert pixels.std() < 6  # a checkerboard that aliases keeps a standard deviation of dozens


@pytest.mark.parametrize("side", [134, 150, 170, 199])
def test_shrinking_by_less_than_half_does_not_alias(encode_image, side):
    board = (np.indices((side, side)).sum(0) % 2 * 255).astype(np.uint8)
    pixels = _pixels(prepare_image(encode_image(board, "PNG"), SMALL))
    assert abs(pixels.mean() - 127.5) < 3
    assert pixels.std() < 25  # a standard deviation of 60 where nothing blurs first


@pytest.mark.parametrize("side", [105, 120, 150, 190])
def test_shrinking_by_less_than_half_is_closer_to_lanczos_than_antialiased_bilinear(encode_image, side):
    noise = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    picture = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1))
    lanczos, bilinear = (
        np.asarray(picture.resize((100, 100), kind)).astype(int) for kind in (Resampling.LANCZOS, Resampling.BILINEAR)
    )
    pixels = _pixels(prepare_image(encode_image(picture, "PNG"), ImageOptions(short_side=100, quality=100)))
    assert np.abs(pixels[..., 0] - lanczos).mean() < np.abs(bilinear - lanczos).mean()


def test_passthrough_keeps_a_large_jpeg_as_it_is(encode_image):
    data = encode_image(Image.new("RGB", (1500, 1200)))
    assert prepare_image(data, PASSTHROUGH).data == data


def test_passthrough_turns_a_png_into_a_jpeg_of_equal_size(encode_image):
    prepared = prepare_image(encode_image(Image.new("RGB", (600, 700), "navy"), "PNG"), PASSTHROUGH)
    assert (prepared.height, prepared.width, prepared.reencoded) == (700, 600, True)
    assert _is_colour(_pixels(prepared), (0, 0, 128))


def test_cmyk_jpeg_becomes_rgb(encode_image):
    data = encode_image(Image.new("RGB", (40, 30), (200, 40, 90)).convert("CMYK"))
    prepared = prepare_image(data, KEEP)
    assert Image.open(io.BytesIO(prepared.data)).mode == "RGB"
    assert _is_colour(_pixels(prepared), (200, 40, 90))


def test_palette_png_keeps_its_colours(encode_image, left_red_right_blue):
    pixels = _pixels(prepare_image(encode_image(Image.fromarray(left_red_right_blue).quantize(4), "PNG"), KEEP))
    assert _is_colour(pixels[:, :20], (200, 0, 0))
    assert _is_colour(pixels[:, 40:], (0, 0, 200))


def test_transparent_palette_entry_is_put_on_white(encode_image, left_red_right_blue):
    palette = Image.fromarray(left_red_right_blue).quantize(4)
    pixels = _pixels(prepare_image(encode_image(palette, "PNG", transparency=palette.getpixel((0, 0))), KEEP))
    assert _is_colour(pixels[:, :20], (255, 255, 255))
    assert _is_colour(pixels[:, 40:], (0, 0, 200))


def test_transparency_is_put_on_white(encode_image):
    image = Image.new("RGBA", (60, 30), (200, 0, 0, 0))
    image.paste((200, 0, 0, 128), (30, 0, 60, 30))
    pixels = _pixels(prepare_image(encode_image(image, "PNG"), KEEP))
    assert _is_colour(pixels[:, :20], (255, 255, 255))
    assert _is_colour(pixels[:, 40:], (227, 127, 127))


def test_16_bit_png_is_scaled_not_clipped_to_white(encode_image):
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (32, 1))
    pixels = _pixels(prepare_image(encode_image(ramp, "PNG"), KEEP))
    assert abs(pixels.mean() - 127.5) < 2
    assert abs(pixels[:, 64:72].mean() - 67.5) < 4


def test_bilevel_image_is_black_and_white(encode_image):
    image = Image.new("1", (60, 30), 0)
    image.paste(1, (30, 0, 60, 30))
    pixels = _pixels(prepare_image(encode_image(image, "TIFF"), KEEP))
    assert _is_colour(pixels[:, :20], (0, 0, 0))
    assert _is_colour(pixels[:, 40:], (255, 255, 255))


def test_first_frame_of_an_animation_is_taken(encode_image):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "lime")]
    data = encode_image(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert _is_colour(_pixels(prepare_image(data, KEEP)), (255, 0, 0))


def test_webp_is_read(encode_image):
    prepared = prepare_image(encode_image(Image.new("RGB", (400, 300), (10, 120, 60)), "WEBP"), SMALL)
    assert (prepared.width, prepared.height) == (133, 100)
    assert _is_colour(_pixels(prepared), (10, 120, 60))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("options", [KEEP, PASSTHROUGH, ImageOptions(short_side=10)], ids=["small", "passthrough", "shrunk"])
def test_rotated_photo_is_stored_upright(encode_image, left_red_right_blue, kind, options):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the stored left is the top
    prepared = prepare_image(encode_image(left_red_right_blue, kind, exif=exif), options)
    height, width = (20, 10) if options.short_side == 10 else (60, 30)
    assert (prepared.height, prepared.width, prepared.reencoded) == (height, width, True)
    pixels = _pixels(prepared)
    assert _is_colour(pixels[: height // 3], (200, 0, 0), tolerance=12)
    assert _is_colour(pixels[-height // 3 :], (0, 0, 200), tolerance=12)
    assert Image.open(io.BytesIO(prepared.data)).getexif().get(0x0112, 1) == 1


def test_jpeg_that_says_it_is_upright_keeps_its_bytes(encode_image, left_red_right_blue):
    exif = Image.Exif()
    exif[0x0112] = 1
    data = encode_image(left_red_right_blue, exif=exif)
    assert prepare_image(data, KEEP).data == data


def test_jpeg_with_a_damaged_exif_block_is_read(encode_image, left_red_right_blue):
    exif = Image.Exif()
    exif[0x0112] = 1
    data = encode_image(left_red_right_blue, exif=exif).replace(b"MM\x00\x2a", b"XX\x99\x99")
    prepared = prepare_image(data, KEEP)
    assert (prepared.height, prepared.width) == (30, 60)


def test_jpeg_with_garbage_after_its_end_is_stored_without_it(encode_image, left_red_right_blue):
    prepared = prepare_image(encode_image(left_red_right_blue) + b"<html>advert</html>", KEEP)
    assert (prepared.height, prepared.width, prepared.reencoded) == (30, 60, True)
    assert b"advert" not in prepared.data
    assert _is_colour(_pixels(prepared)[:, :20], (200, 0, 0))


def test_complete_jpeg_padded_with_zeros_keeps_its_bytes(encode_image, noise):
    data = encode_image(noise) + bytes(100)
    assert prepare_image(data, KEEP).data == data


def test_first_picture_of_a_stereo_file_is_taken(encode_image):
    second = Image.new("RGB", (40, 30), "blue")
    data = encode_image(Image.new("RGB", (400, 300), "red"), "MPO", save_all=True, append_images=[second])
    prepared = prepare_image(data, SMALL)
    assert (prepared.width, prepared.height) == (133, 100)
    assert _is_colour(_pixels(prepared), (254, 0, 0))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_image_one_pixel_wide_keeps_its_length(encode_image, kind):
    prepared = prepare_image(encode_image(Image.new("RGB", (1, 20_000), "red"), kind), KEEP)
    assert (prepared.height, prepared.width) == (20_000, 1)


def test_side_that_no_jpeg_can_have_is_rejected(encode_image):
    with pytest.raises(BadImageError, match="1x70000 pixels could not be encoded as JPEG"):
        prepare_image(encode_image(Image.new("L", (1, 70_000)), "PNG"), KEEP)


def test_huge_photo_is_fine_where_it_is_shrunk(encode_image):
    data = encode_image(Image.new("L", (9600, 9600), 120))
    prepared = prepare_image(data, KEEP)
    assert (prepared.height, prepared.width) == (256, 256)
    assert _is_colour(_pixels(prepared), (120, 120, 120))


@pytest.mark.parametrize(("kind", "options"), [("PNG", KEEP), ("JPEG", PASSTHROUGH)])
def test_huge_bitmap_is_rejected_before_it_is_decoded(encode_image, kind, options):
    data = encode_image(Image.new("1" if kind == "PNG" else "L", (9600, 9600)), kind)
    with pytest.raises(BadImageError, match=rf"9600x9600 {kind} would decode to 92,160,000 pixels; max_pixels is 50,000,000"):
        prepare_image(data, options)


@pytest.mark.parametrize("kept", [0.99, 0.5, 0.3])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated_image_is_rejected(encode_image, noise, kind, kept):
    data = encode_image(noise, kind)
    with pytest.raises(BadImageError, match=r"truncated|does not decode"):
        prepare_image(data[: int(len(data) * kept)], KEEP)


def test_truncated_jpeg_is_rejected_where_it_is_shrunk_too(encode_image):
    data = encode_image(np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8))
    with pytest.raises(BadImageError, match="truncated"):
        prepare_image(data[: len(data) // 2], SMALL)


def test_jpeg_whose_rest_is_zeros_is_rejected(encode_image, noise):
    data = encode_image(noise)
    half = len(data) // 2
    with pytest.raises(BadImageError, match="truncated: zeros stand where the rest of the JPEG should be"):
        prepare_image(data[:half] + bytes(len(data) - half), KEEP)


def test_empty_bytes_are_rejected():
    with pytest.raises(BadImageError, match="empty image"):
        prepare_image(b"", KEEP)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\n<!DOCTYPE html><html>404</html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS: fetch .* `git lfs pull`"),
        (b"\0" * 50, "zeros alone"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"0" * 50, "HEIC, as iPhones write: convert it to JPEG"),
        (b"%PDF-1.4\nxxx", "a PDF document: .*"),
        (b'<?xml version="1.0"?>\n<svg width="10"/>', "an SVG drawing: .*"),
        (b"id,title\n1,mug\n", "text"),
        (b"\xff\xd8\xff", "other bytes"),
        ("ico", "an icon .*"),
        ("eps", "text"),
    ],
)
def test_bytes_that_are_no_image_are_rejected_by_their_kind(encode_image, data, kind):
    if isinstance(data, str):  # of Pillow's formats those that start a program, or hide their size
        data = encode_image(Image.new("RGB", (16, 16)), data)
    with pytest.raises(BadImageError, match=f"not a picture of a known format, but {kind}"):
        prepare_image(data, KEEP)


@pytest.mark.parametrize("kind", ["AVIF", "PNG", "GIF", "WEBP", "TIFF", "JPEG"])
def test_no_damage_raises_anything_but_bad_image(encode_image, kind):
    if kind == "AVIF" and "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow has no AVIF")
    data = encode_image(Image.effect_noise((40, 30), 60).convert("RGB"), kind)
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 250), 4):
            damaged[place] = rng.integers(256)
        try:
            assert prepare_image(bytes(damaged), ImageOptions(short_side=16)).data
        except BadImageError as error:
            assert str(error)  # any other exception fails the test


def test_error_of_any_kind_while_decoding_is_a_bad_image(encode_image, monkeypatch):
    def load(self):
        raise NotImplementedError("of a file that says: secret")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(BadImageError, match=r"^the BMP data does not decode: NotImplementedError$"):
        prepare_image(encode_image(Image.new("RGB", (16, 16)), "BMP"), KEEP)


@pytest.mark.parametrize("options", [{"progressive": True}, {"progressive": False}])
def test_jpeg_of_several_scans_counts_in_full(encode_image, options):
    data = encode_image(Image.new("L", (9600, 9600)), **options)
    if options["progressive"]:
        with pytest.raises(BadImageError, match="would decode to 92,160,000 pixels"):
            prepare_image(data, KEEP)
    else:
        assert prepare_image(data, KEEP).width == 256


def test_gigapixel_jpeg_is_a_bad_image(small_jpeg):
    header = small_jpeg.index(b"\xff\xc0")  # start of frame: length, precision, height, width
    claimed = small_jpeg[: header + 5] + struct.pack(">HH", 65_000, 65_000) + small_jpeg[header + 9 :]
    with pytest.raises(BadImageError, match="does not decode"):
        check_jpeg(claimed)


def test_check_jpeg_names_another_format(encode_image):
    with pytest.raises(BadImageError, match="expected a JPEG, found PNG"):
        check_jpeg(encode_image(Image.new("L", (4, 4)), "PNG"))


@pytest.mark.parametrize(("argument", "value"), [("short_side", 7), ("quality", 0), ("quality", 101)])
def test_option_out_of_range_is_rejected(argument, value):
    with pytest.raises(ValueError, match=rf"{argument} must .* Received: {value}"):
        ImageOptions(**{argument: value})
