"""From folders to images: which files make one image, in one order, and how its pixels are read.

A folder may hold PNG, JPEG and TIFF files, ImageXpress plates by their names, and Zarr stores; a Zarr store may itself
be named. Links to folders are not followed; hidden files are no images.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.errors import InputError
from engine.io._image_stack import ImageProblem, Pixels, Stack, Wanted, check_size
from engine.io.image_files import SUFFIXES, decode_image, mask_of
from engine.io.ome_zarr import Place, ZarrImage, ZarrRows, find_images, is_store
from engine.io.plate_names import PlateFile, Plates, Site, gather_sites, parse_plate_name

FILE, SITE, ZARR, ROWS, ABSENT = "file", "site", "zarr", "rows", "absent"


@dataclass(frozen=True)
class Reading:
    """How images are found and read. Each setting can change a result.

    Attributes:
        max_pixels: most values of one file, or of one time point of a Zarr image.
        plates: tell ImageXpress plates by their names.
        projections: take projections rather than depth steps of a plate.
        image_array: name of a plain Zarr array of images, for groups that are no OME-Zarr.
        mask_array: of masks beside it.
        label_array: of classes beside it.
        mask_channel: which channel of masks in colour holds the labels.
        label_image: name of the label image of OME-Zarr images that is their mask.
        fill_missing: take the fill value for Zarr chunks that are not there.
        mask_regions: each connected region of one value in a mask is an object of its own.
    """

    max_pixels: int = 1 << 28
    plates: bool = True
    projections: bool = False
    image_array: str = "image"
    mask_array: str | None = None
    label_array: str | None = None
    mask_channel: int | None = None
    label_image: str | None = None
    fill_missing: bool = False
    mask_regions: bool = False


@dataclass(frozen=True)
class ImageSource:
    """One image, or stack of images, of the input.

    Attributes:
        id: its name in the set: the path below its folder, or plate, well and field.
        kind: what it is made of: a file, a site of a plate, a Zarr image, rows of a Zarr array, or nothing (absent).
        folder: which of the input folders it lies in.
        files: paths below that folder; of a site channel by channel, each with its depths; of Zarr the store, then the
            path in it.
        channels: names that the source's own name tells; empty elsewhere.
        plate, well, field: place on a plate; None elsewhere.
        time: 0-based time that its name tells.
        mask: path of its mask below the folder of masks, or name of a label image or array; None without masks.
        label, group: what is known of it.
        problem: why it cannot be read, where its name or metadata tell.
    """

    id: str
    kind: str
    folder: int = 0
    files: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    plate: str | None = None
    well: str | None = None
    field: str | None = None
    time: int = 0
    mask: str | None = None
    label: str | None = None
    group: str | None = None
    problem: ImageProblem | None = None


@dataclass
class Listing:
    """All images of the input, in the order of the set, and what was passed over: kind of file to number."""

    sources: list[ImageSource] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)

    def pass_over(self, what: str, number: int = 1) -> None:
        if number:
            self.passed_over[what] = self.passed_over.get(what, 0) + number


def list_sources(folders: Sequence[str], reading: Reading) -> Listing:
    """Find all images below the folders.

    Raises:
        InputError: a folder is not there, two have the same name, or nothing is found.
    """
    listing = Listing()
    names = _prefixes(folders)
    for number, (folder, prefix) in enumerate(zip(folders, names, strict=True)):
        _list_folder(Path(folder), number, prefix, reading, listing)
    if not listing.sources:
        passed = ", ".join(f"{number} {what}" for what, number in sorted(listing.passed_over.items())) or "nothing"
        known = ", ".join(SUFFIXES)
        raise InputError(f"no images here; found {passed}", where=", ".join(folders), fix=f"known are {known} and Zarr")
    return listing


def _prefixes(folders: Sequence[str]) -> list[str]:
    """What sets ids of several folders apart: the folders' own names."""
    for folder in folders:
        if not Path(folder).exists():
            raise InputError("the folder is not there", where=folder, fix="check the path")
    if len(folders) == 1:
        return [""]
    names = [Path(folder).name for folder in folders]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two input folders are called {twice!r}", fix="rename one, or ingest the folder above both")
    return [f"{name}/" for name in names]


def _list_folder(root: Path, number: int, prefix: str, reading: Reading, listing: Listing) -> None:
    if root.is_file():
        listing.sources.append(ImageSource(prefix + root.name, FILE, number, (root.name,)))
        return
    if is_store(root):
        listing.sources += _store_sources(root, ".", number, prefix, reading)
        return
    loose: list[str] = []
    plate_files: list[tuple[str, PlateFile]] = []
    for path, is_zarr in _walk(root, listing):
        told = parse_plate_name(path) if reading.plates and not is_zarr else None
        if is_zarr:
            listing.sources += _store_sources(root / path, path, number, prefix, reading)
        elif told is not None:
            plate_files.append((path, told))
        else:
            loose.append(path)
    listing.sources += [ImageSource(prefix + path, FILE, number, (path,)) for path in loose]
    plates = gather_sites(plate_files, projections=reading.projections)
    listing.pass_over("thumbnails of a plate", plates.num_thumbs)
    listing.pass_over(
        "depth steps of a plate" if reading.projections else "projections of a plate", plates.num_left_out
    )
    listing.sources += _site_sources(plates, number, prefix)


