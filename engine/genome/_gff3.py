"""GFF3 to transcripts: the dialects of Ensembl, GENCODE and RefSeq, and any file whose exons name their Parent.

Sequence Ontology GFF3 1.26. Rows may come in any order; a transcript is whatever has exons below it.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from engine.genome._gene_rows import Draft, Lines, bad_line, span, text, versioned

_KEYS = frozenset({"ID", "Parent", "Name", "gene", "gene_name", "gene_id", "transcript_id", "version", "tag"})
# Rows that are neither gene nor transcript and make up much of some files.
_SKIPPED = frozenset(
    b"five_prime_UTR three_prime_UTR start_codon stop_codon stop_codon_redefined_as_selenocysteine region "
    b"biological_region chromosome scaffold supercontig cDNA_match match match_part intron enhancer silencer".split()
)
_MUST_HAVE_EXONS = frozenset({"mRNA", "transcript"})
_MAX_DEPTH = 8


@dataclass(slots=True)
class _Node:
    """A gene or transcript row; `bounds` is 0-based half-open."""

    line: int
    feature: str
    values: dict[str, str]
    contig: bytes
    bounds: tuple[int, int]


@dataclass(slots=True)
class _Parts:
    """What lies below one parent."""

    line: int
    contig: bytes
    strand: bytes
    on_one_strand: bool = True
    cds_length: int = 0
    exons: array[int] = field(default_factory=lambda: array("q"))


def read_gff3(path: Path, lines: Lines) -> list[Draft]:
    """All parents of exon or CDS rows, in order of their first such row.

    Raises:
        InputError: a malformed line, an exon of an unknown parent or an mRNA without exons, named by line number.
    """
    nodes: dict[bytes, _Node] = {}
    parts: dict[bytes, _Parts] = {}
    for number, line in lines:
        # First of all: a row that was commented out still has its nine columns.
        if line.startswith((b"#", b">")):
            if line.startswith((b"##FASTA", b">")):
                break
            continue
        columns = line.split(b"\t", 8)
        if len(columns) != 9:
            if not line.strip():
                continue
            raise bad_line(path, number, f"{len(columns)} columns where GFF3 has 9")
        feature = columns[2]
        if feature in (b"exon", b"CDS"):
            _add_part(path, number, columns, parts)
        elif feature not in _SKIPPED:
            _add_node(path, number, columns, nodes)
    _check(path, nodes, parts)
    return [_draft(name, nodes, found) for name, found in parts.items()]


def _add_part(path: Path, number: int, columns: list[bytes], parts: dict[bytes, _Parts]) -> None:
    contig, _, feature, start, end, _, strand, _, attributes = columns
    at = attributes.find(b"Parent=")
    if at < 0:
        return
    low, high = span(path, number, start, end)
    for parent in attributes[at + 7 :].split(b";", 1)[0].strip().split(b","):
        found = parts.get(parent)
        if found is None:
            found = parts[parent] = _Parts(number, contig, strand)
        if feature == b"CDS":
            found.cds_length += high - low
            continue
        found.exons.extend((low, high))
        if strand != found.strand or contig != found.contig:
            found.on_one_strand = False


def _add_node(path: Path, number: int, columns: list[bytes], nodes: dict[bytes, _Node]) -> None:
    contig, _, feature, start, end, _, _, _, attributes = columns
    if b"ID=" not in attributes:
        return
    bounds = span(path, number, start, end)
    values: dict[str, str] = {}
    for item in text(attributes).strip().split(";"):
        key, _, value = item.strip().partition("=")
        if key in _KEYS:
            values[key] = value
    if "ID" in values:
        # A feature in several pieces repeats its row with the same ID.
        node = nodes.setdefault(values["ID"].encode(), _Node(number, text(feature), values, contig, bounds))
        if node.contig == contig:
            node.bounds = min(node.bounds[0], bounds[0]), max(node.bounds[1], bounds[1])


def _check(path: Path, nodes: dict[bytes, _Node], parts: dict[bytes, _Parts]) -> None:
    for name, found in parts.items():
        if name not in nodes:
            raise bad_line(path, found.line, f"the row names the parent {text(name)!r}, which the file has not")
    for name, node in nodes.items():
        if node.feature in _MUST_HAVE_EXONS and name not in parts:
            raise bad_line(
                path, node.line, f"{node.feature} {text(name)!r} has no exon rows", fix="add them or remove the row"
            )


def _draft(name: bytes, nodes: dict[bytes, _Node], found: _Parts) -> Draft:
    node = nodes[name]
    gene = _top(node, nodes).values
    values = node.values
    # RefSeq numbers the second copy of a gene in its ID only ("gene-CRLF2-2" on Y), so the ID tells them apart.
    gene_id = gene.get("gene_id") or _bare(gene["ID"], "gene")
    draft = Draft(
        line=node.line,
        transcript_id=versioned(values.get("transcript_id") or _bare(values["ID"], "transcript"), _version(values)),
        gene_id=versioned(gene_id, _version(gene)),
        symbol=unquote(gene.get("gene_name") or gene.get("gene") or gene.get("Name") or gene_id),
        contig=unquote(text(found.contig)),
        strand=text(found.strand),
        cds_length=found.cds_length,
        on_one_strand=found.on_one_strand,
        exons=found.exons,
        bounds=node.bounds if _is_transcript(node) and node.contig == found.contig else None,
    )
    draft.set_tags(unquote(values.get("tag", "")).split(","))
    return draft


def _is_transcript(node: _Node) -> bool:
    """Whether a row's ends are a transcript's own; a gene with exons of its own may be wider for other reasons."""
    return node.feature in _MUST_HAVE_EXONS or "Parent" in node.values


def _top(node: _Node, nodes: dict[bytes, _Node]) -> _Node:
    """The gene a transcript hangs below, or the transcript itself where it hangs below nothing."""
    for _ in range(_MAX_DEPTH):
        above = nodes.get(node.values.get("Parent", "").split(",")[0].encode())
        if above is None:
            return node
        node = above
    return node


def _version(values: dict[str, str]) -> str | None:
    return values.get("version")


def _bare(name: str, kind: str) -> str:
    """An ID without the prefix that Ensembl ("transcript:"), RefSeq ("rna-", "gene-") or WormBase puts before it."""
    for prefix in (f"{kind}:", f"{kind}-", "rna-", "id-"):
        if name.lower().startswith(prefix):
            return unquote(name[len(prefix) :])
    return unquote(name)
