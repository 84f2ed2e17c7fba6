"""Molecules as text: SMILES cut into tokens by the grammar of OpenSMILES 1.0 (http://opensmiles.org/opensmiles.html).

Tokens are atoms, bonds, brackets, branches and ring closures; what stands within a bracket atom is cut further, into
isotope digits, element, chirality, H and its count, charge and class, so that the number of different tokens is fixed.
A ring closure of two digits is % and the digits. Joined again, the tokens of a text are that text.

Beyond the grammar of single tokens, branches must close, every ring bond must meet its other end, and a bond must lead
to something. Whether valences make sense is not looked at.
"""

from __future__ import annotations

import re
from functools import lru_cache

ELEMENTS = tuple(
    re.findall(
        "[A-Z][a-z]?",
        "HHeLiBeBCNOFNeNaMgAlSiPSClArKCaScTiVCrMnFeCoNiCuZnGaGeAsSeBrKrRbSrYZrNbMoTcRuRhPdAgCdInSnSbTeIXeCsBaLaCePrNd"
        "PmSmEuGdTbDyHoErTmYbLuHfTaWReOsIrPtAuHgTlPbBiPoAtRnFrRaAcThPaUNpPuAmCmBkCfEsFmMdNoLrRfDbSgBhHsMtDsRgCnNhFlMcLvTsOg",
    )
)
AROMATIC = ("b", "c", "n", "o", "p", "s", "se", "as")
CHIRAL = ("@", "@@", "@TH", "@AL", "@SP", "@TB", "@OH")
BONDS = ("-", "=", "#", "$", ":", "/", "\\")
TOKENS = (*ELEMENTS, *AROMATIC, "*", *CHIRAL, *BONDS, "[", "]", "(", ")", ".", "+", "%", *"0123456789")
"""Every token there is, in a fixed order."""

MOST_LETTERS = 10_000

_ATOM = r"Br|Cl|[BCNOPSFIbcnops*]"
_SYMBOL = "|".join(sorted((*ELEMENTS, *AROMATIC, r"\*"), key=len, reverse=True))
_BRACKET = re.compile(
    rf"\[(?P<isotope>\d*)(?P<symbol>{_SYMBOL})(?P<chiral>@(?:@|(?:TH|AL|SP|TB|OH)\d{{1,2}})?)?"
    r"(?P<hydrogens>H\d?)?(?P<charge>\+\+|--|[+-]\d{0,2})?(?P<klass>:\d+)?\]"
)
_TOKEN = re.compile(rf"{_BRACKET.pattern}|(?P<atom>{_ATOM})|(?P<bond>[-=#$:/\\])|(?P<ring>%\d\d|\d)|[().]")
_PARTS = re.compile(rf"@(?:@|TH|AL|SP|TB|OH)?|{_SYMBOL}|.")


class SmilesError(ValueError):
    """A text is no SMILES; says where and why."""


@lru_cache(maxsize=1 << 14)
def smiles_tokens(text: str) -> tuple[str, ...]:
    """The tokens of a SMILES.

    Raises:
        SmilesError: a letter that begins no token, a branch or ring bond left open, a bond to nothing; longer than
            MOST_LETTERS.
    """
    if not text:
        raise SmilesError("there are no letters")
    if len(text) > MOST_LETTERS:
        raise SmilesError(f"{len(text):,} letters, more than {MOST_LETTERS:,}")
    found: list[str] = []
    walk = _Walk()
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise SmilesError(f"{text[at : at + 12]!r} at letter {at + 1} begins no atom, bond, branch or ring closure")
        walk.take(match, at + 1)
        found += _cut(match)
        at = match.end()
    walk.end()
    return tuple(found)


def _cut(match: re.Match[str]) -> list[str]:
    text = match[0]
    if match["ring"]:
        return list(text)
    return _PARTS.findall(text) if text[0] == "[" else [text]


class _Walk:
    """What stands open on the way through a SMILES."""

    def __init__(self) -> None:
        self._branches = 0
        self._rings: set[int] = set()
        # What stands before: an atom or ring closure, a bond, "(" or ")", or nothing yet.
        self._before = ""

    def take(self, match: re.Match[str], place: int) -> None:
        """One token further."""
        text, before = match[0], self._before
        is_atom = text[0] == "[" or match["atom"] is not None
        if not is_atom and before in ("", "."):
            raise SmilesError(f"{text!r} at letter {place} follows no atom")
        if before == "bond" and not (is_atom or match["ring"]):
            raise SmilesError(f"{text!r} at letter {place} follows a bond, which leads to nothing")
        if before == "(" and not (is_atom or match["bond"] or text == "."):
            raise SmilesError(f"{text!r} at letter {place} begins a branch, which needs an atom")
        if match["ring"]:
            self._rings ^= {int(text.lstrip("%"))}
        self._branches += (text == "(") - (text == ")")
        if self._branches < 0:
            raise SmilesError(f"')' at letter {place} closes no branch")
        self._before = "bond" if match["bond"] else text if text in ("(", ")", ".") else "atom"

    def end(self) -> None:
        """Nothing may stand open."""
        if self._branches:
            raise SmilesError("a branch is opened and not closed")
        if self._rings:
            raise SmilesError(f"ring closure {min(self._rings)} is opened and not closed")
        if self._before in ("bond", "."):
            raise SmilesError("it ends in a bond, which leads to nothing")
