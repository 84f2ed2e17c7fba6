"""bigWig files written by code from the published format, small enough for their numbers to be known.

write_bigwig(path, {"chr1": 1000}, [Section("chr1", "bedGraph", [(3, 7, 1.5)])])
Sections may be "bedGraph" (start, end, value), "variableStep" (start, value; span) or "fixedStep" (value; start, step,
span). The index has two levels, so that readers have to walk it; there is no summary and no zoom level.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

KINDS = {"bedGraph": 1, "variableStep": 2, "fixedStep": 3}
_PER_NODE = 2


@dataclass(frozen=True)
class Section:
    """One block of data."""

    contig: str
    kind: str
    items: Sequence[tuple]
    start: int = 0
    step: int = 1
    span: int = 1

    def intervals(self) -> list[tuple[int, int, float]]:
        """(start, end, value)."""
        if self.kind == "bedGraph":
            return [tuple(item) for item in self.items]
        if self.kind == "variableStep":
            return [(start, start + self.span, value) for start, value in self.items]
        places = [self.start + i * self.step for i in range(len(self.items))]
        return [(place, place + self.span, value) for place, (value,) in zip(places, self.items, strict=True)]


def write_bigwig(
    path: Path, contigs: Mapping[str, int], sections: Sequence[Section], *, order: str = "<", packed: bool = True
) -> Path:
    """Sections in the order of their places; `order` is that of the bytes."""
    numbers = {name: i for i, name in enumerate(contigs)}
    header_size = 64
    tree = _contig_tree(contigs, numbers, order)
    data_at = header_size + len(tree)
    body, leaves = struct.pack(order + "Q", len(sections)), []
    for one in sections:
        block = _block(one, numbers[one.contig], order)
        raw = zlib.compress(block) if packed else block
        spans = one.intervals()
        bounds = (numbers[one.contig], spans[0][0], numbers[one.contig], spans[-1][1])
        leaves.append((*bounds, data_at + len(body), len(raw)))
        body += raw
    index_at = data_at + len(body)
    header = struct.pack(
        order + "IHHQQQHHQQIQ", 0x888FFC26, 4, 0, header_size, data_at, index_at, 0, 0, 0, 0, (1 << 15) * packed, 0
    )
    path.write_bytes(header + tree + body + _index(leaves, index_at, order))
    return path


def _contig_tree(contigs: Mapping[str, int], numbers: Mapping[str, int], order: str) -> bytes:
    key = max(map(len, contigs))
    names = sorted(contigs)
    leaf = struct.pack(order + "BBH", 1, 0, len(names))
    for name in names:
        leaf += struct.pack(order + f"{key}sII", name.encode(), numbers[name], contigs[name])
    return struct.pack(order + "IIIIQQ", 0x78CA8C91, len(names), key, 8, len(names), 0) + leaf


def _block(one: Section, number: int, order: str) -> bytes:
    spans = one.intervals()
    form = {"bedGraph": "IIf", "variableStep": "If", "fixedStep": "f"}[one.kind]
    items = b"".join(struct.pack(order + form, *item) for item in one.items)
    bounds = (number, spans[0][0], spans[-1][1], one.step, one.span)
    return struct.pack(order + "IIIIIBBH", *bounds, KINDS[one.kind], 0, len(one.items)) + items


def _index(leaves: Sequence[tuple], at: int, order: str) -> bytes:
    groups = [leaves[i : i + _PER_NODE] for i in range(0, len(leaves), _PER_NODE)]
    bounds = (*leaves[0][:2], *max((leaf[2], leaf[3]) for leaf in leaves))
    head = struct.pack(order + "IIQIIIIQII", 0x2468ACE0, _PER_NODE, len(leaves), *bounds, at, 1, 0)
    root_size = 4 + 24 * len(groups)
    place, nodes = at + len(head) + root_size, b""
    root = struct.pack(order + "BBH", 0, 0, len(groups))
    for group in groups:
        last = max((leaf[2], leaf[3]) for leaf in group)
        root += struct.pack(order + "IIIIQ", *group[0][:2], *last, place + len(nodes))
        nodes += struct.pack(order + "BBH", 1, 0, len(group))
        nodes += b"".join(struct.pack(order + "IIIIQQ", *leaf) for leaf in group)
    return head + root + nodes
