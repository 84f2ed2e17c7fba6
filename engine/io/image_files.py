"""PNG, JPEG and TIFF files as stacks of pixels; told apart by their first bytes, never by their names.

What a reader would have to guess, cut or fill is refused with a sentence: a PNG whose checksums do not hold, 16-bit
colour PNG (Pillow cuts it to 8 bits), transparent pixels, CMYK, animations. An EXIF orientation is not applied, so that
masks and boxes drawn on the stored pixels keep fitting.

Source: PNG (ISO/IEC 15948), chunk layout and CRC; JPEG through Pillow; TIFF in `_tiff.py`.
"""

from __future__ import annotations

import zlib
from io import BytesIO

import numpy as np

from engine.errors import InputError
from engine.io._image_stack import (
    ImageProblem,
    Pixels,
    Stack,
    Wanted,
    check_size,
    import_pillow,
    plain,
    without_opaque_alpha,
)
from engine.io._mask_objects import regions
from engine.io._tiff import decode_tiff

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
"""Names that a folder's images may end in."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_COLOUR = {2: "RGB", 4: "grey with alpha", 6: "RGBA"}


def decode_image(data: bytes, wanted: Wanted) -> Stack:
    """Decode a whole file.

    Raises:
        ImageProblem: unreadable, too large, or of a kind that cannot be taken without guessing.
        InputError: the package that reads it is not installed.
    """
    try:
        return _decode(data, wanted)
    except (ImageProblem, InputError):
        raise
    except MemoryError:
        raise
    except Exception as error:  # decoders of foreign bytes may raise anything; each is the same to the user
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImageProblem("unreadable", f"the file does not decode ({text})") from error


def _decode(data: bytes, wanted: Wanted) -> Stack:
    if not data:
        raise ImageProblem("unreadable", "the file is empty")
    if data.startswith(_PNG):
        return Stack(_stacked(_png(data, wanted)))
    if data.startswith(_JPEG):
        return Stack(_stacked(_jpeg(data, wanted)))
    if data.startswith(_TIFF):
        return decode_tiff(data, wanted)
    raise ImageProblem("unreadable", f"no PNG, JPEG or TIFF: it begins with {data[:8]!r}")


def _stacked(pixels: Pixels) -> Pixels:
    """(Y, X) or (Y, X, S) as (1, C, 1, Y, X)."""
    whole = pixels[..., None] if pixels.ndim == 2 else pixels
    return plain(np.moveaxis(whole, -1, 0)[None, :, None])


def _png(data: bytes, wanted: Wanted) -> Pixels:
    width, height, depth, colour = _check_png(data)
    check_size((height, width, {2: 3, 3: 3, 4: 2, 6: 4}.get(colour, 1)), wanted.max_pixels)
    if depth == 16 and colour in _COLOUR:
        sentence = f"16-bit {_COLOUR[colour]} PNG, which the reader would cut to 8 bits; save it as TIFF"
        raise ImageProblem("unsupported_image", sentence)
    # The plug-in's own class: Image.open would warn of sizes that were checked above.
    image = import_pillow("PngImagePlugin").PngImageFile(BytesIO(data))
    if getattr(image, "n_frames", 1) > 1:
        raise ImageProblem("unsupported_image", f"an animation of {image.n_frames} frames")
    if wanted.labels and image.mode == "P":
        return np.asarray(image)
    transparent = "transparency" in image.info
    if image.mode == "P":
        image = image.convert("RGBA" if transparent else "RGB")
    elif transparent:
        image = image.convert("RGBA" if image.mode == "RGB" else "LA")
    pixels = np.asarray(image)
    if image.mode in ("LA", "RGBA"):
        pixels = without_opaque_alpha(pixels, 255)
        pixels = pixels[..., 0] if image.mode == "LA" else pixels
    return pixels.astype(np.uint16) if depth == 16 and pixels.dtype == np.int32 else pixels


def _check_png(data: bytes) -> tuple[int, int, int, int]:
    """(width, height, bit depth, colour type). Pillow does not check the CRC of pixel data, so it is done here."""
    place, found, has_data = len(_PNG), None, False
    while place + 12 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        end = place + 8 + size
        if end + 4 > len(data):
            break
        kind = data[place + 4 : place + 8]
        if zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ImageProblem("unreadable", f"the checksum of PNG chunk {kind!r} at byte {place:,} does not hold")
        if kind == b"IHDR" and size == 13:
            head = data[place + 8 : end]
            found = (int.from_bytes(head[:4], "big"), int.from_bytes(head[4:8], "big"), head[8], head[9])
        has_data |= kind == b"IDAT"
        if kind == b"IEND" and found is not None and has_data:
            return found
        place = end + 4
    raise ImageProblem("unreadable", f"the PNG is cut short: {len(data):,} bytes without an end")


def _jpeg(data: bytes, wanted: Wanted) -> Pixels:
    image = import_pillow("JpegImagePlugin").JpegImageFile(BytesIO(data))
    check_size((*image.size, len(image.getbands())), wanted.max_pixels)
    if wanted.labels:
        raise ImageProblem("unreadable_mask", "a mask as JPEG, whose compression changes label values")
    if image.mode not in ("L", "RGB"):
        raise ImageProblem("unsupported_image", f"a {image.mode} JPEG; known are grey and RGB")
    return np.asarray(image)


def mask_of(stack: Stack, wanted: Wanted) -> Pixels:
    """Label values of a mask: (T, Z, Y, X) of an integer type.

    Raises:
        ImageProblem: no whole numbers, negative ones, or several channels that differ.
    """
    pixels = stack.pixels
    if pixels.dtype.kind not in "ui":
        raise ImageProblem("unreadable_mask", f"the mask holds {pixels.dtype.name}, not whole numbers")
    if pixels.dtype.kind == "i" and int(pixels.min()) < 0:
        raise ImageProblem("unreadable_mask", f"the mask holds {int(pixels.min())}; labels are 0 and more")
    channels = pixels.shape[1]
    if wanted.channel is not None:
        if wanted.channel >= channels:
            raise ImageProblem("unreadable_mask", f"the mask has {channels} channels, so there is no {wanted.channel}")
        return _objects(pixels[:, wanted.channel], wanted)
    if not bool((pixels == pixels[:, :1]).all()):
        sentence = f"the mask has {channels} channels that differ; say which holds the labels with --mask-channel"
        raise ImageProblem("unreadable_mask", sentence)
    return _objects(pixels[:, 0], wanted)


def _objects(labels: Pixels, wanted: Wanted) -> Pixels:
    """(T, Z, Y, X); a mask of one depth is numbered as the plane that it is."""
    if not wanted.regions:
        return np.ascontiguousarray(labels)
    return np.stack([regions(volume) for volume in labels])
