"""Motifs as count matrices, read from JASPAR, TRANSFAC and MEME text, plain or gzipped, told apart by content.

Formats: JASPAR 2024 (https://jaspar.elixir.no/docs, "Matrix profiles": `>id name`, then a line of counts for each of A,
C, G, T, with or without the letter and brackets); TRANSFAC (`AC`, `ID`, `P0` or `PO` and numbered lines, `//`); MEME
motif format 4 and later (https://meme-suite.org/meme/doc/meme-format.html: `MOTIF id name`, then
`letter-probability matrix:` and its lines).
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.errors import InputError

LETTERS = "ACGT"
MOST_WIDTH = 100
MOST_BYTES = 256 << 20
_DEFAULT_SITES = 20.0
_number = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_setting = re.compile(r"(\w+)=\s*(\S+)")
Line = tuple[int, str]


@dataclass(frozen=True, eq=False)
class Motif:
    """Attributes:
    id: such as MA0108.3.
    name: such as TBP; the id where there is none.
    counts: (W, 4) float64, how often A, C, G, T stands at each place.
    """

    id: str
    name: str
    counts: npt.NDArray[np.float64]

    @property
    def width(self) -> int:
        """Letters it covers."""
        return len(self.counts)

    @property
    def consensus(self) -> str:
        """The most frequent letter of every place."""
        return "".join(LETTERS[place] for place in self.counts.argmax(axis=1))


def read_motifs(path: str | Path) -> list[Motif]:
    """All motifs of a file, in its order.

    Raises:
        InputError: not readable, of no known format, a matrix that does not hold together, or an id twice.
    """
    lines = _lines(Path(path))
    first = next((line.strip() for _, line in lines if line.strip()), "")
    if first.startswith(">"):
        found = _jaspar(lines, str(path))
    elif first.startswith("MEME version"):
        found = _meme(lines, str(path))
    elif re.match(r"(AC|VV|XX|ID|NA)\b", first):
        found = _transfac(lines, str(path))
    else:
        what = "it is none of JASPAR (> ...), TRANSFAC (AC ...) and MEME (MEME version ...)"
        raise InputError(what, where=str(path), fix="give a motif file of one of these formats")
    motifs = list(found)
    if not motifs:
        raise InputError("the file holds no motif", where=str(path), fix="give a file with motifs")
    known: set[str] = set()
    for one in motifs:
        if one.id in known:
            raise InputError(f"motif {one.id} stands twice", where=str(path), fix="remove one of them")
        known.add(one.id)
    return motifs


def _lines(path: Path) -> list[Line]:
    try:
        with path.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
        if data[:2] == b"\x1f\x8b":
            with gzip.open(path) as packed:
                data = packed.read(MOST_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"the motif file cannot be read ({error})", where=str(path), fix="check the file") from error
    if len(data) > MOST_BYTES:
        what = f"the motif file is larger than {MOST_BYTES >> 20} MiB"
        raise InputError(what, where=str(path), fix="choose motifs")
    return list(enumerate(text.splitlines(), start=1))


def _motif(name: str, told: str, counts: Sequence[Sequence[float]], where: str) -> Motif:
    if not name:
        raise InputError("a motif has no id", where=where, fix="name it")
    if not 1 <= len(counts) <= MOST_WIDTH:
        what = f"motif {name} has {len(counts)} places, wanted are 1 to {MOST_WIDTH}"
        raise InputError(what, where=where, fix="mend or remove it")
    matrix = np.array(counts, np.float64)
    if not np.isfinite(matrix).all() or (matrix < 0).any() or (matrix.sum(axis=1) <= 0).any():
        what = f"motif {name} has a count below 0 or a place without any"
        raise InputError(what, where=where, fix="mend or remove it")
    return Motif(name, told or name, matrix)


def _numbers(text: str, where: str, *, count: int | None = None) -> list[float]:
    words = text.replace("[", " ").replace("]", " ").split()
    if not words or not all(_number.fullmatch(word) for word in words) or (count is not None and len(words) != count):
        what = f"{'numbers' if count is None else f'{count} numbers'} are expected, found {text.strip()[:60]!r}"
        raise InputError(what, where=where, fix="mend the line")
    return [float(word) for word in words]


def _jaspar(lines: Sequence[Line], path: str) -> Iterator[Motif]:
    left = [(number, line.strip()) for number, line in lines if line.strip()]
    for at in range(0, len(left), 5):
        number, head = left[at]
        where = f"{path} line {number}"
        if not head.startswith(">") or len(left) < at + 5:
            raise InputError("a line > and four lines of counts are expected", where=where, fix="mend the file")
        rows = []
        for letter, (place, line) in zip(LETTERS, left[at + 1 : at + 5], strict=True):
            if line[0].isalpha() and line[0].upper() != letter:
                fix = "put the lines in the order A, C, G, T"
                raise InputError(f"the counts of {letter} are expected", where=f"{path} line {place}", fix=fix)
            rows.append(_numbers(line[1:] if line[0].isalpha() else line, f"{path} line {place}"))
        if len({len(row) for row in rows}) > 1:
            raise InputError("the four lines have different lengths", where=where, fix="mend the file")
        name, _, told = head[1:].strip().partition("\t" if "\t" in head else " ")
        yield _motif(name.strip(), told.strip(), list(zip(*rows, strict=True)), where)


def _transfac(lines: Sequence[Line], path: str) -> Iterator[Motif]:
    name = told = ""
    counts: list[list[float]] = []
    inside, begun = False, 0
    for number, line in lines:
        key, _, rest = line.strip().partition(" ") if " " in line.strip() else line.strip().partition("\t")
        where = f"{path} line {number}"
        if key == "AC":
            name, told, counts, inside, begun = rest.strip(), "", [], False, number
        elif key == "ID":
            told = rest.strip()
        elif key.split("\t")[0] in ("P0", "PO"):
            letters = line.split()[1:5]
            if letters != list(LETTERS):
                raise InputError("columns A, C, G, T are expected", where=where, fix="mend the file")
            inside = True
        elif inside and line[:2].strip().isdigit():
            counts.append(_numbers(" ".join(line.split()[1:5]), where, count=4))
        elif line.strip() == "//":
            if counts or name:
                yield _motif(name or told, told, counts, f"{path} line {begun or number}")
            name, told, counts, inside = "", "", [], False
    if name or counts:
        raise InputError("the last motif has no end (//)", where=path, fix="copy or download the file again")


def _meme(lines: Sequence[Line], path: str) -> Iterator[Motif]:
    name = told = ""
    at = 0
    while at < len(lines):
        number, line = lines[at]
        at += 1
        where = f"{path} line {number}"
        if line.startswith("ALPHABET=") and line.removeprefix("ALPHABET=").strip().upper() != LETTERS:
            raise InputError(f"motifs of DNA are expected, found {line.strip()}", where=where, fix="give DNA motifs")
        if line.startswith("MOTIF"):
            name, _, told = line.removeprefix("MOTIF").strip().partition(" ")
        if line.startswith("letter-probability matrix"):
            given = dict(_setting.findall(line))
            try:
                width, sites = int(given["w"]), float(given.get("nsites", _DEFAULT_SITES))
            except (KeyError, ValueError):
                raise InputError("the matrix does not say its width, w=", where=where, fix="mend the line") from None
            rows = lines[at : at + width]
            if len(rows) < width or sites <= 0:
                raise InputError(f"{width} lines and some sites are expected", where=where, fix="mend the file")
            shares = [_numbers(text, f"{path} line {place}", count=4) for place, text in rows]
            at += width
            yield _motif(name, told.strip(), [[share * sites for share in row] for row in shares], where)
            name = told = ""
