"""What a VCF header declares: INFO, FORMAT and FILTER lines with number and type, and the sample names.

Source: the Variant Call Format specification 4.3 (samtools/hts-specs), section 1.4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.errors import InputError

_TYPES = {
    "INFO": ("Integer", "Float", "Flag", "Character", "String"),
    "FORMAT": ("Integer", "Float", "Character", "String"),
}
_pairs = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^,]*)')


@dataclass(frozen=True, slots=True)
class Declared:
    """One INFO, FORMAT or FILTER line.

    Attributes:
        id, number, type, description: as written; number and type are empty for filters.
    """

    id: str
    number: str
    type: str
    description: str

    @property
    def is_list(self) -> bool:
        """Whether a record may hold several values."""
        return self.number not in ("0", "1") and self.type != "Flag"

    @property
    def is_text(self) -> bool:
        """Whether its values are text."""
        return self.type in ("String", "Character")


def declared(header: bytes, kind: str) -> dict[str, Declared]:
    """The header's lines of a kind (INFO, FORMAT, FILTER) by ID, in order; of two with one ID the first counts."""
    found: dict[str, Declared] = {}
    opening = f"##{kind}=<"
    for line in header.decode(errors="replace").split("\n"):
        if line.startswith(opening):
            values = dict(_pairs.findall(line.removeprefix(opening).removesuffix(">")))
            one = Declared(
                values.get("ID", ""),
                values.get("Number", ""),
                values.get("Type", ""),
                values.get("Description", "").strip('"'),
            )
            found.setdefault(one.id, one)
    return found


def chosen(header: bytes, kind: str, names: Sequence[str], *, path: str) -> tuple[Declared, ...]:
    """The named lines of a kind (INFO or FORMAT), in the order asked for; `*` names all.

    Raises:
        InputError: the header does not declare one, or gives it no type that VCF has.
    """
    known = declared(header, kind)
    wanted = dict.fromkeys(key for name in names for key in (known if name == "*" else (name,)))
    for name in wanted:
        if name not in known:
            raise InputError(
                f"the header declares no {kind} {name!r}; it has {', '.join(sorted(known)[:20]) or 'none'}",
                where=path,
                fix="name one of those, or add the header line (bcftools annotate -h)",
            )
        if known[name].type not in _TYPES[kind]:
            raise InputError(
                f"the header's {kind} line of {name!r} has type {known[name].type!r}",
                where=path,
                fix=f"it must be one of {', '.join(_TYPES[kind])} (bcftools reheader)",
            )
    return tuple(known[name] for name in wanted)


def columns_line(header: bytes) -> list[str]:
    """Names of the #CHROM line."""
    return header.rstrip(b"\n").rpartition(b"\n")[2].decode(errors="replace").split("\t")


def sample_names(header: bytes) -> tuple[str, ...]:
    """Samples of the #CHROM line, in order."""
    return tuple(columns_line(header)[9:])


def filter_ids(header: bytes) -> dict[str, str]:
    """Filters with their descriptions, PASS first."""
    lines: Mapping[str, Declared] = declared(header, "FILTER")
    first = lines["PASS"].description if "PASS" in lines else "All filters passed"
    return {"PASS": first, **{name: one.description for name, one in lines.items() if name != "PASS"}}
