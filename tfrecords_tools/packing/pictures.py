"""Decodes pictures: encoded bytes of a known format become upright 8-bit pixels on white, or an error says why they do not.

Packing, `mm-keras predict` and downloads use this module. The graph of an exported model, which has TensorFlow's operations
alone, follows the same rules in `mm_keras.data.images`, and `tests/faults/test_pictures.py` holds the two together:

- Of an animation the first frame is taken, of a file of several pictures the first.
- What is transparent becomes white, in the proportion of its alpha.
- 16 bits a channel become 8 by their scale, not by clipping; palettes, CMYK and grey become RGB.
- The orientation in the EXIF block is applied, wherever in the file the block stands. XMP's copy of it is not looked at.
- A picture whose header says more pixels than the limit is refused before it is decoded.

Messages say what kind of thing was found and never quote it: a path in a table may name a file that is no picture and that
whoever reads the report should not see.
"""

from __future__ import annotations

import io
import os
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # packing reports damaged files, once and by name
import cv2

FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP")
"""The formats that are read, if the installed Pillow has them. Pillow's others may start programs (EPS) or hide sizes (ICO)."""

Image.MAX_IMAGE_PIXELS = None  # `check_size` has the limit; it takes DCT scaling into account

_ORIENTATION_TAG = 0x0112
_TILE_WIDTH_TAG, _TILE_LENGTH_TAG = 322, 323
_WEIGHTS = {("AVIF", False): 1.25, ("AVIF", True): 1.25, ("WEBP", True): 2}
"""By format and whether it is animated: how many times more memory a pixel takes, since decoders keep copies of it."""
_BAND = 2**20  # pixels that are converted at a time, so that copies in other modes stay small


class BadImageError(ValueError):
    """Bytes that are no picture, or one that cannot be read. The message says why."""


def open_picture(data: bytes) -> Image.Image:
    """Reads the header of a picture; its pixels are not decoded yet.

    Raises:
        BadImageError: if the bytes are empty, of no format in `FORMATS`, or their header is damaged.
    """
    if not data:
        raise BadImageError("empty image")
    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata is no reason to leave a picture out
            return Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        raise BadImageError(f"not a picture of a known format, but {_kind_of(data)}") from None
    except Exception as error:  # Pillow's plugins raise many kinds on damaged files; none may end a long pack
        raise BadImageError(f"broken image header ({type(error).__name__})") from error


def check_size(header: Image.Image, max_pixels: int, reduction: int = 1) -> None:
    """Refuses a picture that would take too much memory.

    Args:
        header: what `open_picture` returned.
        max_pixels: the largest number of pixels that may be decoded.
        reduction: the factor by which the sides shrink while the picture is decoded.

    Raises:
        BadImageError: if more than `max_pixels` would be decoded, according to the header.
    """
    width, height = header.size
    pixels = width * height // reduction**2
    weight = _WEIGHTS.get((header.format, getattr(header, "is_animated", False)), 1)
    if header.format == "TIFF":  # a tile may be larger than the picture, and is decoded as a whole
        pixels = max(pixels, header.tag_v2.get(_TILE_WIDTH_TAG, 0) * header.tag_v2.get(_TILE_LENGTH_TAG, 0))
    if pixels * weight > max_pixels:
        counts = f", each of which counts {weight} times for its memory" if weight > 1 else ""
        raise BadImageError(
            f"{width}x{height} {header.format} would decode to {pixels:,} pixels{counts}; max_pixels is {max_pixels:,}"
        )


def decode_jpeg(data: bytes, reduction: int = 1) -> np.ndarray:
    """Decodes a grey or RGB JPEG without applying its orientation; uint8 [height, width, 3], blue first.

    OpenCV decodes with DCT scaling, which is twice as fast as Pillow and releases the GIL.

    Args:
        data: the JPEG.
        reduction: 1, 2, 4 or 8: the factor by which its sides shrink.

    Raises:
        BadImageError: if the data are damaged.
    """
    flags = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags[reduction] | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:  # over a gigapixel
        raise BadImageError(f"the JPEG data does not decode: {error.err}") from error
    if bgr is None:
        raise BadImageError("the JPEG data does not decode")
    return bgr


