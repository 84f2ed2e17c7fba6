"""What names tell of images: class and group by folder or pattern, a mask by the same name in the folder of masks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from engine.errors import InputError
from engine.io.image_files import SUFFIXES
from engine.io.image_sources import FILE, SITE, ImageSource


@dataclass(frozen=True)
class Naming:
    """Attributes:
    label_from_folder: the folder that a file lies in is its class.
    label_pattern, group_pattern: regular expressions searched in the id; their first group is class, or group.
    masks: folder of masks, whose files have the names of the images, whatever their suffix.
    """

    label_from_folder: bool = False
    label_pattern: str | None = None
    group_pattern: str | None = None
    masks: str | None = None

    def apply(self, sources: Sequence[ImageSource]) -> list[ImageSource]:
        """Sources with what their names tell; fields of a well, and times of a field, share a group."""
        masks = None if self.masks is None else _by_stem(self.masks)
        return [self._told(source, masks) for source in sources]

    def _told(self, source: ImageSource, masks: dict[str, str] | None) -> ImageSource:
        label = PurePosixPath(source.id).parent.name or None if self.label_from_folder else None
        label = label if self.label_pattern is None else _first_group(self.label_pattern, source.id)
        group = f"{source.plate}/{source.well}" if source.plate is not None else None
        group = group if self.group_pattern is None else _first_group(self.group_pattern, source.id)
        mask = source.mask
        if masks is not None and source.kind in (FILE, SITE):
            mask = masks.get(_stem(source.files[0]), _stem(source.files[0]) + ".*") if source.files else None
        return replace(source, label=label, group=group, mask=mask)


def _first_group(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return None if found is None else (found[1] if found.re.groups else found[0])


def _stem(path: str) -> str:
    """The path without its suffix, and without `.ome` before it."""
    lower = path.lower()
    suffix = next((one for one in SUFFIXES if lower.endswith(one)), "")
    bare = path[: len(path) - len(suffix)]
    return bare.removesuffix(".ome")


def _by_stem(folder: str) -> dict[str, str]:
    """Path without suffix to path, of all images below a folder.

    Raises:
        InputError: not there, or two files share a name.
    """
    top = Path(folder)
    if not top.is_dir():
        raise InputError("the folder of masks is not there", where=folder, fix="check the path")
    found: dict[str, str] = {}
    for path in sorted(path for path in top.rglob("*") if path.is_file()):
        name = path.relative_to(top).as_posix()
        if not name.lower().endswith(SUFFIXES):
            continue
        if found.setdefault(_stem(name), name) != name:
            what = f"masks {found[_stem(name)]} and {name} have one name"
            raise InputError(what, where=folder, fix="keep one of them")
    return found
