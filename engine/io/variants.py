"""Opening variants by what the file holds, not by its name; and stdin put aside as a file first."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from engine.errors import InputError, SystemFailure
from engine.genome.reference import ReferenceGenome
from engine.io import bgzf
from engine.io.all_snvs import AllSnvs
from engine.io.bcf import BcfSource, is_bcf
from engine.io.file_index import find_index
from engine.io.regions import Region
from engine.io.source import VariantSource
from engine.io.variant_table import VariantTable
from engine.io.vcf import VcfSource

_SNIFF_BYTES = 1 << 16
_PARQUET = b"PAR1"
_VCF = (b"##", b"#CHROM")


def open_source(
    path: str | Path, reference: ReferenceGenome, *, regions: Sequence[Region], all_snvs: bool
) -> VariantSource:
    """What a run scores: the variants of a file, or every SNV of the regions, made from the reference.

    Args:
        path: the file of variants; not looked at for `all_snvs`.
        reference: the genome.
        regions: regions to keep, or to make SNVs of.
        all_snvs: whether SNVs are made.

    Raises:
        InputError: as `open_variants` and `AllSnvs`.
    """
    return AllSnvs(reference, regions=regions) if all_snvs else open_variants(path, regions=regions)


def open_variants(path: str | Path, *, regions: Sequence[Region] = ()) -> VariantSource:
    """Open a VCF (BGZF or plain), BCF or Parquet variant table on a local path.

    Raises:
        InputError: not there, empty, cut, gzipped without blocks, or none of these formats.
    """
    file = Path(path)
    prefix = _first_bytes(file)
    if not prefix:
        raise InputError("the file is empty", where=str(file), fix="check how it was made")
    if bgzf.is_bgzf(prefix):
        return _open_compressed(file, regions)
    if bgzf.is_gzip(prefix):
        raise InputError(
            "the file is gzip but not BGZF, so it cannot be entered in the middle",
            where=str(file),
            fix=f"recompress it: gunzip -c {file} | bgzip > {_stem(file)}.bgz",
        )
    if is_bcf(prefix):
        raise InputError(
            "the BCF is not compressed", where=str(file), fix=f"compress it: bcftools view -Ob -o out.bcf {file}"
        )
    if prefix.startswith(_PARQUET):
        return VariantTable(file, regions=regions)
    if prefix.startswith(_VCF):
        return VcfSource(file, compressed=False, regions=regions)
    raise _unknown(str(file))


def contig_opener(path: str | Path) -> Callable[[str], VariantSource] | None:
    """A way to open one contig of a VCF or BCF alone, by its index; None where it has none that can be used.

    Raises:
        InputError: the file cannot be read.
    """
    if not bgzf.is_bgzf(_first_bytes(Path(path))):
        return None
    try:
        index = find_index(Path(path))
    except InputError:  # older than the file; only who selects regions has to mind
        return None
    return None if index is None else lambda contig: open_variants(path, regions=[Region(contig)])


def _stem(file: Path) -> str:
    return str(file).removesuffix(".gz")


def _first_bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_SNIFF_BYTES)
    except OSError as error:
        raise InputError(
            f"the input cannot be read ({error.strerror or error})", where=str(file), fix="check the path"
        ) from error


def _open_compressed(file: Path, regions: Sequence[Region]) -> VariantSource:
    inner = next((data for _, data, _ in bgzf.read_blocks(file) if data), b"")
    if not inner:
        raise InputError("the file is empty (only a BGZF end marker)", where=str(file), fix="check how it was made")
    if is_bcf(inner):
        return BcfSource(file, regions=regions)
    if inner.startswith(_VCF):
        return VcfSource(file, compressed=True, regions=regions)
    raise _unknown(str(file))


def _unknown(name: str) -> InputError:
    return InputError(
        "it is none of VCF, BCF or Parquet (a VCF begins with ##fileformat)",
        where=name,
        fix="check the path and how the file was made",
    )


def spool(stream: BinaryIO, path: str | Path) -> None:
    """Write a stream (stdin) to a file that `open_variants` takes.

    BGZF and Parquet are copied as they are; plain text, plain gzip and uncompressed BCF become BGZF.

    Raises:
        InputError: an empty stream, one that is cut, or none of these formats.
        SystemFailure: the file cannot be written.
    """
    prefix = _read_up_to(stream, _SNIFF_BYTES)
    if not prefix:
        raise InputError("standard input is empty", where="-", fix="pipe a VCF or BCF into it")
    try:
        with Path(path).open("wb") as out:
            if bgzf.is_bgzf(prefix) or prefix.startswith(_PARQUET):
                out.write(prefix)
                shutil.copyfileobj(stream, out, _SNIFF_BYTES)
                return
            pieces = _pieces(prefix, stream)
            _compress(_gunzip(pieces) if bgzf.is_gzip(prefix) else pieces, out)
    except OSError as error:
        raise SystemFailure(
            f"standard input cannot be put aside ({error.strerror or error})", where=str(path), fix="free some space"
        ) from error


def _read_up_to(stream: BinaryIO, size: int) -> bytes:
    """`size` bytes, or all there are; a pipe gives fewer than asked."""
    pieces = []
    while size > 0 and (piece := stream.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _pieces(prefix: bytes, stream: BinaryIO) -> Iterator[bytes]:
    yield prefix
    while piece := stream.read(_SNIFF_BYTES):
        yield piece


def _gunzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Content of plain gzip, of any number of members."""
    inflater = zlib.decompressobj(31)
    fresh = True
    for piece in pieces:
        data = piece
        while data:
            try:
                yield inflater.decompress(data)
            except zlib.error as error:
                raise _bad_gzip(f"the gzip stream is corrupt ({error})") from error
            data = inflater.unused_data
            fresh = inflater.eof
            if fresh:
                inflater = zlib.decompressobj(31)
                data = data.lstrip(b"\0")  # padding after the last member is allowed
    if not fresh:
        raise _bad_gzip("the gzip stream is cut short")


def _bad_gzip(what: str) -> InputError:
    return InputError(what, where="-", fix="check the command before the pipe")


def _compress(pieces: Iterable[bytes], out: BinaryIO) -> None:
    """Pieces as BGZF with its end marker; refuses what is no VCF or BCF before reading on."""
    held = b""
    known = False
    for piece in pieces:
        held += piece
        if not known and len(held) >= 8:
            known = _check_format(held)
        whole = len(held) // bgzf.BLOCK_BYTES * bgzf.BLOCK_BYTES
        out.write(bgzf.compress(held[:whole]))
        held = held[whole:]
    if not known:
        _check_format(held)
    out.write(bgzf.compress(held) + bgzf.EOF)


def _check_format(head: bytes) -> bool:
    if not (head.startswith(_VCF) or is_bcf(head)):
        raise _unknown("-")
    return True
