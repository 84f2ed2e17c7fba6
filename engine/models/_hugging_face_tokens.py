"""From letters on the wire to the tokens of a pre-trained network, as its own tokenizer would make them.

Three ways, told apart when the folder is read (engine/models/_hugging_face_folder.py): a token per letter (ESM,
ProtBert); a token per k letters and single letters for what is left before an N or the end (Nucleotide Transformer);
subwords, by the folder's own tokenizer. Each token knows its letters, so that answers can be given per letter.

Shape letters: B batch, L letters, T tokens, V letters of the alphabet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from engine.encoders.protein_letters import LETTERS as PROTEIN

DNA = "ACGTN"
ALPHABETS = {"dna": DNA, "protein": PROTEIN}
_MAX_K = 8


@dataclass(frozen=True)
class TokenTable:
    """What a tokenizer does, in plain values.

    Attributes:
        alphabet: "dna" (letters ACGTN) or "protein" (those of the encoder protein_letters); a letter's place in it is
            its code.
        pad: token that fills up a batch.
        before, after: tokens before the first letter and after the last.
        letters: (V,) token of each letter.
        kmers: (4 ** k,) token of every k letters of ACGT in lexical order; empty for a token per letter.
        subwords: text of a tokenizer.json; empty for the two ways above.
    """

    alphabet: str
    pad: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    letters: tuple[int, ...] = ()
    kmers: tuple[int, ...] = ()
    subwords: str = ""

    def __post_init__(self) -> None:
        for name in ("before", "after", "letters", "kmers"):
            ids = tuple(getattr(self, name))
            object.__setattr__(self, name, ids)
            if not all(type(one) is int and 0 <= one < 1 << 24 for one in ids):
                raise ValueError(f"tokens: {name} must hold whole numbers from 0")
        if self.alphabet not in ALPHABETS:
            raise ValueError(f"tokens: alphabet must be one of {', '.join(ALPHABETS)}, found {self.alphabet!r}")
        if type(self.pad) is not int or not 0 <= self.pad < 1 << 24:
            raise ValueError(f"tokens: pad must be a whole number from 0, found {self.pad!r}")
        if bool(self.subwords) == bool(self.letters) or (self.letters and len(self.letters) != self.num_letters):
            raise ValueError(f"tokens: give subwords, or a token for each of the {self.num_letters} letters")
        if self.kmers and (self.alphabet != "dna" or len(self.kmers) not in {4**k for k in range(2, _MAX_K + 1)}):
            raise ValueError(f"tokens: kmers must be those of 2 to {_MAX_K} letters of DNA, found {len(self.kmers)}")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> TokenTable:
        """From plain values.

        Raises:
            ValueError: they are no table.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"tokens: {error}") from error

    @property
    def num_letters(self) -> int:
        """Letters of the alphabet."""
        return len(ALPHABETS[self.alphabet])

    @property
    def k(self) -> int:
        """Letters of the longest token but for subwords."""
        return (len(self.kmers).bit_length() - 1) // 2 if self.kmers else 1

    @property
    def num_special(self) -> int:
        """Tokens around the letters'."""
        return len(self.before) + len(self.after)


class Tokens(nn.Module):
    """(B, L) letter codes -> (B, T) tokens, and (B, L) the place of each letter's token among them.

    It has no weights and leaves the state of the network as it is.
    """

    letters: Tensor
    kmers: Tensor

    def __init__(self, table: TokenTable) -> None:
        super().__init__()
        self.table = table
        self.register_buffer("letters", torch.tensor(table.letters, dtype=torch.int64), persistent=False)
        self.register_buffer("kmers", torch.tensor(table.kmers, dtype=torch.int64), persistent=False)

    def forward(self, letters_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Padded with `pad`; letters past a sequence's length lead to a place that exists."""
        if self.table.subwords:
            return self._of_subwords(letters_BL, lengths_B)
        inside_BL = torch.arange(letters_BL.shape[1], device=letters_BL.device)[None] < lengths_B[:, None]
        ids_BL = self.letters[letters_BL]
        starts_BL = inside_BL
        if self.table.kmers:
            starts_BL, ids_BL = self._in_kmers(letters_BL, inside_BL, ids_BL)
        return self._framed(starts_BL, ids_BL)

    def _in_kmers(self, letters_BL: Tensor, inside_BL: Tensor, ids_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Where tokens begin, and which: from the left, whole k-mers as long as no N and no end comes in between."""
        k, length = self.table.k, letters_BL.shape[1]
        at_L = torch.arange(length, device=letters_BL.device)
        plain_BL = inside_BL & (letters_BL < 4)
        broken_BL = torch.where(plain_BL, -1, at_L)
        last_BL = broken_BL.cummax(dim=1).values
        ahead_BL = torch.where(plain_BL, length, at_L)
        next_BL = ahead_BL.flip(1).cummin(dim=1).values.flip(1)
        in_run_BL, run_BL = at_L - last_BL - 1, next_BL - last_BL - 1
        whole_BL = plain_BL & (in_run_BL < run_BL // k * k)
        begins_BL = whole_BL & (in_run_BL % k == 0)
        codes_BL = torch.zeros_like(letters_BL)
        padded_BL = nn.functional.pad(letters_BL.clamp(max=3), (0, k - 1))
        for place in range(k):
            codes_BL = codes_BL * 4 + padded_BL[:, place : place + length]
        ids_BL = torch.where(begins_BL, self.kmers[codes_BL], ids_BL)
        return begins_BL | (inside_BL & ~whole_BL), ids_BL

    def _framed(self, starts_BL: Tensor, ids_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens side by side between the special ones."""
        batch, before, after = len(ids_BL), self.table.before, self.table.after
        place_BL = starts_BL.long().cumsum(dim=1) + (len(before) - 1)
        counts_B = starts_BL.sum(dim=1) + len(before)
        width = int(counts_B.max()) + len(after) if batch else len(before) + len(after)
        # One place more than is kept takes what begins no token.
        made_BT = ids_BL.new_full((batch, width + 1), self.table.pad)
        made_BT.scatter_(1, torch.where(starts_BL, place_BL, width), ids_BL)
        for place, token in enumerate(before):
            made_BT[:, place] = token
        for place, token in enumerate(after):
            made_BT.scatter_(1, counts_B[:, None] + place, token)
        return made_BT[:, :width], place_BL.clamp(0, width - 1)

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        made = Tokenizer.from_str(self.table.subwords)
        made.no_truncation()
        made.no_padding()
        return made

    def _of_subwords(self, letters_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        alphabet, lengths = ALPHABETS[self.table.alphabet], lengths_B.tolist()
        rows = zip(letters_BL.tolist(), lengths, strict=True)
        made = self._tokenizer.encode_batch(["".join(alphabet[code] for code in row[:length]) for row, length in rows])
        width = max((len(one.ids) for one in made), default=0)
        ids_BT = torch.full((len(made), width), self.table.pad)
        place_BL = torch.zeros(letters_BL.shape, dtype=torch.int64)
        for ids_T, place_L, one in zip(ids_BT, place_BL, made, strict=True):
            ids_T[: len(one.ids)] = torch.tensor(one.ids)
            for place, (begin, end) in enumerate(one.offsets):
                place_L[begin:end] = place
        return ids_BT.to(letters_BL.device), place_BL.to(letters_BL.device)
