"""Sequences and what is known of them, read from FASTA, FASTQ, delimited tables, Parquet, or places on a reference.

The format is told by what the file holds, not by its name. One streamed pass cuts the plan and hands every batch of
records to whoever watches; a shard is read again on its own. Reading checks only that the text is a record of its
format: what may be kept is decided later, from the same rows in the same order.
"""

from __future__ import annotations

import csv
import hashlib
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from engine.errors import InputError, SystemFailure
from engine.genome.reference import ReferenceGenome
from engine.io import bgzf
from engine.io._sequence_columns import BED_COLUMNS, Columns, Layout, find_columns
from engine.io._sequence_features import feature_format, looks_like_features
from engine.io._sequence_parquet import ParquetSequences
from engine.io._sequence_rows import (
    Fill,
    RawSequences,
    Signals,
    Watcher,
    Windows,
    WindowShape,
    check_count,
    most_windows,
    raw_sequences,
    refuse_none,
)
from engine.io.planning import Planner, as_data_error
from engine.io.sequence_text import FastaFormat, FastqFormat, Format, LinesFormat, Parsed
from engine.io.source import Plannable, RawRecord, Scan, Shard
from engine.io.streams import BgzfStorage, Joiner, OnRaw, PlainStorage, Storage

MAX_RECORD_BYTES = 512 << 20
_BATCH_BYTES = 1 << 20
_SNIFF_BYTES = 1 << 16
_PARQUET = b"PAR1"
_BOM = b"\xef\xbb\xbf"
_NO_BED = ("#", "track", "browser")
_HOW_TO_SORT = "any order will do"


class SequenceSource(Plannable, Protocol):
    """An opened input; the `on_record` of `scan` is for variants and is not called."""

    columns: Columns

    def read(self, shard: Shard) -> RawSequences:
        """The records of a shard.

        Raises:
            DataError: the range no longer holds what the plan says.
        """
        ...


def open_sequences(
    path: str | Path,
    layout: Layout,
    *,
    blocked: str | Path | None = None,
    reference: ReferenceGenome | None = None,
    shape: WindowShape | None = None,
    signals: Signals | None = None,
    fill: Fill | None = None,
    watch: Watcher | None = None,
) -> SequenceSource:
    """Open an input on a local path.

    Args:
        path: the input.
        layout: which columns to read, and how.
        blocked: where `path` is gzip without blocks: the same text as BGZF (`reblock`). Without it such a file can be
            scanned, to tell whether it is the one of a finished run, and its shards cannot be read.
        reference: takes the sequences from there, at the places that the rows name.
        shape: how windows lie at those places.
        signals: targets that tracks give there.
        fill: what no column of the input says.
        watch: called in `scan` with every batch, in order.

    Raises:
        InputError: not there, empty, of no known format, or without the columns asked for.
    """
    file = Path(blocked or path)
    prefix = _first_bytes(file)
    windows = None if reference is None else Windows(reference, shape or WindowShape(), signals or Signals())
    if prefix.startswith(_PARQUET):
        return ParquetSequences(str(path), layout, windows=windows, fill=fill, watch=watch)
    storage: Storage = PlainStorage()
    if bgzf.is_bgzf(prefix):
        bgzf.check_end_marker(file)
        storage, prefix = BgzfStorage(), _inflated_prefix(file)
    elif bgzf.is_gzip(prefix):
        storage, prefix = _GzipStorage(), _gunzipped_prefix(file)
    if not prefix.strip():
        raise InputError("the file is empty", where=str(path), fix="check how it was made")
    form, columns, begin = _text_format(prefix, layout, str(path), windows=windows is not None)
    return TextSequences(
        str(path), file, storage, form, columns=columns, header_bytes=begin, windows=windows, fill=fill, watch=watch
    )


def needs_blocks(path: str | Path) -> bool:
    """Whether a file is gzip that cannot be entered in the middle."""
    prefix = _first_bytes(Path(path))
    return bgzf.is_gzip(prefix) and not bgzf.is_bgzf(prefix)


def reblock(path: str | Path, out: str | Path) -> None:
    """Write the text of a gzip file (any number of members) as BGZF.

    Raises:
        InputError: the file is cut or corrupt.
    """
    held = b""
    with Path(out).open("wb") as stream:
        for piece in _gunzip(Path(path)):
            held += piece
            whole = len(held) // bgzf.BLOCK_BYTES * bgzf.BLOCK_BYTES
            stream.write(bgzf.compress(held[:whole]))
            held = held[whole:]
        stream.write(bgzf.compress(held) + bgzf.EOF)


def spool(stream: BinaryIO, path: str | Path) -> None:
    """Write standard input to a file, as it is.

    Raises:
        SystemFailure: the file cannot be written.
    """
    try:
        with Path(path).open("wb") as out:
            shutil.copyfileobj(stream, out, _BATCH_BYTES)
    except OSError as error:
        what = f"standard input cannot be put aside ({error.strerror or error})"
        raise SystemFailure(what, where=str(path), fix="free some space") from error


