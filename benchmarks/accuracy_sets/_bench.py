"""What every set gives to benchmarks/accuracy.py, whatever kind its samples are."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.runtime.run import RunContext

QUIET = RunContext(progress="none")


@dataclass(frozen=True)
class Wanted:
    """What a figure is held against.

    Attributes:
        published: what others report, in words; on rows of theirs.
        least: the figure that is wanted; None where any will do.
        over_floor: or so much more than the floor reaches on the same rows.
    """

    published: str
    least: float | None = None
    over_floor: float | None = None


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        panel: which figure of the set, empty for the only one.
        metric: its name.
        rows: samples it is over.
        value, low, high: ours with its 95% bootstrap interval.
        floor: what the simple model of the set reaches on the same rows; None where there is none.
        wanted: what it is held against.
    """

    panel: str
    metric: str
    rows: int
    value: float
    low: float | None
    high: float | None
    floor: float | None
    wanted: Wanted

    def told(self, name: str) -> str:
        """A line of Markdown."""
        spread = "" if self.low is None or self.high is None else f" ({self.low:.3f} to {self.high:.3f})"
        cells = [
            f"{name} {self.panel}".strip(),
            self.metric,
            f"{self.rows:,}",
            self.wanted.published,
            "none" if self.floor is None else f"{self.floor:.3f}",
            f"{self.value:.3f}{spread}",
            self._wanted_told(),
            self._met_told(),
        ]
        return f"| {' | '.join(cells)} |"

    def _wanted_told(self) -> str:
        told = [] if self.wanted.least is None else [f"{self.wanted.least:.3f}"]
        if (above := self._above()) is not None:
            told.append(f"floor + {self.wanted.over_floor} = {above:.3f}")
        return "; ".join(told) or "any"

    def _met_told(self) -> str:
        met = [self.value >= one for one in (self.wanted.least, self._above()) if one is not None]
        return "; ".join("yes" if one else "no" for one in met) or "yes"

    def _above(self) -> float | None:
        add = self.wanted.over_floor
        return None if add is None or self.floor is None else self.floor + add


HEADER = (
    "| set | metric | test rows | published | floor | ours (95% interval) | wanted | met | CPU |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


class Prepared(ABC):
    """A set made into shards.

    Attributes:
        folder: of the finished ingest, the recipe's `data.path`.
    """

    folder: Path

    @abstractmethod
    def write_split(self, number: int, path: Path) -> None:
        """The split file of parting `number` (schema splits, engine/training/_sequence_set.py)."""

    @abstractmethod
    def figures(self, runs: Sequence[Path]) -> Iterable[Figure]:
        """Lines of the table from finished training runs, one run folder for each parting in their order."""


@dataclass(frozen=True)
class Bench:
    """A set and its recipe, benchmarks/recipes/<name>.yaml.

    Attributes:
        name: of the recipe.
        prepare: from the data folder (with a folder for each set in it) and a folder to work in, made here.
        rounds: how often the set is parted, each time with other test rows; 1 to 5, or 5 for each draw of groups.
        larger: takes long, and is left out unless asked for.
    """

    name: str
    prepare: Callable[[Path, Path], Prepared]
    rounds: int = 1
    larger: bool = False


def all_benches() -> list[Bench]:
    """Those of every file beside this one, by name of the file."""
    package = importlib.import_module("benchmarks.accuracy_sets")
    found: list[Bench] = []
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda one: one.name):
        if not module.name.startswith("_"):
            found += importlib.import_module(f"{package.__name__}.{module.name}").BENCHES
    return found
