"""The predictor of pairs: as engine/scoring/_predictor.py, each window being the tokens of two members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.errors import InputError
from engine.genome.windows import N_TOKEN
from engine.scoring._predictor import Lengths, Predictor, padded


class PairPredictor(Predictor):
    """`predict` takes pairs: (tokens of the sequence, tokens of the other member)."""

    TAKES_PAIRS = True

    def _check(self, window: Any, number: int) -> None:
        for encoder, tokens in zip((self._encoder.first, self._encoder.second), window, strict=True):
            if tokens.dtype != np.uint8 or tokens.ndim != 1 or not len(tokens):
                what = f"pair {number} holds {tokens.dtype} with shape {tokens.shape}, expected uint8 tokens (L,)"
                raise InputError(what, where="predictor")
            if tokens.max() >= (most := int(getattr(encoder, "num_tokens", N_TOKEN + 1))):
                what = f"pair {number} holds token {tokens.max()}, tokens are 0 to {most - 1}"
                raise InputError(what, where="predictor")

    def _key(self, window: Any) -> Any:
        return window[0].tobytes(), window[1].tobytes()

    def _length(self, window: Any) -> int:
        return len(window[0]) + len(window[1])

    def _stack(self, windows: Sequence[Any]) -> Any:
        return _PairStack(tuple(windows))

    def _inputs(self, stack_BL: Any, lengths_B: Lengths) -> tuple[Any, ...]:  # noqa: ARG002 - of both together
        found: list[Any] = []
        for side, encoder in enumerate((self._encoder.first, self._encoder.second)):
            texts = [window[side] for window in stack_BL.windows]
            lengths = np.array([len(text) for text in texts], np.int64)
            padded_BL = padded(texts, int(getattr(encoder, "unknown_token", N_TOKEN)))
            is_padded = bool((lengths != padded_BL.shape[1]).any())
            found.append(encoder.tensor(torch.from_numpy(padded_BL).to(self.device)))
            found.append(torch.from_numpy(lengths).to(self.device) if is_padded else None)
        return tuple(found)


@dataclass(frozen=True)
class _PairStack:
    """Pairs that go through the networks together."""

    windows: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, some: slice) -> _PairStack:
        return _PairStack(self.windows[some])

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), max(len(one) + len(other) for one, other in self.windows)
