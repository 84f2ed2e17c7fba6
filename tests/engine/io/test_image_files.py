"""PNG, JPEG and TIFF: what Pillow and tifffile write is read as it was, and what is damaged is never read as pixels."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.io._image_stack import ImageProblem, Wanted
from engine.io.image_files import decode_image, mask_of
from tests.toys.pictures import pixels

WANTED = Wanted(1 << 20)
SHAPES = st.tuples(st.integers(1, 17), st.integers(1, 17))
TIFF_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


def png(array: np.ndarray, **how) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG", **how)
    return out.getvalue()


def tiff(array: np.ndarray, **how) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, array, **{"photometric": "minisblack", **how})
    return out.getvalue()


def problem_of(data: bytes, wanted: Wanted = WANTED) -> ImageProblem:
    with pytest.raises(ImageProblem) as caught:
        decode_image(data, wanted)
    return caught.value


@given(shape=SHAPES, seed=st.integers(0, 99), dtype=st.sampled_from(["uint8", "uint16"]))
def test_grey_png_round_trip(shape, seed, dtype):
    array = pixels(seed, shape, dtype)
    stack = decode_image(png(array), WANTED)
    assert stack.pixels.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(stack.pixels[0, 0, 0], array)


@given(shape=SHAPES, seed=st.integers(0, 99))
def test_colour_png_round_trip(shape, seed):
    array = pixels(seed, (*shape, 3))
    np.testing.assert_array_equal(decode_image(png(array), WANTED).pixels[0, :, 0], np.moveaxis(array, -1, 0))


@given(
    shape=SHAPES,
    dtype=st.sampled_from(TIFF_TYPES),
    order=st.sampled_from("<>"),
    big=st.booleans(),
    compression=st.sampled_from([None, "zlib"]),
    tile=st.sampled_from([None, (16, 16)]),
    pages=st.integers(1, 3),
)
def test_tiff_round_trip(*, shape, dtype, order, big, compression, tile, pages):
    array = pixels(1, (pages, *shape), dtype)
    data = tiff(array, byteorder=order, bigtiff=big, compression=compression, tile=tile, metadata={"axes": "ZYX"})
    stack = decode_image(data, WANTED)
    assert stack.pixels.dtype == np.dtype(dtype).newbyteorder("<")
    np.testing.assert_array_equal(stack.pixels[0, 0], array)


def test_colour_tiff_in_either_order_of_samples():
    array = pixels(3, (9, 7, 3))
    for data, config in ((array, "contig"), (np.moveaxis(array, -1, 0), "separate")):
        found = decode_image(tiff(data, photometric="rgb", planarconfig=config), WANTED).pixels
        np.testing.assert_array_equal(found[0, :, 0], np.moveaxis(array, -1, 0))


def test_jpeg_is_what_pillow_reads():
    out = io.BytesIO()
    Image.fromarray(pixels(5, (16, 24, 3))).save(out, "JPEG", quality=90)
    judge = np.asarray(Image.open(io.BytesIO(out.getvalue())))
    np.testing.assert_array_equal(decode_image(out.getvalue(), WANTED).pixels[0, :, 0], np.moveaxis(judge, -1, 0))


def test_bilevel_becomes_zero_and_one():
    array = pixels(2, (9, 7)) > 99
    np.testing.assert_array_equal(decode_image(png(array), WANTED).pixels[0, 0, 0], array.astype(np.uint8))
    np.testing.assert_array_equal(decode_image(tiff(array), WANTED).pixels[0, 0, 0], array.astype(np.uint8))


def test_palettes_are_looked_up_but_in_masks():
    image = Image.fromarray(pixels(4, (9, 7)) % 4).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 1, 2, 3])
    out = io.BytesIO()
    image.save(out, "PNG")
    found = decode_image(out.getvalue(), WANTED).pixels[0, :, 0]
    np.testing.assert_array_equal(np.moveaxis(found, 0, -1), np.asarray(image.convert("RGB")))
    mask = decode_image(out.getvalue(), Wanted(1 << 20, labels=True))
    np.testing.assert_array_equal(mask.pixels[0, 0, 0], np.asarray(image))


def test_a_palette_tiff_is_looked_up():
    table = np.arange(3 * 256, dtype=np.uint16).reshape(3, 256) << 8 & 0xFFFF
    index = pixels(6, (9, 7))
    found = decode_image(tiff(index, photometric="palette", colormap=table), WANTED).pixels[0, :, 0]
    np.testing.assert_array_equal(found, (table[:, index] >> 8).astype(np.uint8))


def test_an_opaque_alpha_is_dropped_and_another_refused():
    array = pixels(7, (9, 7, 4))
    array[..., 3] = 255
    opaque = decode_image(png(array), WANTED)
    np.testing.assert_array_equal(np.moveaxis(opaque.pixels[0, :, 0], 0, -1), array[..., :3])
    np.testing.assert_array_equal(
        decode_image(tiff(array, photometric="rgb", extrasamples=["unassalpha"]), WANTED).pixels, opaque.pixels
    )
    array[3, 3, 3] = 254
    for data in (png(array), tiff(array, photometric="rgb", extrasamples=["unassalpha"])):
        problem = problem_of(data)
        assert problem.reason == "unsupported_image"
        assert "transparent" in problem.sentence


def test_white_is_zero_is_turned_round():
    array = pixels(8, (9, 7), "uint16")
    np.testing.assert_array_equal(decode_image(tiff(array, photometric="miniswhite"), WANTED).pixels[0, 0, 0], ~array)


def test_lzw_is_read_by_pillow():
    array = pixels(9, (9, 7), "uint16")
    out = io.BytesIO()
    Image.fromarray(array).save(out, "TIFF", compression="tiff_lzw")
    np.testing.assert_array_equal(decode_image(out.getvalue(), WANTED).pixels[0, 0, 0], array)


def test_what_would_be_cut_or_guessed_is_refused():
    out = io.BytesIO()
    Image.new("CMYK", (8, 8)).save(out, "JPEG")
    assert "CMYK" in problem_of(out.getvalue()).sentence
    assert "16-bit RGB PNG" in problem_of(_png16(8, 6)).sentence
    animation = io.BytesIO()
    frames = [Image.fromarray(pixels(i)) for i in range(2)]
    frames[0].save(animation, "PNG", save_all=True, append_images=frames[1:])
    assert "animation of 2 frames" in problem_of(animation.getvalue()).sentence
    several = io.BytesIO()
    with tifffile.TiffWriter(several) as writer:
        writer.write(pixels(1, (9, 7)), photometric="minisblack")
        writer.write(pixels(2, (5, 5)), photometric="minisblack")
    assert "2 images of different kinds" in problem_of(several.getvalue()).sentence
    assert "complex64" in problem_of(tiff(np.ones((4, 4), np.complex64))).sentence


def _png16(width: int, height: int) -> bytes:
    """A PNG of 16-bit colour."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes((1 + 6 * width) * height))),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def test_bombs_are_refused_by_their_headers():
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", head)
        + _chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + _chunk(b"IEND", b"")
    )
    assert problem_of(bomb).reason == "too_large"
    data = tiff(np.zeros((64, 64), np.uint8), compression="zlib")
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        places = [opened.pages[0].tags[name].valueoffset for name in ("ImageWidth", "ImageLength")]
    grown = bytearray(data)
    for place in places:
        grown[place : place + 2] = b"\xff\xff"
    assert problem_of(bytes(grown)).reason == "too_large"
    out = io.BytesIO()
    Image.new("L", (2000, 2000)).save(out, "JPEG")
    assert "4,000,000 values, more than the limit" in problem_of(out.getvalue()).sentence


