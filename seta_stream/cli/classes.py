"""The class of every sample, as a field of its own tells it, for a report.

Takes the shards and a field's name; gives names and codes. Acts: reads that field of every sample.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.cli.cards import Place
from seta_stream.cli.screen import bar
from seta_stream.corpus.ids import ShardTable
from seta_stream.corpus.labels import MAX_GROUPS
from seta_stream.errors import CorpusError
from seta_stream.stream import SetaStream

NONE: Final = "(none)"
"""The class of samples that lack the field."""
_BYTES: Final = 200
_TOLD_AT: Final = 1000


def classes_by(field: str, place: Place, shards: ShardTable) -> tuple[list[str], NDArray[np.int64]]:
    """Return the classes' names, and each sample's place among them.

    A class is the field's content as text, without space around it.

    Raises:
        CorpusError: there are more classes than a policy could tell apart, or no sample has the field.
        ReadError, ShardChangedError: a shard cannot be read, or is another than the losses are of.
    """
    numbers: dict[bytes, int] = {}
    codes = np.full(shards.total, -1, np.int64)
    with SetaStream(
        list(shards.urls), shuffle=False, drop_last=False, fields=(field,), index=place.index,
        storage_options=place.options, world=1,
    ) as stream, bar(f"reading {field}", shards.total) as advance:  # fmt: skip
        for number, sample in enumerate(stream):
            if field in sample:
                codes[sample["__index__"]] = numbers.setdefault(bytes(sample[field])[:_BYTES].strip(), len(numbers))
            if len(numbers) > MAX_GROUPS:
                raise CorpusError(
                    f"Field {field!r} holds more than {MAX_GROUPS} different values (at {sample['__key__']!r} in "
                    f"{sample['__url__']}): it is no class. Name a field that is.",
                    shard=sample["__url__"],
                    key=sample["__key__"],
                    expected=MAX_GROUPS,
                )
            if number % _TOLD_AT == _TOLD_AT - 1:
                advance(advance=_TOLD_AT)
    if not numbers:
        raise CorpusError(f"No sample has a field {field!r}. Name one that the samples have, as cls.", found=field)
    names = [name.decode("utf-8", "backslashreplace") for name in numbers]
    codes[codes < 0] = len(names)
    return [*names, *([NONE] if codes.max() == len(names) else [])], codes
