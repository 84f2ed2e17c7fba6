"""Several inputs taken as one, in the order they are given; plan offsets carry the input's number in their top bits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from engine.errors import InputError
from engine.io._sequence_rows import RawSequences, Watcher
from engine.io.sequences import SequenceSource
from engine.io.source import RawRecord, Scan, Shard

# A BGZF virtual offset of a file below 2^40 bytes has 56 bits.
_OFFSET_BITS = 56
_OFFSETS = (1 << _OFFSET_BITS) - 1
MAX_INPUTS = 1 << 64 - _OFFSET_BITS


class JoinedSequences:
    """Inputs of any kinds and columns; no shard holds records of two.

    Args:
        open_one: opens the input of a number.
        paths: local paths of the inputs.
        watch: called in `scan` with every batch, in order, records counted over all inputs.
    """

    def __init__(
        self,
        open_one: Callable[[int, Watcher | None], SequenceSource],
        paths: Sequence[str],
        *,
        watch: Watcher | None = None,
    ) -> None:
        if len(paths) > MAX_INPUTS:
            raise InputError(f"{len(paths)} inputs; {MAX_INPUTS} are the most", where=paths[0], fix="join them first")
        self.path = paths[0]
        self.paths = list(paths)
        self._watch = watch
        self._before = 0
        self.sources = [open_one(i, self._pass_on if watch is not None else None) for i in range(len(paths))]

    def has(self, part: str) -> bool:
        """Whether a column of any input plays this part."""
        return any(part in source.columns.parts for source in self.sources)

    def _pass_on(self, raw: RawSequences) -> None:
        assert self._watch is not None
        self._watch(replace(raw, first_record=raw.first_record + self._before))

    def scan(
        self,
        *,
        records_per_shard: int,
        bytes_per_shard: int,
        on_record: Callable[[RawRecord], None] | None = None,  # noqa: ARG002 (of variants alone)
        on_record_limit: int = 0,  # noqa: ARG002
    ) -> Scan:
        """See `sequences.SequenceSource.scan`; the digest of several inputs is over theirs."""
        shards: list[Shard] = []
        scans: list[Scan] = []
        self._before = 0
        for i, source in enumerate(self.sources):
            found = source.scan(records_per_shard=records_per_shard, bytes_per_shard=bytes_per_shard)
            base = i << _OFFSET_BITS
            for one in found.shards:
                if one.end > _OFFSETS:
                    raise InputError("the file is longer than a plan can say", where=source.path, fix="split it")
                first = one.first_record + self._before
                moved = replace(one, shard=len(shards), begin=base | one.begin, end=base | one.end, first_record=first)
                shards.append(moved)
            self._before += found.num_records
            scans.append(found)
        digest = scans[0].digest if len(scans) == 1 else _joined_digest([one.digest for one in scans])
        return Scan(shards, self._before, digest, {}, [note for one in scans for note in one.notes])

    def read(self, shard: Shard) -> RawSequences:
        """See `sequences.SequenceSource.read`."""
        source = self.sources[shard.begin >> _OFFSET_BITS]
        return source.read(replace(shard, begin=shard.begin & _OFFSETS, end=shard.end & _OFFSETS))


def _joined_digest(digests: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