@pytest.mark.parametrize("kind", ["png", "tiff", "deflate", "jpeg"])
def test_every_cut_is_seen(kind):
    array = pixels(11, (21, 18))
    out = io.BytesIO()
    Image.fromarray(array).save(out, "JPEG")
    data = {"png": png(array), "tiff": tiff(array), "deflate": tiff(array, compression="zlib"), "jpeg": out.getvalue()}[
        kind
    ]
    last = len(data) - 2 if kind == "jpeg" else len(data)  # a JPEG without its end marker has all its pixels
    for size in range(0, last, 7):
        assert problem_of(data[:size]).reason in ("unreadable", "unsupported_image"), size


def test_no_flipped_bit_of_a_png_is_read_as_data():
    array = pixels(12, (21, 18), "uint16")
    data = png(array)
    chance = random.Random(1)
    for _ in range(200):
        bit = chance.randrange(8 * len(data))
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert problem_of(bytes(flipped)).reason in ("unreadable", "too_large", "unsupported_image")


@given(st.binary(max_size=400), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"MM\0*"]))
def test_noise_is_one_sentence(noise, head):
    assert problem_of(head + noise).sentence


def test_what_ome_tiff_and_imagej_tell_is_kept():
    array = pixels(13, (2, 3, 9, 7), "uint16")
    ome = {
        "axes": "ZCYX",
        "PhysicalSizeX": 0.25,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 500.0,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeZ": 2.0,
        "Channel": {"Name": ["DAPI", "GFP", "RFP"]},
    }
    stack = decode_image(tiff(array, ome=True, metadata=ome), WANTED)
    assert stack.pixel_size_um == (2.0, 0.5, 0.25)
    assert stack.channels == ("DAPI", "GFP", "RFP")
    np.testing.assert_array_equal(stack.pixels[0], np.moveaxis(array, 0, 1))
    imagej = tiff(array, imagej=True, resolution=(4.0, 2.0), metadata={"unit": "um", "spacing": 3.0, "axes": "ZCYX"})
    assert decode_image(imagej, WANTED).pixel_size_um == (3.0, 0.5, 0.25)


def test_pixels_per_inch_are_no_pixel_size():
    assert decode_image(tiff(pixels(1), resolution=(72, 72), resolutionunit="inch"), WANTED).pixel_size_um[1:] == (
        None,
        None,
    )


def test_planes_in_other_files_are_not_filled_with_zeros():
    data = tiff(pixels(1, (2, 9, 7)), ome=True, metadata={"axes": "ZYX"})
    text = data.replace(b'SizeZ="2"', b'SizeZ="3"')
    assert text != data
    assert problem_of(text).reason in ("unsupported_image", "unreadable")


def test_masks_are_whole_numbers_of_one_channel():
    def refused(data: bytes, channel: int | None = None) -> str:
        wanted = Wanted(1 << 20, labels=True, channel=channel)
        with pytest.raises(ImageProblem) as caught:
            mask_of(decode_image(data, wanted), wanted)
        return caught.value.sentence

    assert "float32" in refused(tiff(pixels(1, dtype="float32")))
    assert "labels are 0 and more" in refused(tiff(np.full((4, 4), -1, np.int16)))
    assert "--mask-channel" in refused(png(pixels(1, (9, 7, 3))))
    assert "there is no 5" in refused(png(pixels(1, (9, 7, 3))), channel=5)
    out = io.BytesIO()
    Image.fromarray(pixels(1)).save(out, "JPEG")
    assert "compression changes label values" in refused(out.getvalue())
    array = pixels(1, (9, 7, 3))
    wanted = Wanted(1 << 20, labels=True, channel=1)
    np.testing.assert_array_equal(mask_of(decode_image(png(array), wanted), wanted)[0, 0], array[..., 1])