def _walk(root: Path, listing: Listing) -> Iterator[tuple[str, bool]]:
    """Paths below a folder in sorted order, and whether each is a Zarr store."""
    for here, folders, files in os.walk(root):
        top = Path(here)
        folders.sort()
        hidden = [name for name in folders if name.startswith(".")]
        stores = [name for name in folders if name not in hidden and is_store(top / name)]
        folders[:] = [name for name in folders if name not in hidden and name not in stores]
        for name in sorted((*files, *stores)):
            path = (top / name).relative_to(root).as_posix()
            if name in stores:
                yield path, True
            elif name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield path, False
            else:
                listing.pass_over(f"files {Path(name).suffix.lower() or 'without a suffix'}")


def _store_sources(store: Path, path: str, folder: int, prefix: str, reading: Reading) -> Iterator[ImageSource]:
    name = store.name if path == "." else path
    for place in find_images(store):
        rows = store / place.group / reading.image_array
        if place.problem is not None and is_store(rows):
            files = (path, f"{place.group}/{reading.image_array}".lstrip("/"))
            yield ImageSource(prefix + name, ROWS, folder, files, mask=reading.mask_array)
            continue
        yield _zarr_source(
            place, ImageSource(prefix + name, ZARR, folder, (path, place.group), mask=reading.label_image)
        )


def _zarr_source(place: Place, base: ImageSource) -> ImageSource:
    name = base.id if not place.group else f"{base.id}/{place.group}"
    return replace(base, id=name, plate=place.plate, well=place.well, field=place.field, problem=place.problem)


def _site_sources(plates: Plates, folder: int, prefix: str) -> list[ImageSource]:
    return [_site_source(site, plates.channels[site.plate], folder, prefix) for site in plates.sites]


def _site_source(site: Site, channels: Sequence[int], folder: int, prefix: str) -> ImageSource:
    steps = sorted({step for _, step in site.files})
    lacking = [
        f"w{channel} at step {step}" for channel in channels for step in steps if (channel, step) not in site.files
    ]
    problem = None
    if site.doubled:
        problem = ImageProblem("ambiguous_files", f"{site.doubled[0]} claims a place that another file has")
    elif lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        problem = ImageProblem("missing_channel", f"the site has no file for {lacking[0]}{more}")
    files = [site.files.get((channel, step), "") for channel in channels for step in steps]
    name = f"{prefix}{site.plate}/{site.well}/{site.site}"
    return ImageSource(
        name if site.time == 1 else f"{name}/t{site.time - 1}",
        SITE,
        folder,
        tuple(path for path in files if path),
        tuple(f"w{channel}" for channel in channels),
        site.plate,
        site.well,
        str(site.site),
        site.time - 1,
        problem=problem,
    )


class Opened(Protocol):
    """A source whose pixels can be read, times [begin, end) at a time."""

    @property
    def num_times(self) -> int: ...

    @property
    def times_at_once(self) -> int:
        """How many to read in one go."""
        ...

    def read(self, begin: int, end: int) -> Stack: ...


Note = Callable[[str, bytes], None]
"""Takes a file's path and its bytes, or its digest, as they are read."""


@dataclass(frozen=True)
class _Decoded:
    """A stack that had to be decoded whole."""

    stack: Stack

    @property
    def num_times(self) -> int:
        return len(self.stack.pixels)

    @property
    def times_at_once(self) -> int:
        return self.num_times

    def read(self, begin: int, end: int) -> Stack:
        return replace(self.stack, pixels=self.stack.pixels[begin:end])


