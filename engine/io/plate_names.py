"""Names of an ImageXpress plate: `..._A01_s1_w1<GUID>.tif`, flat or in `TimePoint_2/` and `ZStep_3/` folders.

Well, site (field), wavelength (channel), time and depth are told by names alone. Where there are `ZStep_` folders,
files beside them are projections of the steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_NAME = re.compile(
    r"(?P<plate>.+?)_(?P<row>[A-Z]{1,2})(?P<column>\d{1,2})(?:_s(?P<site>\d+))?(?:_w(?P<channel>\d))?"
    r"(?P<thumb>_thumb)?(?P<guid>[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})?\.(?i:tiff?)"
)
_FOLDER = re.compile(r"(TimePoint|ZStep)_(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PlateFile:
    """What a file's name says.

    Attributes:
        plate: name of the acquisition, with the folder above the time and depth folders before it where there is one.
        well: row letters and column as written.
        site: field of the well, 1 where there is none.
        channel: wavelength, from 1 on.
        time, step: from 1 on; step 0 is a file that lies in no ZStep folder.
        is_thumb: a thumbnail that the microscope made.
    """

    plate: str
    well: str
    site: int
    channel: int
    time: int
    step: int
    is_thumb: bool


def parse_plate_name(path: str) -> PlateFile | None:
    """What a path below the input folder says; None for any other name. A site or a wavelength must be there."""
    *folders, name = path.split("/")
    found = _NAME.fullmatch(name)
    if found is None or (found["site"] is None and found["channel"] is None):
        return None
    time, step = 1, 0
    while folders and (told := _FOLDER.fullmatch(folders[-1])):
        if told[1].lower() == "timepoint":
            time = int(told[2])
        else:
            step = int(told[2])
        folders.pop()
    plate = "/".join((*folders, found["plate"]))
    well = f"{found['row'].upper()}{found['column']}"
    return PlateFile(
        plate, well, int(found["site"] or 1), int(found["channel"] or 1), time, step, found["thumb"] is not None
    )


@dataclass
class Site:
    """The files of one field at one time: (channel, step) to path; `doubled` claim a place that another has."""

    plate: str
    well: str
    site: int
    time: int
    files: dict[tuple[int, int], str] = field(default_factory=dict)
    doubled: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plates:
    """What a set of names holds.

    Attributes:
        sites: by plate, well, site and time.
        channels: wavelengths of each plate, over all its sites.
        num_thumbs: thumbnails left out.
        num_left_out: projections left out, or the steps left out for them.
    """

    sites: list[Site]
    channels: Mapping[str, tuple[int, ...]]
    num_thumbs: int
    num_left_out: int


def gather_sites(paths: Iterable[tuple[str, PlateFile]], *, projections: bool) -> Plates:
    """Put files together by site.

    Args:
        paths: each with what its name says.
        projections: where a site has steps and a projection of them, take the projection rather than the steps.
    """
    sites: dict[tuple[str, str, int, int], Site] = {}
    channels: dict[str, set[int]] = {}
    num_thumbs = 0
    for path, told in sorted(paths):
        if told.is_thumb:
            num_thumbs += 1
            continue
        key = (told.plate, told.well, told.site, told.time)
        site = sites.setdefault(key, Site(*key))
        channels.setdefault(told.plate, set()).add(told.channel)
        if site.files.setdefault((told.channel, told.step), path) != path:
            site.doubled.append(path)
    left_out = sum(_choose(site, projections) for site in sites.values())
    known = {plate: tuple(sorted(found)) for plate, found in channels.items()}
    return Plates([sites[key] for key in sorted(sites)], known, num_thumbs, left_out)


def _choose(site: Site, projections: bool) -> int:
    """Keep either the steps or their projection; returns how many files are left out."""
    steps = {step for _, step in site.files}
    if not ({0} < steps):
        return 0
    gone = [key for key in site.files if (key[1] == 0) != projections]
    for key in gone:
        del site.files[key]
    return len(gone)
