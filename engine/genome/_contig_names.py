"""The styles contigs are named in (chr1, 1, NC_000001.11) and the message when two inputs differ."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from engine.errors import InputError

_ACCESSION = re.compile(r"[A-Z]{1,4}_?\d{5,}(\.\d+)?")
# Human RefSeq chromosomes carry their number: NC_000001 to NC_000022, then X and Y; NC_012920 is the mitochondrion.
_HUMAN_NC = re.compile(r"NC_0000(0[1-9]|1\d|2[0-4])\.\d+")


def short_list(names: Collection[str], limit: int = 6) -> str:
    """The first names and the last, or all where there are few."""
    ordered = list(names)
    if len(ordered) <= limit:
        return ", ".join(ordered)
    return ", ".join([*ordered[: limit - 1], "...", ordered[-1]]) + f" ({len(ordered):,} in all)"


def style(name: str) -> str:
    """How a contig is named, in words."""
    if name.lower().startswith("chr"):
        return "names such as 'chr1'"
    if _ACCESSION.fullmatch(name):
        return "accessions such as 'NC_000001.11'"
    return "names such as '1'"


def likely_alias(name: str, known: Collection[str]) -> str | None:
    """The name in `known` that most likely means the same contig, or None."""
    bare = name[3:] if name.lower().startswith("chr") else name
    if _HUMAN_NC.fullmatch(name):
        number = int(name[7:9])
        bare = {23: "X", 24: "Y"}.get(number, str(number))
    elif name.startswith("NC_012920"):
        bare = "MT"
    bares = ["M", "MT"] if bare.upper() in {"M", "MT"} else [bare]
    return next((guess for one in bares for guess in (f"chr{one}", one) if guess in known and guess != name), None)


def absent_contig(
    contig: str, target: str, known: Mapping[str, int], *, where: str, others: Sequence[str] = (), or_else: str = ""
) -> InputError:
    """The error for a contig that the reference has not, with the alias that would mend it.

    Args:
        contig: name in the input.
        target: name looked for in the reference (differs where an alias is set).
        known: contigs of the reference.
        where: path of the reference.
        others: further names that are absent too.
        or_else: what else the user can do, beside using the matching FASTA.
    """
    looked = f"contig {contig!r}" if contig == target else f"contig {target!r}, the alias of {contig!r},"
    more = f" (nor {short_list([repr(name) for name in others])})" if others else ""
    has = short_list([repr(name) for name in known])
    what = f"{looked} is not in the reference{more}, which has {has}"
    guess = likely_alias(contig, known)
    if guess is None:
        return InputError(what, where=where, fix=f"use the matching FASTA{or_else}")
    if style(contig) != style(guess):
        what += f"; the input uses {style(contig)}, the reference {style(guess)}"
    pairs = {name: likely_alias(name, known) for name in [contig, *others][:3]}
    aliases = ", ".join(f"'{name}': '{found}'" for name, found in pairs.items() if found)
    option = f"--contig-alias {contig}={guess}"
    tail = ", ..." if len(others) > 2 else ""
    return InputError(
        what, where=where, fix=f"set contig_aliases: {{{aliases}{tail}}} ({option}), or use a matching FASTA"
    )
