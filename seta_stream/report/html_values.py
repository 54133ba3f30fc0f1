"""What the page of a run is made of. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from seta_stream.report.runfigures import Costs, RunFigures
from seta_stream.report.sources import SourceRow
from seta_stream.report.summary import Summary


@dataclass(frozen=True)
class SampleCard:
    """One sample as the page shows it.

    Args:
        number: its id.
        loss: its last one.
        age: epochs since that was recorded.
        shard: URL, as it may be shown; None where the state does not name its shards.
        key: None where its index could not be read.
        image: a small picture, whole as a file; None where it has none that can be shown.
        image_kind: "jpeg" or "png".
        image_size: its (width, height) in pixels.
        texts: (field, what it holds) pairs.
        lacking: why something is not shown; None where all is.
    """

    number: int
    loss: float
    age: int
    shard: str | None = None
    key: str | None = None
    image: bytes | None = None
    image_kind: str = "jpeg"
    image_size: tuple[int, int] = (0, 0)
    texts: tuple[tuple[str, str], ...] = ()
    lacking: str | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return what JSON holds of it: all but the picture."""
        plain = {name: value for name, value in asdict(self).items() if not name.startswith("image")}
        return plain | {"texts": dict(self.texts)}


@dataclass(frozen=True)
class RunReport:
    """A run, told whole.

    Args:
        state: URL, as it may be shown.
        made: when the report was made, in words.
        version: of this package.
        summary: of the newest generation.
        run: what its epochs kept, read and cost.
        lines: of its history, those with losses, oldest first.
        costs: what money and energy are reckoned with.
        sources: a row each; empty where the state does not name its shards.
        sources_by: what they are told apart by, in words.
        hardest, easiest: samples, the most extreme first.
        notes: what could not be read, one sentence each.
    """

    state: str
    made: str
    version: str
    summary: Summary
    run: RunFigures
    lines: tuple[Mapping[str, Any], ...]
    costs: Costs
    sources: tuple[SourceRow, ...] = ()
    sources_by: str = "folder and name of the shard"
    hardest: tuple[SampleCard, ...] = ()
    easiest: tuple[SampleCard, ...] = ()
    notes: tuple[str, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """Return dicts, lists and numbers, for JSON."""
        return {
            "state": self.state,
            "made": self.made,
            "version": self.version,
            "summary": self.summary.to_plain(),
            "run": self.run.to_plain(),
            "costs": asdict(self.costs),
            "sources": [asdict(one) for one in self.sources],
            "hardest": [one.to_plain() for one in self.hardest],
            "easiest": [one.to_plain() for one in self.easiest],
            "notes": list(self.notes),
        }
