"""Pictures of every format and quirk, drawn small, each with the pixels that one should see."""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 32
_ROWS, _COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
RGB = np.stack([40 + 6 * _COLUMNS, 200 - 7 * _ROWS, 60 + 3 * _ROWS + 2 * _COLUMNS], -1).astype(np.uint8)
GREY = (20 + 5 * _ROWS + 3 * _COLUMNS).astype(np.uint8)
ALPHA = (8 * _COLUMNS).astype(np.uint8)
WHITE = np.full_like(RGB, 255)
FRAMES = [Image.fromarray(255 - RGB)]  # what follows the first picture of an animation


def on_white(rgb, alpha):
    alpha = alpha[..., None] / 255
    return rgb * alpha + 255 * (1 - alpha)


def grey(values):
    return np.repeat(np.asarray(values)[..., None], 3, -1)


def turned(pixels):
    """What is seen of a picture that says orientation 6: a quarter turn to the right."""
    return np.rot90(pixels, -1)


def save(image, kind, **options):
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation=6, endian="<", kind=3):
    """An EXIF block; `kind` is the type of the value: 3 is SHORT, 4 LONG."""
    value = struct.pack(endian + ("HH" if kind == 3 else "I"), *((orientation, 0) if kind == 3 else (orientation,)))
    magic = b"II" if endian == "<" else b"MM"
    head = magic + struct.pack(endian + "HIH", 42, 8, 2)
    first = struct.pack(endian + "HHIHH", 0x0103, 3, 1, 1, 0)
    return head + first + struct.pack(endian + "HHI", 0x0112, kind, 1) + value + bytes(4)


