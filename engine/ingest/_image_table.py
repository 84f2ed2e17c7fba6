"""The table that tells label, group and mask of images: by file, or by well for the images of plates."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.csv as pa_csv

from engine.errors import DataError, InputError
from engine.io import parquet
from engine.io._image_stack import ImageProblem
from engine.io.image_sources import ABSENT, ImageSource

_FILE, _WELL, _PLATE = "file", "well", "plate"


@dataclass(frozen=True)
class TableColumns:
    """Names of the table's columns; `file` and `well` are also found by these names."""

    file: str | None = None
    label: str | None = None
    group: str | None = None
    mask: str | None = None
    delimiter: str | None = None


@dataclass(frozen=True)
class _Told:
    label: str | None
    group: str | None
    mask: str | None


@dataclass(frozen=True)
class ImageTable:
    """Held in memory: what is told of each key.

    Attributes:
        rows: by file, or by "plate well" or "well".
        by_well: whether keys are wells.
        has_label, has_mask: whether there are such columns.
        digest: sha256 of the file.
    """

    rows: Mapping[str, _Told]
    by_well: bool
    has_label: bool
    has_mask: bool
    digest: str

    @classmethod
    def load(cls, path: str, columns: TableColumns) -> ImageTable:
        """Read a CSV, TSV or Parquet table.

        Raises:
            InputError: unreadable, a column missing, an image or well twice, or a path that leads out of its folder.
        """
        data = Path(path).read_bytes()
        table = _read(path, data, columns.delimiter)
        key, by_well = _key_column(table, columns, path)
        keys = [_text(value) for value in table[key].to_pylist()]
        if by_well and _PLATE in table.column_names:
            keys = [f"{_text(plate)} {well}" for plate, well in zip(table[_PLATE].to_pylist(), keys, strict=True)]
        found = {name: _column(table, name, asked, path) for name, asked in _asked(columns).items()}
        rows: dict[str, _Told] = {}
        for line, name in enumerate(keys):
            if not name or name in rows:
                what = f"row {line} (counted from 0) names {'nothing' if not name else f'{name!r} a second time'}"
                raise InputError(what, where=path, fix="mend that row")
            told = {kind: None if values is None else values[line] for kind, values in found.items()}
            rows[name] = _Told(**told)
            _check_inside(name if not by_well else "", path)
            _check_inside(told["mask"] or "", path)
        digest = hashlib.sha256(data).hexdigest()
        return cls(rows, by_well, found["label"] is not None, found["mask"] is not None, digest)

    def join(self, sources: Iterable[ImageSource]) -> tuple[list[ImageSource], int]:
        """Sources with what the table tells, and how many it does not name.

        A table of files says which images belong to the set: others are left out, and a file that is not there takes
        part as an image that is absent. A table of wells leaves out nothing.
        """
        known, left_out = [], 0
        seen: set[str] = set()
        for source in sources:
            key = self._key_of(source)
            if key is None:
                if self.by_well:
                    known.append(source)
                else:
                    left_out += 1
                continue
            seen.add(key)
            told = self.rows[key]
            known.append(
                replace(source, label=told.label, group=told.group or source.group, mask=told.mask or source.mask)
            )
        if not self.by_well:
            absent = [name for name in self.rows if name not in seen]
            known += [_absent(name, self.rows[name]) for name in absent]
        return known, left_out

    def _key_of(self, source: ImageSource) -> str | None:
        tried = (f"{source.plate} {source.well}", source.well) if self.by_well else (source.id,)
        return next((key for key in tried if key is not None and key in self.rows), None)


def _absent(name: str, told: _Told) -> ImageSource:
    problem = ImageProblem("missing_file", f"the table names {name}, and no such image was found")
    return ImageSource(name, ABSENT, files=(name,), label=told.label, group=told.group, mask=told.mask, problem=problem)


def _asked(columns: TableColumns) -> dict[str, str | None]:
    return {"label": columns.label, "group": columns.group, "mask": columns.mask}


def _read(path: str, data: bytes, delimiter: str | None) -> pa.Table:
    if data[:4] == b"PAR1":
        try:
            return parquet.read_table(path)
        except DataError as error:
            raise InputError(error.what, where=path) from error
    head = data.split(b"\n", 1)[0]
    mark = delimiter or max("\t,;", key=lambda one: head.count(one.encode()))
    names = head.decode("utf-8-sig", "replace").rstrip("\r").split(mark)
    try:
        return pa_csv.read_csv(
            pa.BufferReader(data),
            read_options=pa_csv.ReadOptions(use_threads=False),
            parse_options=pa_csv.ParseOptions(delimiter=mark, newlines_in_values=True),
            # Everything is text: a class called 01 stays 01.
            convert_options=pa_csv.ConvertOptions(
                column_types={name.strip('"'): pa.string() for name in names}, strings_can_be_null=False
            ),
        )
    except (pa.ArrowException, UnicodeDecodeError) as error:
        what = str(error).splitlines()[0]
        raise InputError(f"the table does not parse ({what})", where=path, fix="check delimiter and quotes") from error


def _key_column(table: pa.Table, columns: TableColumns, path: str) -> tuple[str, bool]:
    names = table.column_names
    if columns.file is not None or _FILE in names:
        wanted = columns.file or _FILE
        if wanted not in names:
            raise InputError(f"there is no column {wanted!r}; it has {', '.join(names)}", where=path)
        return wanted, False
    if _WELL in names:
        return _WELL, True
    what = f"there is no column 'file' or 'well'; it has {', '.join(names)}"
    raise InputError(what, where=path, fix="name the column of file names with --file-column")


def _column(table: pa.Table, name: str, asked: str | None, path: str) -> list[str | None] | None:
    """A column as text, empty as None; the one of that name where none is asked for."""
    wanted = asked or name
    if wanted not in table.column_names:
        if asked is not None:
            raise InputError(f"there is no column {asked!r}; it has {', '.join(table.column_names)}", where=path)
        return None
    return [_text(value) or None for value in table[wanted].to_pylist()]


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _check_inside(name: str, path: str) -> None:
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        fix = "write it as the path below the folder of images, or of masks"
        raise InputError(f"{name!r} leads out of its folder", where=path, fix=fix)
