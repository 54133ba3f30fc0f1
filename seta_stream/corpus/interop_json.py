"""JSON of unknown trust, read value by value.

Takes bytes; gives the values that are asked for, or raises IndexFileError. Pure. Memory stays near the size of the
text: what is not asked for is stepped over. Deep nesting, huge numbers, and names that come twice in one object are
refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final, NoReturn, cast

from seta_stream.corpus.interop_claims import refusal

_SPACE: Final = re.compile(rb"[ \t\n\r]*")
_STRING: Final = re.compile(rb'[ \t\n\r]*"((?:[^"\\\x00-\x1f]|\\["\\/bfnrtu])*+)"')
_INTEGER: Final = re.compile(rb"[ \t\n\r]*(0|-?[1-9][0-9]{0,18})(?![0-9.eE])")
_OTHER: Final = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")
_FLAT: Final = re.compile(rb"[ \t\n\r]*(\{[^{}\[\]]{0,4096}+\})")
_LONGEST_NUMBER: Final = 40
_DEEPEST: Final = 64
LARGEST: Final = 1 << 62
_LAST_SPACE: Final = 32


class JsonReader:
    """A position in a JSON text; every method reads one value, from there on.

    Args:
        data: the whole text.
        source: its URL, for messages.
    """

    def __init__(self, data: bytes, source: str) -> None:
        self._data = data
        self._source = source
        self._at = 0

    def kind(self) -> str:
        """Return the first character of the next value: "{", "[", '"', a digit or a letter; empty at the end."""
        data, at = self._data, self._at
        if at < len(data) and data[at] <= _LAST_SPACE:
            match = _SPACE.match(data, at)
            self._at = at = at if match is None else match.end()
        return chr(data[at]) if at < len(data) else ""

    def entries(self, most: int = 1000) -> Iterator[bytes]:
        """Give the names in an object; each one's value must be read before the next key is asked for.

        A name that comes twice is refused: readers differ in which one they believe.

        Args:
            most: names that there may be; all are kept until the object's end.
        """
        seen: set[bytes] = set()
        for _ in self._each(b"{}"):
            key = self.string()
            if key in seen:
                self._fail(f"the name {key[:80]!r} comes twice in one object")
            if len(seen) == most:
                self._fail(f"an object may have {most} names here")
            seen.add(key)
            self._take(b":")
            yield key

    def items(self) -> Iterator[None]:
        """Give None for each entry of a list, which must be read before the next is asked for."""
        yield from self._each(b"[]")

    def string(self) -> bytes:
        """Return a string's bytes as they would stand in a tar: UTF-8, foreign bytes as Python escapes them."""
        match = _STRING.match(self._data, self._at)
        if match is None:
            self._fail("a string was expected")
        raw = match[1]
        try:
            if b"\\" in raw:
                raw = json.loads(b'"' + raw + b'"').encode("utf-8", "surrogateescape")
            else:
                raw.decode()
        except ValueError:  # a lone surrogate, a bad escape, or no UTF-8
            self._fail("a string is no text")
        self._at = match.end()
        return raw

    def integer(self) -> int:
        """Return a number from 0 to 2^62."""
        match = _INTEGER.match(self._data, self._at)
        if match is None or not 0 <= int(match[1]) < LARGEST:
            self._fail("a whole number from 0 to 2^62 was expected")
        self._at = match.end()
        return int(match[1])

    def flat(self) -> dict[str, object] | None:
        """Return a short object of plain values in one step; None where the next value is another, and stay there."""
        match = _FLAT.match(self._data, self._at)
        if match is None:
            return None
        try:
            found = _DECODER.decode(match[1].decode())
        except ValueError as error:
            self._fail(f"it is no JSON ({error})")
        self._at = match.end()
        return cast("dict[str, object]", found)

    def skip(self) -> None:
        """Step over one value, whatever it is."""
        closers: list[str] = []
        while True:
            kind = self.kind()
            if kind and kind in "{[":
                if len(closers) == _DEEPEST:
                    self._fail(f"values may be nested {_DEEPEST} deep")
                closers.append("}" if kind == "{" else "]")
                self._at += 1
                if self.kind() != closers[-1]:
                    self._skip_key(closers[-1])
                    continue
            else:
                self._skip_scalar(kind)
            while closers and self.kind() == closers[-1]:
                self._at += 1
                closers.pop()
            if not closers:
                return
            self._take(b",")
            self._skip_key(closers[-1])

    def finish(self) -> None:
        """Refuse what stands behind the value."""
        if self.kind():
            self._fail("something stands behind the end")

    def _skip_key(self, closer: str) -> None:
        if closer == "}":
            self._skip_scalar(self.kind() if self.kind() == '"' else "")
            self._take(b":")

    def _skip_scalar(self, kind: str) -> None:
        if kind in ('"', ""):
            match = _STRING.match(self._data, self._at)
        else:
            match = _OTHER.match(self._data, self._at, self._at + _LONGEST_NUMBER)
        if match is None:
            self._fail("a value was expected")
        self._at = match.end()

    def _each(self, brackets: bytes) -> Iterator[None]:
        self._take(brackets[:1])
        if self.kind() == chr(brackets[1]):
            self._at += 1
            return
        while True:
            yield
            if self.kind() == chr(brackets[1]):
                self._at += 1
                return
            self._take(b",")

    def _take(self, mark: bytes) -> None:
        if self.kind() != mark.decode():
            self._fail(f"{mark.decode()!r} was expected")
        self._at += 1

    def _fail(self, what: str) -> NoReturn:
        found = self._data[self._at : self._at + 16]
        raise refusal(
            self._source,
            f"at byte {self._at} of its JSON stands {found!r}, and {what}",
            offset=self._at,
            expected=what,
            found=found,
        )


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