def _gunzip(path: Path) -> Iterator[bytes]:
    inflater = zlib.decompressobj(31)
    with path.open("rb") as stream:
        while data := stream.read(_SNIFF_BYTES):
            while data:
                try:
                    yield inflater.decompress(data)
                except zlib.error as error:
                    fix = "copy or download the file again"
                    raise InputError(f"the gzip file is corrupt ({error})", where=str(path), fix=fix) from error
                data = inflater.unused_data
                if inflater.eof:
                    inflater = zlib.decompressobj(31)
                    data = data.lstrip(b"\0")  # padding after the last member is allowed
                    if not data and not stream.peek(1):
                        return
    raise InputError("the gzip file is cut short", where=str(path), fix="copy or download the file again")


def _first_bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            prefix = stream.read(_SNIFF_BYTES)
    except OSError as error:
        what = f"the input cannot be read ({error.strerror or error})"
        raise InputError(what, where=str(file), fix="check the path") from error
    if not prefix:
        raise InputError("the file is empty", where=str(file), fix="check how it was made")
    return prefix


class _GzipStorage:
    """Gzip without blocks: read from its beginning, or not at all."""

    def blocks(
        self, path: Path, begin: int, end: int | None = None, *, on_raw: OnRaw | None = None
    ) -> Iterator[bgzf.Block]:
        """See `streams.Storage.blocks`; offsets are those of the text."""
        if begin or end is not None:
            raise InputError("gzip without blocks cannot be entered", where=str(path), fix="recompress it with bgzip")
        if on_raw is not None:
            _feed(path, on_raw)
        for data in _gunzip(path):
            yield begin, data, begin + len(data)
            begin += len(data)

    def whole_before(self, offset: int) -> int:
        """See `streams.Storage.whole_before`."""
        return offset


def _gunzipped_prefix(file: Path) -> bytes:
    held = b""
    for piece in _gunzip(file):
        held += piece
        if len(held) >= _SNIFF_BYTES:
            break
    return held


def _inflated_prefix(file: Path) -> bytes:
    held = b""
    for _, data, _ in bgzf.read_blocks(file):
        held += data
        if len(held) >= _SNIFF_BYTES:
            break
    return held


def _text_format(prefix: bytes, layout: Layout, path: str, *, windows: bool) -> tuple[Format, Columns, int]:
    """The format, which columns play which part, and the bytes of the header line."""
    text = prefix.removeprefix(_BOM).lstrip()
    if b"\0" in prefix:
        what = "it is no text: none of FASTA, FASTQ, CSV, TSV, BED or Parquet"
        raise InputError(what, where=path, fix="check the path and how the file was made")
    if text[:1] in (b">", b"@"):
        _refuse_columns(layout, path, "FASTA" if text[:1] == b">" else "FASTQ")
        roles = {"id": "id", "sequence": "sequence"} | ({"label": "label"} if layout.label_pattern else {})
        roles |= {"group": "group"} if layout.group_pattern else {}
        form = (FastaFormat if text[:1] == b">" else FastqFormat)(layout.label_pattern, layout.group_pattern)
        return form, Columns(roles), 0
    return _lines_format(prefix, layout, path, windows=windows)


def _refuse_columns(layout: Layout, path: str, kind: str) -> None:
    named = layout.named_columns()
    if named:
        what = f"{kind} has no columns, yet {', '.join(named)} is asked for"
        raise InputError(what, where=path, fix="give a labels table joined by id, or a label pattern")


def _lines_format(prefix: bytes, layout: Layout, path: str, *, windows: bool) -> tuple[Format, Columns, int]:
    if layout.label_pattern:
        fix = "name a column instead"
        raise InputError("a label pattern is for header lines, and this is a table", where=path, fix=fix)
    comments = _NO_BED if windows or prefix.startswith(b"##gff-version") else ()
    begin, line = _first_line(prefix, comments)
    delimiter = layout.delimiter or _guess_delimiter(line, layout.columns)
    fields = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    if looks_like_features(fields) and not layout.columns:
        if not windows:
            raise InputError("it is GTF or GFF3, which holds places alone", where=path, fix="give the reference too")
        form, columns = feature_format(prefix, layout, path)
        return form, columns, 0
    is_bed = windows and not layout.columns and len(fields) >= 3 and fields[1].isdecimal() and fields[2].isdecimal()
    if layout.columns or is_bed:
        names = list(layout.columns) or [*BED_COLUMNS, *(f"column_{i + 1}" for i in range(len(BED_COLUMNS), 99))]
        names = names[: len(fields)] if is_bed else names
    else:
        fields[0] = fields[0].lstrip("#").lstrip()
        names, begin = fields, begin + len(line.encode()) + 1
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two columns are named {twice!r}", where=path, fix="rename one, or give columns")
    columns = find_columns(names, layout, path, windows=windows)
    wanted = tuple(dict.fromkeys(columns.all_names()))
    return LinesFormat(tuple(names), wanted, delimiter, comments if is_bed else ()), columns, begin