def decode_any(image: Image.Image, data: bytes) -> np.ndarray:
    """Decodes a picture without applying its orientation; uint8 [height, width, 3], blue first, transparent parts on white.

    Args:
        image: what `open_picture` returned.
        data: the bytes that `open_picture` was given.

    Raises:
        BadImageError: if the data are damaged or cut off.
    """
    if image.format == "WEBP" and not image.is_animated:
        return _decode_webp(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            samples = image.tile[0].args if image.format == "PNG" and image.tile else None
            image.load()
            _mend_transparency(image, samples)
            highest = _highest(image)
            width, height = image.size
            bgr = np.empty((height, width, 3), np.uint8)
            rows = max(1, _BAND // width)
            for top in range(0, height, rows):
                bottom = min(height, top + rows)
                bgr[top:bottom] = _to_bgr(image.crop((0, top, width, bottom)), highest)
            return bgr
    except Exception as error:  # as in `open_picture`; Pillow's messages may quote the file
        reason = "it is truncated" if "truncated" in str(error) else type(error).__name__
        raise BadImageError(f"the {image.format} data does not decode: {reason}") from error


def _decode_webp(data: bytes) -> np.ndarray:
    """Decodes a WebP of one frame by OpenCV, since Pillow holds four copies of such a picture in memory."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise BadImageError(f"the WEBP data does not decode: {error.err}") from error
    if pixels is None:
        raise BadImageError("the WEBP data does not decode")
    if pixels.shape[2] == 3:
        return pixels
    bgr = np.empty((*pixels.shape[:2], 3), np.uint8)
    rows = max(1, _BAND // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        band = pixels[top : top + rows].astype(np.uint16)
        alpha = band[..., 3:]
        bgr[top : top + rows] = (band[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return bgr


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of a picture, 1–8; 1, upright, if it has none or a damaged one.

    A PNG may have its EXIF block behind its pixels, so call this once the picture is decoded. Pillow turns a TIFF itself.
    """
    if image.format == "TIFF":
        return 1
    exif = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exif.load(image.info.get("exif", b""))
        orientation = exif.get(_ORIENTATION_TAG, 1)
    except Exception:  # Pillow's EXIF parser raises many kinds on damaged blocks; decoders ignore those blocks
        return 1
    return orientation if orientation in range(1, 9) else 1


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an orientation: [height, width, channels] -> the upright picture (sides swapped for 5–8)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _highest(image: Image.Image) -> float:
    """The sample that stands for white, in a picture of 16 or 32 bits a sample."""
    if not image.mode.startswith(("I", "F")):
        return 255.0
    if image.mode.startswith("I;16"):
        return 65535.0
    largest = np.nan_to_num(np.asarray(image.getextrema(), np.float64)).max()  # no such file says its scale
    return max(65535.0 if largest > 255 else 255.0, float(largest))


def _to_bgr(band: Image.Image, highest: float) -> np.ndarray:
    transparent = band.info.get("transparency")
    if band.mode.startswith(("I", "F")):  # Pillow's own conversion clips them to white
        samples = np.asarray(band)
        grey = np.clip(np.nan_to_num(samples.astype(np.float32)) * (255.0 / highest), 0, 255).astype(np.uint8)
        if transparent is not None:
            grey[samples == transparent] = 255
        return np.repeat(grey[..., None], 3, axis=2)
    if transparent is not None or {"A", "a"} & set(band.getbands()):
        rgba = band.convert("RGBA")
        band = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(band.convert("RGB"))[..., ::-1]


def _mend_transparency(image: Image.Image, samples: object) -> None:
    """Scales the colour that a PNG names as transparent in the way that Pillow scaled the pixels: for "L;2", 1 becomes 85."""
    colour = image.info.get("transparency")
    if samples in ("L;2", "L;4") and isinstance(colour, int):
        image.info["transparency"] = colour * {"L;2": 85, "L;4": 17}[samples]
    elif samples == "RGB;16B" and colour is not None:
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _kind_of(data: bytes) -> str:
    """What bytes that are no picture seem to be. It says nothing of their content."""
    start = data[:1024].lstrip()
    if start[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page, as servers send instead of a picture"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS: fetch the file itself with `git lfs pull`"
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"):
        return "HEIC, as iPhones write: convert it to JPEG"
    if start.startswith(b"%PDF-"):
        return "a PDF document: convert its page to JPEG or PNG"
    if b"<svg" in start and start.startswith((b"<svg", b"<?xml", b"<!")):
        return "an SVG drawing: convert it to PNG"
    if data.startswith(b"\0\0\1\0"):
        return "an icon (ICO): convert it to PNG"
    if not data.strip(b"\0"):
        return "zeros alone"
    if all(32 <= byte < 127 or byte in b"\t\n\r" for byte in start):
        return "text"
    return "other bytes"
