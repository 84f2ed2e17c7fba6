"""TIFF, BigTIFF, OME-TIFF, ImageJ and MetaMorph files through tifffile, with what they tell of pixel size and channels.

Every strip or tile must lie inside the file: tifffile fills a missing one with zeros. Pages of no known axis are
depths.

Source: TIFF 6.0; OME-XML 2016-06 (`PhysicalSizeX`, `Channel/@Name`); MetaMorph's `prop` elements of ImageXpress files.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any
from xml.etree import ElementTree

import numpy as np

from engine.errors import InputError
from engine.io._image_stack import (
    ImageProblem,
    Pixels,
    Stack,
    Wanted,
    check_size,
    import_pillow,
    micrometres,
    plain,
    without_opaque_alpha,
)

_ORDER = "TCZYX"
_GREY, _GREY_INVERTED, _RGB, _PALETTE = 1, 0, 2, 3
_MOST_XML = 32 << 20


def decode_tiff(data: bytes, wanted: Wanted) -> Stack:
    """Decode a whole file.

    Raises:
        ImageProblem: unreadable, or of a kind that cannot be taken without guessing.
    """
    tifffile = _import_tifffile()
    # A multi-file OME-TIFF is read as what this file holds; planes that lie elsewhere are refused below.
    with tifffile.TiffFile(BytesIO(data), _multifile=False) as tiff:
        series = _only_series(tiff)
        check_size(series.shape, wanted.max_pixels)
        _check_whole(series, len(data))
        page = series.keyframe
        try:
            pixels = series.asarray(maxworkers=1)
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            pixels = _by_pillow(data, series, page)
        axes = series.axes
        pixels, axes = _colours(pixels, axes, page, labels=wanted.labels)
        return Stack(plain(_ordered(pixels, axes)), *_facts(tiff, page))


def _import_tifffile() -> Any:
    try:
        import tifffile
    except ImportError as error:
        fix = "pip install 'replisome[imaging]'"
        raise InputError("reading TIFF needs a package that is not installed", fix=fix) from error
    return tifffile


def _only_series(tiff: Any) -> Any:
    if not tiff.series:
        raise ImageProblem("unreadable", "the TIFF holds no image")
    if len(tiff.series) > 1:
        shapes = ", ".join(str(list(one.shape)) for one in tiff.series[:4])
        sentence = f"the TIFF holds {len(tiff.series)} images of different kinds (shapes {shapes}); split it first"
        raise ImageProblem("unsupported_image", sentence)
    return tiff.series[0]


def _check_whole(series: Any, size: int) -> None:
    """All pixel data lies in the file."""
    if series.dataoffset is not None:
        if series.dataoffset + series.nbytes > size:
            raise ImageProblem("unreadable", f"the TIFF is cut short: its pixels end past its {size:,} bytes")
        return
    for number, page in enumerate(series):
        if page is None:
            sentence = (
                f"plane {number} of the OME-TIFF lies in another file; convert the set to OME-Zarr or single files"
            )
            raise ImageProblem("unsupported_image", sentence)
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if not places or any(not count or offset + count > size for offset, count in places):
            raise ImageProblem("unreadable", f"the TIFF is cut short: pixels of page {number} are not all in the file")


def _by_pillow(data: bytes, series: Any, page: Any) -> Pixels:
    """LZW, JPEG and their like, which tifffile leaves to a package of codecs."""
    compression = getattr(page.compression, "name", str(page.compression))
    if len(series) == 1:
        image = import_pillow("TiffImagePlugin").TiffImageFile(BytesIO(data))
        image.load()
        pixels = np.asarray(image)
        if pixels.shape == tuple(series.shape) and pixels.dtype == series.dtype.newbyteorder("="):
            return pixels
    raise ImageProblem(
        "unsupported_image",
        f"{compression} compression of {len(series)} pages of {series.dtype.name}; install imagecodecs or save it with "
        "deflate or without compression",
    )


def _colours(pixels: Pixels, axes: str, page: Any, *, labels: bool) -> tuple[Pixels, str]:
    """Palettes looked up, an opaque alpha dropped."""
    kind = int(page.photometric)
    if kind == _PALETTE:
        if labels:
            return pixels, axes
        table = page.colormap  # (3, 2**bits) of 16 bits
        return (np.moveaxis(table, 0, -1)[pixels] >> 8).astype(np.uint8), axes + "S"
    if kind == _GREY_INVERTED and not labels:
        if pixels.dtype == np.bool_:
            return ~pixels, axes
        if pixels.dtype.kind != "u" or page.bitspersample != 8 * pixels.dtype.itemsize:
            raise ImageProblem("unsupported_image", f"an inverted TIFF (white is 0) of {pixels.dtype.name}")
        return np.iinfo(pixels.dtype).max - pixels, axes
    if kind not in (_GREY, _GREY_INVERTED, _RGB):
        name = getattr(page.photometric, "name", str(kind))
        raise ImageProblem("unsupported_image", f"a TIFF of colour kind {name}; known are grey, RGB and palette")
    if page.extrasamples and "S" in axes:
        full = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "ui" else 1.0
        moved = np.moveaxis(pixels, axes.index("S"), -1)
        pixels, axes = without_opaque_alpha(moved, full), axes.replace("S", "") + "S"
    return pixels, axes


def _ordered(pixels: Pixels, axes: str) -> Pixels:
    """(T, C, Z, Y, X) of whatever axes a series has."""
    unknown = [letter for letter in axes if letter not in "TCZYXS"]
    for letter in unknown:
        place = axes.index(letter)
        if pixels.shape[place] == 1:
            pixels, axes = pixels.squeeze(place), axes[:place] + axes[place + 1 :]
        elif "Z" not in axes:
            axes = axes[:place] + "Z" + axes[place + 1 :]
        else:
            raise ImageProblem("unsupported_image", f"a TIFF with axes {axes}; known are T, C, Z, Y, X and colours")
    if "Y" not in axes or "X" not in axes or len(set(axes)) < len(axes):
        raise ImageProblem("unsupported_image", f"a TIFF with axes {axes or 'none'} is no image")
    present = [letter for letter in "TCSZYX" if letter in axes]
    moved = pixels.transpose([axes.index(letter) for letter in present])
    size = dict(zip(present, moved.shape, strict=True))
    channels = size.get("C", 1) * size.get("S", 1)
    return moved.reshape(size.get("T", 1), channels, size.get("Z", 1), size["Y"], size["X"])


Facts = tuple[tuple[float | None, float | None, float | None], tuple[str, ...], str]
_NO_FACTS: Facts = ((None, None, None), (), "")


def _facts(tiff: Any, page: Any) -> Facts:
    """(pixel size z, y, x in micrometres, channel names, image name); nothing where the text does not parse."""
    try:
        if tiff.is_ome and len(tiff.ome_metadata) < _MOST_XML:
            return _ome_facts(tiff.ome_metadata)
        if page.description.startswith("<MetaData>"):
            return _metamorph_facts(page.description)
        return _resolution(tiff, page), (), ""
    except (ElementTree.ParseError, ValueError, TypeError, KeyError, ZeroDivisionError, AttributeError):
        return _NO_FACTS


def _ome_facts(text: str) -> Facts:
    root = ElementTree.fromstring(re.sub(r"<!DOCTYPE.*?>", "", text, flags=re.S))
    image = next((node for node in root.iter() if node.tag.endswith("}Image") or node.tag == "Image"), None)
    pixels = next((node for node in root.iter() if node.tag.endswith("}Pixels") or node.tag == "Pixels"), None)
    if pixels is None:
        return _NO_FACTS
    sizes = [
        micrometres(_number(pixels.get(f"PhysicalSize{axis}")), pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "ZYX"
    ]
    names = [node.get("Name") for node in pixels if node.tag.rpartition("}")[2] == "Channel"]
    known = tuple(str(name) for name in names) if all(names) else ()
    return (sizes[0], sizes[1], sizes[2]), known, "" if image is None else image.get("Name", "")


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _metamorph_facts(text: str) -> Facts:
    """ImageXpress: `prop` elements of the first plane."""
    # The text is XML without an end where it was cut by the writer; its elements are all alike.
    props = dict(re.findall(r'<prop id="([^"]+)" type="[^"]*" value="([^"]*)"/>', text))
    unit = props.get("spatial-calibration-units") if props.get("spatial-calibration-state") == "on" else None
    sizes = [micrometres(_number(props.get(f"spatial-calibration-{axis}")), unit) for axis in "yx"]
    name = props.get("image-name", "")
    return (None, sizes[0], sizes[1]), (name,) if name else (), name


def _resolution(tiff: Any, page: Any) -> tuple[float | None, float | None, float | None]:
    """Pixels per unit, where the unit is one of microscopy: plain TIFF writers put 72 per inch without meaning it."""
    tags = page.tags
    across, down = (tags[name].value for name in ("XResolution", "YResolution"))
    told = tiff.imagej_metadata or {}
    if tiff.is_imagej:
        unit = str(told.get("unit", "")).replace("\\u00B5", "µ")
        depth = micrometres(told.get("spacing"), unit)
    else:
        unit = {3: "cm"}.get(int(tags["ResolutionUnit"].value), "")
        depth = None
    sizes = [micrometres(bottom / top if top else None, unit) for top, bottom in (down, across)]
    return depth, sizes[0], sizes[1]
