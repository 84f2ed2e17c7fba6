"""attributions.zarr: an array of attributions and one of letters, a row per explained record, written shard by shard.

    attributions   float32 (record, output, letter, position), NaN past a sequence's end and for records not explained
    letters        uint8 (record, position), the number of the letter in the group's attribute `letters`; that many or
                   more for an unknown one, 255 past the end

Every chunk ends in its CRC-32C (engine/io/_zarr_shards.py). Shard i of the plan writes shard i of both arrays.

Shape letters: N records, K outputs, A letters, L positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.io._zarr_shards import ArraySpec, encode_chunks, json_text, shard_bytes

STORE = "attributions.zarr"
PAST_END = 255
_CHUNK_BYTES = 1 << 20
_NAN = "NaN"


@dataclass(frozen=True)
class StoreShape:
    """Attributes:
    outputs, letters: how many.
    length: of the longest sequence.
    records_per_shard: rows of a shard, a multiple of those of a chunk.
    records_per_chunk: rows of a chunk.
    """

    outputs: int
    letters: int
    length: int
    records_per_shard: int
    records_per_chunk: int

    @classmethod
    def of(cls, *, outputs: int, letters: int, length: int, records: int, letters_per_shard: int) -> StoreShape:
        """Shards of about so many records and letters, chunks of about 1 MiB."""
        chunk = max(1, _CHUNK_BYTES // (4 * outputs * letters * length))
        chunk = 1 << min(chunk, records).bit_length() - 1
        shard = max(1, min(records, letters_per_shard // (outputs * length)))
        return cls(outputs, letters, length, max(1, shard // chunk) * chunk, chunk)

    def specs(self) -> tuple[ArraySpec, ArraySpec]:
        """Both arrays."""
        rows, per_shard = self.records_per_chunk, self.records_per_shard // self.records_per_chunk
        wide = (self.outputs, self.letters, self.length)
        names = ("record", "output", "letter", "position")
        return (
            ArraySpec("attributions", "float32", names, wide, (rows, *wide), per_shard, _NAN),
            ArraySpec("letters", "uint8", (names[0], names[3]), wide[2:], (rows, self.length), per_shard, PAST_END),
        )

    def shard_files(self, shard: int, values: NDArray[np.float32], letters: NDArray[np.uint8]) -> dict[str, bytes]:
        """Files of one shard, path below the output to bytes.

        Args:
            shard: its number.
            values: (N, K, A, L).
            letters: (N, L).
        """
        made = {}
        blocks: Sequence[NDArray[Any]] = (values, letters)
        for spec, rows in zip(self.specs(), blocks, strict=True):
            chunks: list[bytes] = []
            for at in range(0, len(rows), self.records_per_chunk):
                part = rows[at : at + self.records_per_chunk]
                chunks += encode_chunks(spec, part, len(part))
            key = "/".join(map(str, (shard, *(0 for _ in spec.row_shape))))
            made[f"{STORE}/{spec.name}/c/{key}"] = shard_bytes(chunks, spec)
        return made

    def metadata(self, records: int, attributes: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
        """(path below the output, bytes) of the group and of each array."""
        content = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
        yield f"{STORE}/zarr.json", json_text(content)
        for spec in self.specs():
            yield f"{STORE}/{spec.name}/zarr.json", json_text(spec.metadata(records))