class ImageLoader:
    """Reads sources; picklable by its arguments.

    Args:
        folders: the input folders.
        masks: the folder that masks of files lie in; None takes the first input folder.
        reading: settings.
        note: is told path and bytes of each file that is read.
    """

    def __init__(self, folders: Sequence[str], masks: str | None, reading: Reading, note: Note | None = None) -> None:
        self._folders = [Path(folder) for folder in folders]
        self._masks = Path(masks) if masks is not None else self._folder(0)
        self._reading = reading
        self._note = note

    def _folder(self, number: int) -> Path:
        folder = self._folders[number]
        return folder.parent if folder.is_file() else folder

    def open(self, source: ImageSource) -> Opened:
        """Open the pixels of a source.

        Raises:
            ImageProblem: it cannot be read.
        """
        if source.problem is not None:
            raise source.problem
        folder = self._folder(source.folder)
        wanted = Wanted(self._reading.max_pixels)
        if source.kind == FILE:
            return _Decoded(decode_image(self._bytes(folder, source.files[0]), wanted))
        if source.kind == SITE:
            return _Decoded(self._site(folder, source, wanted))
        store = folder / source.files[0]
        if source.kind == ROWS:
            self._tell_tree(store)
            return ZarrRows(store / source.files[1], self._reading.max_pixels, fill=self._reading.fill_missing)
        self._tell_tree(store / source.files[1])
        return ZarrImage(store, source.files[1], self._reading.max_pixels, fill=self._reading.fill_missing)

    def open_mask(self, source: ImageSource, opened: Opened) -> Opened:
        """Open the mask of a source: stacks of one channel.

        Raises:
            ImageProblem: there is none, or it cannot be read.
        """
        assert source.mask is not None
        if isinstance(opened, ZarrImage):
            return _LabelImage(opened.labels(source.mask), self._reading.mask_regions)
        if isinstance(opened, ZarrRows):
            place = self._folder(source.folder) / source.files[0] / Path(source.files[1]).parent / source.mask
            return _LabelImage(
                ZarrRows(place, self._reading.max_pixels, fill=self._reading.fill_missing), self._reading.mask_regions
            )
        wanted = Wanted(
            self._reading.max_pixels,
            labels=True,
            channel=self._reading.mask_channel,
            regions=self._reading.mask_regions,
        )
        try:
            data = self._bytes(self._masks, source.mask)
        except ImageProblem as problem:
            raise ImageProblem("missing_mask", f"mask {source.mask!r}: {problem.sentence}") from None
        try:
            labels = mask_of(decode_image(data, wanted), wanted)
        except ImageProblem as problem:
            raise ImageProblem("unreadable_mask", f"mask {source.mask!r}: {problem.sentence}") from None
        return _Decoded(Stack(labels[:, None]))

    def classes_of(self, source: ImageSource) -> Pixels | None:
        """Of rows of a Zarr array: the array of their classes, where one is named.

        Raises:
            ImageProblem: it is not there or damaged.
        """
        if source.kind != ROWS or self._reading.label_array is None:
            return None
        store = self._folder(source.folder) / source.files[0]
        place = store / Path(source.files[1]).parent / self._reading.label_array
        return ZarrRows(place, self._reading.max_pixels, fill=self._reading.fill_missing).values()

    def _site(self, folder: Path, source: ImageSource, wanted: Wanted) -> Stack:
        """Files of one site put together; each must hold one plane of the same kind."""
        num_channels = len(source.channels)
        stacks = [decode_image(self._bytes(folder, path), wanted) for path in source.files]
        first = stacks[0].pixels
        for path, stack in zip(source.files, stacks, strict=True):
            if stack.pixels.shape != (1, 1, 1, *first.shape[3:]) or stack.pixels.dtype != first.dtype:
                found = f"{list(stack.pixels.shape)} of {stack.pixels.dtype.name}"
                sentence = (
                    f"{path} holds {found} where the site's first file has {list(first.shape)} of {first.dtype.name}"
                )
                raise ImageProblem("unsupported_image", sentence)
        check_size((len(stacks), *first.shape), wanted.max_pixels)
        planes = np.stack([stack.pixels[0, 0, 0] for stack in stacks])
        depths = len(stacks) // num_channels
        pixels = planes.reshape(1, num_channels, depths, *first.shape[3:])
        names = [{stack.channels for stack in stacks[i * depths : (i + 1) * depths]} for i in range(num_channels)]
        told = [next(iter(one)) if len(one) == 1 else () for one in names]
        known = tuple(one[0] for one in told) if all(len(one) == 1 for one in told) else ()
        return Stack(pixels, stacks[0].pixel_size_um, known or source.channels)

    def _bytes(self, folder: Path, path: str) -> bytes:
        try:
            data = (folder / path).read_bytes()
        except OSError as error:
            reason = "missing_file" if isinstance(error, FileNotFoundError) else "unreadable"
            raise ImageProblem(reason, f"{path} cannot be read ({error.strerror})") from None
        if self._note is not None:
            self._note(str(folder / path), hashlib.sha256(data).digest())
        return data

    def _tell_tree(self, folder: Path) -> None:
        """Files of a Zarr group, which are read in pieces: digested on their own."""
        if self._note is None:
            return
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            with path.open("rb") as stream:
                self._note(str(path), hashlib.file_digest(stream, "sha256").digest())


@dataclass(frozen=True)
class _LabelImage:
    """A Zarr image read as labels."""

    image: Opened
    regions: bool

    @property
    def num_times(self) -> int:
        return self.image.num_times

    @property
    def times_at_once(self) -> int:
        return self.image.times_at_once

    def read(self, begin: int, end: int) -> Stack:
        try:
            stack = self.image.read(begin, end)
        except ImageProblem as problem:
            raise ImageProblem("unreadable_mask", problem.sentence) from None
        labels = mask_of(stack, Wanted(0, labels=True, regions=self.regions))
        return replace(stack, pixels=labels[:, None])
