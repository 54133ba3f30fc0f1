"""Kinds of values that commands are given: what is refused before anything is done, and what a shell completes.

Takes texts; gives values. No effects.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any, Final, Literal

import click
from click.shell_completion import CompletionItem

_MOST_BYTES: Final = 1 << 60
_EMPTY: Final = "It is empty. Was a variable of the shell not set?"
_URL: Final = re.compile("[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
_PICTURES: Final = (".png", ".svg", ".pdf", ".jpg")
_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kKMGT]i?)?B?")
_UNITS: Final = {
    "": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "ki": 1 << 10, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
}  # fmt: skip


class Place(click.ParamType):  # type: ignore[type-arg]  # in click 8.1 it is not generic
    """A file or folder of this machine or of a bucket: any text but an empty one.

    An empty one is a shell's variable that was never set, and would be the folder one stands in.

    Args:
        holds: what a shell offers for it.
    """

    name = "place"

    def __init__(self, holds: Literal["file", "dir"]) -> None:
        self.holds = holds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text."""
        if not str(value).strip():
            self.fail(_EMPTY, param, ctx)
        if "\0" in str(value):
            self.fail(f"{value!r} holds a NUL, which no name can.", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Let the shell complete paths; nothing is asked of buckets."""
        del ctx, param
        return [] if "://" in incomplete else [CompletionItem(incomplete, type=self.holds)]


FOLDER: Final = Place("dir")
SHARDS: Final = Place("file")


class PolicySpec(click.ParamType):  # type: ignore[type-arg]  # in click 8.1 it is not generic
    """A policy, as a name or with settings; read by policy_from, whose errors say what is possible."""

    name = "policy"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the policies' names."""
        from seta_stream.policies.names import POLICIES  # noqa: PLC0415  (numpy; --help need not wait for it)

        del ctx, param
        names = [policy.__name__ for policy in POLICIES]
        return [CompletionItem(name) for name in names if name.lower().startswith(incomplete.lower())]


class Decoder(click.ParamType):  # type: ignore[type-arg]  # in click 8.1 it is not generic
    """A decoder's name, or package.module:function; read where samples are."""

    name = "decoder"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the names."""
        from seta_stream.read.decode import IMAGE_KINDS  # noqa: PLC0415  (as above)

        del ctx, param
        return [CompletionItem(name) for name in ("basic", *IMAGE_KINDS) if name.startswith(incomplete)]


class LocalFile(click.Path):
    """A file of this machine that is written."""

    name = "file"

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if not str(value).strip():
            self.fail(_EMPTY, param, ctx)
        if _URL.match(str(value)):
            self.fail(
                f"{value!r} is a URL, and this is a file of this machine: write it here, and copy it.", param, ctx
            )
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        folder = path.parent
        if not folder.is_dir():
            self.fail(f"there is no folder {str(folder)!r} to write {path.name!r} into.", param, ctx)
        if not os.access(folder, os.W_OK):
            self.fail(f"the folder {str(folder)!r} may not be written to.", param, ctx)
        return path


class Picture(LocalFile):
    """A file to draw into, of a kind that can be drawn."""

    name = "picture"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; of another kind it is refused before anything is computed."""
        path = super().convert(value, param, ctx)
        if path.suffix.lower() not in _PICTURES:
            self.fail(f"{value!r} ends in none of {', '.join(_PICTURES)}.", param, ctx)
        return path


class Number(click.FloatRange):
    """A finite number: nan lies in every range, and inf in those without an end."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number.", param, ctx)
        return number


class ByteCount(click.ParamType):  # type: ignore[type-arg]  # in click 8.1 it is not generic
    """A number of bytes, as 268435456, 256MiB or 1GB.

    Args:
        least: the smallest that is taken.
    """

    name = "bytes"

    def __init__(self, least: int = 1) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return whole bytes."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no number of bytes: write 268435456, 256MiB or 1GB.", param, ctx)
        count = int(float(match[1]) * _UNITS[match[2] or ""])
        if count > _MOST_BYTES:
            self.fail(f"{value!r} is too large: there is no such file.", param, ctx)
        if count < self.least:
            self.fail(f"{value!r} is too small: give {self.least} or more bytes.", param, ctx)
        return count