def segments(jpeg, *contents):
    """A JPEG with APP1 segments in front of all others."""
    made = b"".join(b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content for content in contents)
    return jpeg[:2] + made + jpeg[2:]


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(ihdr, rows, *chunks):
    """A PNG from its header (width, height, depth, colour type), its rows and further chunks."""
    header = struct.pack(">IIBBBBB", *ihdr, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _rgba():
    return Image.fromarray(np.dstack([RGB, ALPHA]))


def _palette():
    return Image.fromarray(RGB).quantize(16)


def _colours():
    return np.asarray(_palette().convert("RGB"))


def _sixteen_bits():
    return GREY.astype(np.uint16) * 257


def _two_bits():
    levels = (_COLUMNS // 8).astype(np.uint8)  # 0–3 from left to right
    packed = np.packbits(np.stack([levels >> 1, levels & 1], -1).reshape(HEIGHT, -1), axis=1)
    return levels, [row.tobytes() for row in packed]


def _late_exif():
    whole = save(RGB, "PNG")
    return whole[:-12] + chunk(b"eXIf", exif()) + whole[-12:]


def _bgr16(*planes):
    return cv2.imencode(".png", np.dstack(planes).astype(np.uint16) * 257)[1].tobytes()


def _transparent_gif(**options):
    palette = _palette()
    index = palette.getpixel((0, 0))
    mask = (np.asarray(palette) == index)[..., None]
    return save(palette, "GIF", transparency=index, **options), np.where(mask, WHITE, _colours())


_LEVELS, _LEVEL_ROWS = _two_bits()
_SIXTEEN_BIT_ROWS = [(row * 60 * 257).astype(">u2").tobytes() for row in _LEVELS.astype(int)]
_BILEVEL = np.where(GREY > 90, 255, 0).astype(np.uint8)
_JPEG = save(RGB, "JPEG", quality=95)
_XMP = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="3"/>'
_SECOND = {"save_all": True, "append_images": FRAMES}
_FIRST_INDEX = _palette().getpixel((0, 0))

READ_BY_ALL = {  # name: (bytes, what one sees)
    "png rgb": (save(RGB, "PNG"), RGB),
    "png grey": (save(GREY, "PNG"), grey(GREY)),
    "png 1 bit": (save(Image.fromarray(_BILEVEL).convert("1", dither=0), "PNG"), grey(_BILEVEL)),
    "png rgba": (save(_rgba(), "PNG"), on_white(RGB, ALPHA)),
    "png grey with alpha": (save(Image.fromarray(np.dstack([GREY, ALPHA]), "LA"), "PNG"), on_white(grey(GREY), ALPHA)),
    "png palette": (save(_palette(), "PNG"), _colours()),
    "png palette, one colour transparent": (
        save(_palette(), "PNG", transparency=_FIRST_INDEX),
        np.where((np.asarray(_palette()) == _FIRST_INDEX)[..., None], WHITE, _colours()),
    ),
    "png palette with alphas": (save(_palette(), "PNG", transparency=bytes([128] * 16)), on_white(_colours(), GREY * 0 + 128)),
    "png grey, one level transparent": (
        save(_LEVELS * 60, "PNG", transparency=60),
        grey(np.where(_LEVELS == 1, 255, _LEVELS * 60)),
    ),
    "png 2 bits, one level transparent": (
        png((WIDTH, HEIGHT, 2, 0), _LEVEL_ROWS, chunk(b"tRNS", b"\0\1")),
        grey(np.where(_LEVELS == 1, 255, _LEVELS * 85)),
    ),
    "png rgb, one colour transparent": (
        save(np.dstack([_LEVELS * 60] * 3), "PNG", transparency=(60, 60, 60)),
        grey(np.where(_LEVELS == 1, 255, _LEVELS * 60)),
    ),
    "png 16 bits grey": (save(_sixteen_bits(), "PNG"), grey(GREY)),
    "png 16 bits, all dark": (save(GREY.astype(np.uint16), "PNG"), grey(GREY * 0)),
    "png 16 bits, one level transparent": (
        png(
            (WIDTH, HEIGHT, 16, 0),
            [(row * 60 * 257).astype(">u2").tobytes() for row in _LEVELS.astype(int)],
            chunk(b"tRNS", b"<<"),
        ),
        grey(np.where(_LEVELS == 1, 255, _LEVELS * 60)),
    ),
    "png 16 bits rgb": (_bgr16(RGB[..., ::-1]), RGB),
    "png 16 bits rgba": (_bgr16(RGB[..., ::-1], ALPHA), on_white(RGB, ALPHA)),
    "png with exif": (save(RGB, "PNG", exif=exif()), turned(RGB)),
    "png with exif behind the pixels": (_late_exif(), turned(RGB)),
    "png rgba with exif": (save(_rgba(), "PNG", exif=exif()), turned(on_white(RGB, ALPHA))),
    "png animated": (save(RGB, "PNG", **_SECOND), RGB),
    "jpeg rgb": (_JPEG, RGB),
    "jpeg grey": (save(GREY, "JPEG", quality=95), grey(GREY)),
    "jpeg progressive": (save(RGB, "JPEG", quality=95, progressive=True), RGB),
    "jpeg cmyk": (save(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95), RGB),
    "jpeg of two pictures": (save(RGB, "MPO", quality=95, **_SECOND), RGB),
    "jpeg with exif": (segments(_JPEG, b"Exif\0\0" + exif()), turned(RGB)),
    "jpeg with big-endian exif": (segments(_JPEG, b"Exif\0\0" + exif(endian=">")), turned(RGB)),
    "jpeg with exif of another type": (segments(_JPEG, b"Exif\0\0" + exif(kind=4)), turned(RGB)),
    "jpeg with exif behind 200 KB": (segments(_JPEG, *[b"x" * 65000] * 3, b"Exif\0\0" + exif()), turned(RGB)),
    "jpeg with xmp alone": (segments(_JPEG, _XMP), RGB),
    "jpeg with exif in a comment": (_JPEG[:2] + b"\xff\xfe\x00\x29Exif\0\0" + exif()[:33] + _JPEG[2:], RGB),
    "webp": (save(RGB, "WEBP", quality=95), RGB),
    "webp lossless": (save(RGB, "WEBP", lossless=True), RGB),
    "webp with alpha": (save(_rgba(), "WEBP", quality=95), on_white(RGB, ALPHA)),
    "webp lossless with alpha": (save(_rgba(), "WEBP", lossless=True), on_white(RGB, ALPHA)),
    "webp with exif": (save(RGB, "WEBP", quality=95, exif=exif()), turned(RGB)),
    "webp with alpha and exif": (save(_rgba(), "WEBP", quality=95, exif=exif()), turned(on_white(RGB, ALPHA))),
    "webp animated": (save(RGB, "WEBP", quality=95, **_SECOND), RGB),
    "webp animated, lossless": (save(RGB, "WEBP", lossless=True, **_SECOND), RGB),
    "webp animated, with alpha": (save(_rgba(), "WEBP", quality=95, **_SECOND), on_white(RGB, ALPHA)),
    "webp animated, with exif": (save(_rgba(), "WEBP", lossless=True, exif=exif(), **_SECOND), turned(on_white(RGB, ALPHA))),
    "gif": (save(_palette(), "GIF"), _colours()),
    "gif transparent": _transparent_gif(),
    "gif animated and transparent": _transparent_gif(save_all=True, append_images=FRAMES, loop=0, comment=b"c" * 600),
    "bmp": (save(RGB, "BMP"), RGB),
    "bmp 32 bits": (save(_rgba(), "BMP"), RGB),
}
"""What packing, prediction and an exported model read alike."""

REFUSED_BY_THE_GRAPH = {
    "bmp palette": (save(_palette(), "BMP"), _colours()),
    "bmp grey": (save(GREY, "BMP"), grey(GREY)),
    "tiff": (save(RGB, "TIFF"), RGB),
    "tiff with alpha": (save(_rgba(), "TIFF"), on_white(RGB, ALPHA)),
    "tiff cmyk": (save(Image.fromarray(RGB).convert("CMYK"), "TIFF"), RGB),
    "tiff 16 bits": (save(_sixteen_bits(), "TIFF"), grey(GREY)),
    "tiff turned": (save(RGB, "TIFF", tiffinfo={0x0112: 6}), turned(RGB)),
    "ppm": (save(RGB, "PPM"), RGB),
    "tga with alpha": (save(_rgba(), "TGA"), on_white(RGB, ALPHA)),
    "jpeg 2000": (save(RGB, "JPEG2000"), RGB),
}
if "AVIF" in Image.SAVE:
    REFUSED_BY_THE_GRAPH["avif"] = save(RGB, "AVIF", quality=95), RGB
    REFUSED_BY_THE_GRAPH["avif with alpha"] = save(_rgba(), "AVIF", quality=95), on_white(RGB, ALPHA)
    REFUSED_BY_THE_GRAPH["avif turned"] = save(RGB, "AVIF", quality=95, exif=exif()), turned(RGB)


def _claims(data, place, claimed):
    return data[:place] + claimed + data[place + len(claimed) :]


def _large_png(side=20_000):
    return png((side, side, 8, 2), [b""])


def _large_webp(lossless):
    if not lossless:
        data = save(RGB, "WEBP", quality=95)
        return _claims(data, data.index(b"\x9d\x01\x2a") + 3, struct.pack("<HH", 16383, 16383))
    data = save(RGB, "WEBP", lossless=True)
    return _claims(data, 21, struct.pack("<I", 16382 | 16382 << 14))


def _large_animation():
    data = save(RGB, "WEBP", lossless=True, **_SECOND)
    frame = data.index(b"ANMF") + 8
    data = _claims(data, frame + 6, struct.pack("<I", 16382)[:3] * 2)
    data = _claims(data, frame + 16 + 8 + 1, struct.pack("<I", 16382 | 16382 << 14))
    return _claims(data, 24, struct.pack("<I", 16382)[:3] * 2)


def _large_jpeg(**options):
    data = save(RGB, "JPEG", **options)
    place = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return _claims(data, place + 5, struct.pack(">HH", 60_000, 60_000))


def _large_tile():
    """A TIFF of 16 pixels a side in a tile of 40,000."""
    tags = [(256, 16), (257, 16), (258, 8), (259, 8), (262, 1), (277, 1), (322, 40_000), (323, 40_000), (324, 200), (325, 50)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(200, b"\0") + zlib.compress(bytes(10_000))


BOMBS = {
    "png": _large_png(),
    "png just above the limit": _large_png(7072),
    "jpeg": _large_jpeg(),
    "jpeg progressive": _large_jpeg(progressive=True),
    "webp": _large_webp(lossless=False),
    "webp lossless": _large_webp(lossless=True),
    "webp animated": _large_animation(),
    "gif": _claims(save(_palette(), "GIF"), 6, b"\xff\xff\xff\xff"),
    "bmp": _claims(save(RGB, "BMP"), 18, struct.pack("<ii", 40_000, 40_000)),
    "bmp from the top": _claims(save(RGB, "BMP"), 18, struct.pack("<ii", 40_000, -40_000)),
    "tiff": _claims(save(RGB, "TIFF"), save(RGB, "TIFF").index(struct.pack("<HHI", 256, 4, 1)) + 8, b"\xff\xff\xff\x0f"),
    "tiff with a large tile": _large_tile(),
}
"""Small files whose headers say that they are large."""

_NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
_SECRET = b"root:x:0:0:secret"
NO_PICTURES = {
    "nothing": b"",
    "text": _SECRET + b"\n",
    "html": b"\n<!DOCTYPE html><html><body>" + _SECRET,
    "zeros": bytes(100),
    "what looks like a ppm": b"P6 " + _SECRET + b"\n" + _SECRET,
    "what looks like a plain ppm": b"P3 3 3 255\n" + _SECRET,
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" + _SECRET,
    "jpeg begun": b"\xff\xd8\xff\xe0" + _SECRET,
    **{
        f"{kind} cut off": save(Image.fromarray(_NOISE).quantize(64) if kind == "GIF" else _NOISE, kind)[:2500]
        for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP")
    },
    "jpeg ended by zeros": save(_NOISE, "JPEG")[:2500] + bytes(500),
    "png damaged": save(_NOISE, "PNG").replace(b"IDAT", b"IDAT" + b"\xff" * 9),
    "ico": save(Image.fromarray(RGB), "ICO"),
}
SECRET = "secret"
