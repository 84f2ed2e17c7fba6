"""Outputs beside the table: shard bodies joined to one VCF, its index, and BCF."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import DataError
from engine.genome._htslib import quiet_htslib
from engine.io import bgzf
from engine.io.vcf import VcfSource, add_header_lines, header_contigs

# A TBI index cannot address positions from here on (tabix specification).
TBI_LIMIT = 1 << 29
# More than htslib holds back before it writes.
_PROBE_BYTES = 1 << 20


def finish_vcf(header: bytes, bodies: Iterable[bytes], out_path: str | Path) -> None:
    """Write header, bodies (each whole BGZF blocks, as from `bgzf.compress`) and the end marker, joined bytewise."""
    with Path(out_path).open("wb") as stream:
        stream.write(bgzf.compress(header))
        for body in bodies:
            stream.write(body)
        stream.write(bgzf.EOF)


def index_vcf(path: str | Path) -> str:
    """Index a BGZF VCF beside it: TBI, or CSI where a contig is longer than 2^29 bases. An old index is replaced.

    Returns:
        Path of the index.

    Raises:
        DataError: htslib cannot index the file.
    """
    lengths = header_contigs(VcfSource(path, compressed=True).header).values()
    wide = any(length is not None and length > TBI_LIMIT for length in lengths)
    for suffix in (".tbi", ".csi"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    for suffix in (".csi",) if wide else (".tbi", ".csi"):
        if make_tabix(path, "vcf", suffix):
            return f"{path}{suffix}"
    raise DataError("htslib cannot index the file", where=str(path), fix=f"look at it: bcftools view {path}")


def make_tabix(path: str | Path, preset: Any, suffix: str) -> bool:
    """Index with htslib; whether it could."""
    import pysam

    index = f"{path}{suffix}"
    with quiet_htslib():
        try:
            pysam.tabix_index(str(path), preset=preset, force=True, csi=suffix == ".csi", index=index)
        except OSError as error:
            _raise_if_full(error, Path(index))
            Path(index).unlink(missing_ok=True)
            return False
    return True


def to_bcf(vcf_path: str | Path, out_path: str | Path) -> str:
    """Convert a BGZF VCF to BCF through htslib, and index it.

    BCF names contigs, filters and tags by their place in the header, so those the header lacks get the plain
    lines htslib makes up for them. BCF stores numbers, not their text: 0.00010 comes back as 0.0001.

    Returns:
        Path of the CSI index.

    Raises:
        DataError: htslib cannot convert or index the file.
    """
    try:
        _convert_completing(Path(vcf_path), out_path)
    except OSError as error:
        _raise_if_full(error, Path(out_path))
        Path(out_path).unlink(missing_ok=True)
        raise _no_bcf(vcf_path) from error
    if not make_tabix(out_path, "bcf", ".csi"):
        raise _no_bcf(vcf_path)
    return f"{out_path}.csi"


def _convert_completing(vcf_path: Path, out_path: str | Path) -> None:
    """Convert; where htslib stumbles over what the header does not declare, again with a header that does."""
    try:
        _convert(vcf_path, out_path)
    except OSError as error:
        _raise_if_full(error, Path(out_path))
        with _completed(vcf_path) as whole:
            _convert(whole, out_path)


def _raise_if_full(error: OSError, unfinished: Path) -> None:
    """A full disk is the machine's fault, not the file's. htslib does not say which it is; a write to the disk does."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise error
    with tempfile.TemporaryFile(dir=unfinished.parent) as probe:
        probe.write(bytes(_PROBE_BYTES))
        probe.flush()
        os.fsync(probe.fileno())


def _no_bcf(path: str | Path) -> DataError:
    return DataError(
        "htslib cannot write it as BCF",
        where=str(path),
        fix="leave --bcf out, or mend the input line at which `bcftools view -Ob` of the input stops",
    )


def _convert(vcf_path: str | Path, out_path: str | Path) -> None:
    """By bcftools, as pysam brings it: pysam's own writer sets END where an allele is symbolic."""
    import pysam.bcftools
    from pysam.utils import SamtoolsError

    words = ("--no-version", "--no-update", "-Ob", "-o", str(out_path), str(vcf_path))
    with quiet_htslib():
        try:
            pysam.bcftools.view(*words, catch_stdout=False)
        except SamtoolsError as error:
            raise OSError(str(error)) from error


@contextmanager
def _completed(path: Path) -> Iterator[str]:
    """The file with a header that declares all its records use, in a temporary folder beside it."""
    import pysam

    source = VcfSource(path, compressed=True)
    with quiet_htslib(), pysam.VariantFile(str(path)) as reader:
        for _ in reader:
            pass
        lines = str(reader.header).encode().splitlines()
    known = header_contigs(source.header)
    added = [line for line in lines if header_contigs(line).keys() - known or b',Description="Dummy">' in line]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        whole = Path(folder) / "completed.vcf.gz"
        finish_vcf(add_header_lines(source.header, added), map(bgzf.compress, source.record_text()), whole)
        yield str(whole)
