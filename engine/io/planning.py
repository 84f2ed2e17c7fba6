"""Cutting a plan while the input streams past: shards by record count and bytes, order check, exact counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from engine.errors import DataError, InputError
from engine.io.regions import RegionSet
from engine.io.source import RawRecord, Scan, Shard


class Planner:
    """Takes records in input order, in runs of one contig, and cuts them into shards.

    Positions in the stream count uncompressed bytes read so far; they decide where to cut. `locate` turns such a
    position into the offset stored in the plan. A shard's span includes unselected records between its first and its
    last, as its reader must stream past them.

    Args:
        path: the input, for messages.
        records_per_shard, bytes_per_shard: limits of a shard; one record may be longer.
        how_to_sort: what mends an input of this kind that is out of order.
    """

    def __init__(self, path: str, *, records_per_shard: int, bytes_per_shard: int, how_to_sort: str) -> None:
        if records_per_shard < 1 or bytes_per_shard < 1:
            raise InputError("shards must hold at least one record and one byte", where="records_per_shard")
        self.contigs: dict[str, int] = {}
        self.num_records = 0
        self._path = path
        self._how_to_sort = how_to_sort
        self._records_per_shard = records_per_shard
        self._bytes_per_shard = bytes_per_shard
        self._shards: list[Shard] = []
        self._contig: str | None = None
        self._start = 0
        self._clear()

    def _clear(self) -> None:
        self._count = 0
        self._base = 0
        self._begin = self._end = 0
        self._first: tuple[str | None, int | None] = (None, None)
        self._last: tuple[str | None, int | None] = (None, None)

    def add(
        self,
        contig: str | None,
        starts: Sequence[int | None],
        *,
        marks: npt.NDArray[np.int64],
        locate: Callable[[int], int],
    ) -> None:
        """Add a run of records that follow one another in the stream.

        Args:
            contig: their contig; None for lines that do not parse, which take no part in the order check.
            starts: 0-based starts, one per record.
            marks: int64 (len(starts) + 1,): stream position where each record begins, then where the last one ends.
            locate: stream position to plan offset.

        Raises:
            InputError: out of order.
        """
        if contig is not None:
            self._check_order(contig, [start for start in starts if start is not None])
            self.contigs[contig] = self.contigs.get(contig, 0) + len(starts)
        done = 0
        while done < len(starts):
            done = self._take(contig, starts, done, marks=marks, locate=locate)

    def _take(
        self,
        contig: str | None,
        starts: Sequence[int | None],
        done: int,
        *,
        marks: npt.NDArray[np.int64],
        locate: Callable[[int], int],
    ) -> int:
        """Put as many records as fit into the open shard; return the index of the first that did not."""
        if not self._count:
            self._base = int(marks[done])
            self._begin = locate(self._base)
            self._first = (contig, starts[done])
        fits = int(np.searchsorted(marks, self._base + self._bytes_per_shard, side="right")) - 1
        upto = min(len(starts), done + self._records_per_shard - self._count, fits)
        if not self._count:
            upto = max(upto, done + 1)
        if upto > done:
            self._count += upto - done
            self.num_records += upto - done
            self._end = locate(int(marks[upto]))
            self._last = (contig, starts[upto - 1])
        if upto < len(starts) or self._count == self._records_per_shard:
            self._close()
        return max(upto, done)

    def _close(self) -> None:
        if self._count:
            self._shards.append(
                Shard(
                    shard=len(self._shards),
                    begin=self._begin,
                    end=self._end,
                    num_records=self._count,
                    first_record=self.num_records - self._count,
                    contig=self._first[0],
                    start=self._first[1],
                    last_contig=self._last[0],
                    last_start=self._last[1],
                )
            )
        self._clear()

    def _check_order(self, contig: str, starts: list[int]) -> None:
        if contig != self._contig:
            if contig in self.contigs:
                self._refuse(0, contig, starts[0], f"contig {contig!r} was left earlier in the file")
            self._contig, self._start = contig, 0
        if starts[0] < self._start or starts != sorted(starts):
            before = [self._start, *starts]
            index = next(i for i, start in enumerate(starts) if start < before[i])
            self._start = before[index]
            self._refuse(index, contig, starts[index], "positions must not go down")
        self._start = starts[-1]

    def _refuse(self, index: int, contig: str, start: int, why: str) -> None:
        raise InputError(
            f"record {self.num_records + index} (counted from 0) at {contig}:{start + 1} comes after "
            f"{self._contig}:{self._start + 1}, and {why}",
            where=self._path,
            fix=f"sort it: {self._how_to_sort}",
        )

    def finish(self, digest: str, notes: list[str]) -> Scan:
        """Close the last shard and return the plan."""
        self._close()
        return Scan(
            shards=self._shards, num_records=self.num_records, digest=digest, contigs=dict(self.contigs), notes=notes
        )


def check_contigs(path: str, regions: RegionSet, known: set[str]) -> list[str]:
    """Notes on region contigs that the input does not have; InputError where it has none of them."""
    asked = list(dict.fromkeys(region.contig for region in regions))
    absent = [contig for contig in asked if contig not in known]
    if not known or not absent:
        return []
    shown, have = ", ".join(map(repr, absent[:5])), ", ".join(map(repr, sorted(known)[:5]))
    if len(absent) == len(asked):
        raise InputError(
            f"the input has none of the regions' contigs ({shown}); it has {have}",
            where=path,
            fix="write the regions with the input's contig names",
        )
    return [f"regions on contigs the input does not have: {shown}"]


@contextmanager
def as_data_error() -> Iterator[None]:
    """A block that was whole when planned and is not now is a fault of the shard, not of the user's request."""
    try:
        yield
    except InputError as error:
        raise DataError(error.what, where=error.where, fix=error.fix) from error


def check_shard(path: str, shard: Shard, records: Sequence[RawRecord]) -> None:
    """Raise DataError unless the records are as many as planned, and the first and last lie where planned."""
    sites = [(item.record.contig, item.record.start) if item.record else (None, None) for item in records]
    planned = [(shard.contig, shard.start), (shard.last_contig, shard.last_start)]
    if len(records) != shard.num_records or [sites[0], sites[-1]] != planned:
        raise DataError(
            f"the plan has {shard.num_records} records here and the file now has {len(records)}, or others",
            where=f"{path} shard {shard.shard}",
            fix="the input changed after it was planned; start again into a new output folder",
        )