def _first_line(prefix: bytes, comments: Sequence[str]) -> tuple[int, str]:
    """(where it begins, the first line that says something)."""
    at = len(_BOM) if prefix.startswith(_BOM) else 0
    for raw in prefix[at:].splitlines(keepends=True):
        line = raw.decode("utf-8", "replace")
        is_comment = any(line.startswith(word) for word in comments) and "\t" not in line
        if line.strip() and not is_comment:
            return at, raw.rstrip(b"\n").decode("latin-1").rstrip("\r") if raw.isascii() else line.rstrip("\r\n")
        at += len(raw)
    return at, ""


def _guess_delimiter(line: str, columns: Sequence[str]) -> str:
    """The one that gives as many fields as there are names; else TAB where there is one, then comma, then semicolon."""
    known = ("\t", ",", ";")
    for delimiter in known if columns else ():
        if line.count(delimiter) == len(columns) - 1:
            return delimiter
    return next((delimiter for delimiter in known if delimiter in line), ",")


class TextSequences:
    """FASTA, FASTQ or lines, plain or BGZF."""

    def __init__(
        self,
        path: str,
        file: Path,
        storage: Storage,
        form: Format,
        *,
        columns: Columns,
        header_bytes: int = 0,
        windows: Windows | None = None,
        fill: Fill | None = None,
        watch: Watcher | None = None,
    ) -> None:
        self.path = path
        self.columns = columns
        self._file = file
        self._storage = storage
        self._form = form
        self._header_bytes = header_bytes
        self._windows = windows
        self._fill = fill or Fill()
        self._watch = watch

    def scan(
        self,
        *,
        records_per_shard: int,
        bytes_per_shard: int,
        on_record: Callable[[RawRecord], None] | None = None,  # noqa: ARG002 (of variants alone)
        on_record_limit: int = 0,  # noqa: ARG002
    ) -> Scan:
        """See `SequenceSource.scan`; the digest is that of the file's own bytes."""
        most = most_windows(self._windows, bytes_per_shard)
        planner = Planner(
            self.path,
            records_per_shard=min(records_per_shard, most),
            bytes_per_shard=bytes_per_shard,
            how_to_sort=_HOW_TO_SORT,
        )
        digest = hashlib.sha256()
        own = self._file == Path(self.path)
        blocks = self._storage.blocks(self._file, 0, on_raw=digest.update if own else None)
        for parsed, base, locate in self._batches(blocks):
            num = parsed.num_records
            if num and self._watch is not None:
                self._watch(
                    raw_sequences(planner.num_records, parsed, self.columns, windows=self._windows, fill=self._fill)
                )
            if num:
                planner.add(None, [None] * num, marks=parsed.marks + base, locate=locate)
        if not own:
            _feed(Path(self.path), digest.update)
        refuse_none(planner.num_records, self.path)
        return planner.finish(digest.hexdigest(), [])

    def _batches(self, blocks: Iterator[bgzf.Block]) -> Iterator[tuple[Parsed, int, Callable[[int], int]]]:
        """(records, stream position of their text, stream position to plan offset)."""
        joiner, skip, wanted = Joiner(), self._header_bytes, _BATCH_BYTES
        for block in blocks:
            joiner.push(block)
            if joiner.size < max(wanted, skip):
                continue
            found = self._take(joiner, skip, final=False)
            if found is not None:
                yield found
                skip, wanted = 0, _BATCH_BYTES
            else:
                wanted = 2 * joiner.size
                self._check_size(joiner.size)
        if joiner.size > skip and (found := self._take(joiner, skip, final=True)) is not None:
            yield found

    def _check_size(self, size: int) -> None:
        if size > MAX_RECORD_BYTES:
            raise InputError(
                f"a record is longer than {MAX_RECORD_BYTES >> 20} MiB, or the text from there on is of another format",
                where=self.path,
                fix="cut long sequences into windows first",
            )

    def _take(self, joiner: Joiner, skip: int, *, final: bool) -> tuple[Parsed, int, Callable[[int], int]] | None:
        """The whole records that the joiner holds past `skip`; None where there is none yet."""
        whole = joiner.joined()
        data = whole[skip:] if skip else whole
        ending = b"\n" if final and not data.endswith(b"\n") else b""
        parsed = self._form.parse(data + ending, final=final)
        used = joiner.size if final else skip + int(parsed.marks[-1])
        if used <= skip:
            return None
        parsed = replace(parsed, marks=np.minimum(parsed.marks, len(data)) + skip)
        batch = joiner.take(used)
        return parsed, batch.base, batch.locate

    def read(self, shard: Shard) -> RawSequences:
        """See `SequenceSource.read`."""
        with as_data_error():
            data = b"".join(block[1] for block in self._storage.blocks(self._file, shard.begin, shard.end))
        ending = b"" if data.endswith(b"\n") else b"\n"
        parsed = self._form.parse(data + ending, final=True)
        check_count(self.path, shard, parsed.num_records)
        with as_data_error():
            return raw_sequences(shard.first_record, parsed, self.columns, windows=self._windows, fill=self._fill)


def _feed(path: Path, on_raw: Callable[[bytes], object]) -> None:
    for _ in PlainStorage().blocks(path, 0, on_raw=on_raw):
        pass
