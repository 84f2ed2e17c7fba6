"""Pre-training without labels: letters are hidden, and the network tells which they were (Devlin et al. 2019, BERT).

Which letters of a sequence are hidden follows from the sample's seed, so it changes from epoch to epoch and is the same
for any number of workers; on validation and test rows it is always the same. Hidden letters become the encoder's
unknown letter (N, X), which every encoder of letters has: what was pre-trained reads the same letters later.

Shape letters: B sequences of a batch, L positions, N sequences, K letters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from engine.encoders.protein_tokens import AMINO_ACIDS
from engine.errors import InputError
from engine.scoring._metrics import Statistic
from engine.training import _metrics
from engine.training._task import NO_LABEL, Floats, Ids, SequenceTask, refused
from engine.training.tasks._letters import letter_counts
from engine.training.tasks.position_classification import position_counts

ALPHABETS = {"dna": "ACGT", "protein": AMINO_ACIDS}
_DRAWING = 2


@dataclass(frozen=True)
class MaskedTokensParams:
    """Attributes:
    alphabet: "dna" or "protein".
    share: of the letters that are asked for, at least one of a sequence.
    hidden: share of these that become the unknown letter.
    exchanged: share of these that become a drawn one; the rest stay as they are.
    """

    alphabet: str = "dna"
    share: float = 0.15
    hidden: float = 0.8
    exchanged: float = 0.1

    def __post_init__(self) -> None:
        if self.alphabet not in ALPHABETS:
            raise ValueError(f"alphabet must be one of {', '.join(ALPHABETS)}, found {self.alphabet!r}")
        if not 0 < self.share < 1:
            raise ValueError(f"share must be above 0 and below 1, found {self.share!r}")
        if self.hidden < 0 or self.exchanged < 0 or self.hidden + self.exchanged > 1:
            what = f"found {self.hidden!r} and {self.exchanged!r}"
            raise ValueError(f"hidden and exchanged are shares, together at most 1, {what}")


@dataclass(frozen=True)
class MaskedTokens(SequenceTask):
    """Attributes:
    params: as asked for.
    counts: each letter of the training rows.
    num_sequences: training sequences.
    """

    params: MaskedTokensParams
    counts: tuple[int, ...]
    num_sequences: int

    Params = MaskedTokensParams
    RESULT_VERSION = 1
    kind = "masked_sequences"
    level = "position"
    head = "letter"
    activation = "softmax"

    @staticmethod
    def column_of(params: Any) -> str:  # noqa: ARG004 - the same for all
        """Where the targets are: in the sequence itself."""
        return "sequence"

    @classmethod
    def fit(cls, params: MaskedTokensParams, columns: Iterable[pa.ChunkedArray]) -> MaskedTokens:
        """Count the letters of the training rows."""
        counts, rows = letter_counts(columns)
        letters = ALPHABETS[params.alphabet]
        found = tuple(int(counts[ord(letter)] + counts[ord(letter.lower())]) for letter in letters)
        if not sum(found):
            what = f"no letter of the alphabet {params.alphabet!r} in the training rows"
            raise InputError(what, where="task", fix="set task.params.alphabet to that of the set")
        return cls(params, found, rows)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The letters."""
        return tuple(ALPHABETS[self.params.alphabet])

    def bias(self) -> Floats:
        """Logarithm of each letter's share; one that never occurs counts once."""
        counts_K = np.maximum(np.array(self.counts), 1)
        shares_K: Floats = counts_K / counts_K.sum()
        return np.log(shares_K)

    def check_encoder(self, encoder: Any) -> None:
        """Refuse an encoder whose codes are of other letters."""
        alphabet = getattr(encoder, "alphabet", "dna")
        if alphabet != self.params.alphabet:
            what = f"letters of {self.params.alphabet} are to be hidden, the encoder reads {alphabet}"
            raise InputError(what, where="key 'encoder.name'", fix="choose an encoder of that alphabet")

    def targets(self, column: pa.ChunkedArray, *, records: Ids, where: str) -> NDArray[np.int8]:
        """(N,) of nothing: they are made when letters are hidden. Every sequence must have one that can be."""
        known = frozenset(self.outputs)
        for row, text in enumerate(column.to_pylist()):
            if known.isdisjoint(text.upper()):
                raise refused(f"no letter of the alphabet {self.params.alphabet!r}", int(records[row]), where)
        return np.zeros(len(records), np.int8)

    def masked(
        self, tokens_L: NDArray[np.uint8], seed: int, unknown: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
        """A sequence with letters hidden, and at the letters asked for which they were, NO_LABEL elsewhere, both (L,).

        Args:
            tokens_L: codes; those of the letters are 0 to K - 1.
            seed: of the sample.
            unknown: code of the unknown letter.
        """
        num_letters, length = len(self.outputs), len(tokens_L)
        drawn = np.random.default_rng([_DRAWING, seed & 0xFFFFFFFFFFFFFFFF])
        is_known_L = tokens_L < num_letters
        asked_L = is_known_L & (drawn.random(length) < self.params.share)
        if not asked_L.any() and is_known_L.any():
            asked_L[drawn.choice(np.flatnonzero(is_known_L))] = True
        fate_L, other_L = drawn.random(length), drawn.integers(0, num_letters, length)
        shown_L = np.where(fate_L < self.params.hidden, unknown, tokens_L)
        is_exchanged_L = (fate_L >= self.params.hidden) & (fate_L < self.params.hidden + self.params.exchanged)
        shown_L = np.where(is_exchanged_L, other_L, shown_L)
        labels_L = np.where(asked_L, tokens_L, NO_LABEL).astype(np.int8)
        return np.where(asked_L, shown_L, tokens_L).astype(np.uint8), labels_L

    def stack(self, rows: Sequence[NDArray[np.int8]]) -> NDArray[np.int32]:
        """(B, L), NO_LABEL beyond a sequence's end."""
        stacked_BL = np.full((len(rows), max(map(len, rows), default=0)), NO_LABEL, np.int32)
        for stacked_L, row in zip(stacked_BL, rows, strict=True):
            stacked_L[: len(row)] = row
        return stacked_BL

    def losses(self, logits_BKL: Tensor, targets_BL: Tensor) -> Tensor:
        """(B,) mean over the letters asked for."""
        targets_BL = targets_BL[:, : logits_BKL.shape[2]]  # what a part of a batch does not reach is padding
        losses_BL = F.cross_entropy(logits_BKL, targets_BL.long(), ignore_index=NO_LABEL, reduction="none")
        return losses_BL.sum(dim=1) / self.weights(targets_BL).clamp_min(1)

    def weights(self, targets_BL: Tensor) -> Tensor:
        """(B,) letters asked for, so that the mean loss is one over letters."""
        return (targets_BL != NO_LABEL).sum(dim=1).float()

    @property
    def kept_names(self) -> tuple[str, ...]:
        """Letters by what they are and what was told, and the sum of their losses in nats."""
        return (*(f"{truth}_as_{told}" for truth in self.outputs for told in self.outputs), "nats")

    def kept(self, values: NDArray[Any], targets: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """(B, K * K + 1) as `kept_names` has them, and (B, K) letters asked for; of values (B, K, L)."""
        truths_BL = targets[:, : values.shape[2]]
        counts_BKK = position_counts(values.argmax(axis=1), truths_BL, len(self.outputs))
        chance_BL = np.take_along_axis(values, np.maximum(truths_BL, 0)[:, None], axis=1)[:, 0]
        nats_B = -(np.log(np.maximum(chance_BL, 1e-30)) * (truths_BL != NO_LABEL)).sum(axis=1)
        kept_BS = np.concatenate([counts_BKK.reshape(len(values), -1), nats_B[:, None]], axis=1)
        return kept_BS, counts_BKK.sum(axis=2).astype(np.int32)

    def _counts(self, kept_NS: Floats) -> Floats:
        return kept_NS[:, :-1].reshape(len(kept_NS), len(self.outputs), len(self.outputs))

    def statistics(self, kept_NS: Floats, targets: NDArray[Any]) -> Mapping[str, Statistic]:  # noqa: ARG002
        """Perplexity, accuracy and the others over all letters asked for."""
        sizes_N, nats_N = kept_NS[:, :-1].sum(axis=1), kept_NS[:, -1]

        def perplexity(weights_N: Floats) -> float:
            letters = weights_N @ sizes_N
            return float(np.exp(weights_N @ nats_N / letters)) if letters else float("nan")

        return {"perplexity": perplexity, **_metrics.counted_statistics(self._counts(kept_NS))}

    def lower_is_better(self) -> tuple[str, ...]:
        """Perplexity: how many letters the network hesitates between."""
        return ("perplexity",)

    def confusion(self, kept_NS: Floats, targets: NDArray[Any]) -> Ids:  # noqa: ARG002
        """(K, K) letters, truth in rows."""
        counts_KK: Ids = self._counts(kept_NS).sum(axis=0).astype(np.int64)
        return counts_KK

    def truths(self, targets: Any) -> None:  # noqa: ARG002
        """None: no letter need be in every split."""
        return

    def facts(self) -> Mapping[str, Any]:
        """Letters of the training rows, and the sequences these are of."""
        return {"letters": dict(zip(self.outputs, self.counts, strict=True)), "sequences": self.num_sequences}


COMPONENT = MaskedTokens
