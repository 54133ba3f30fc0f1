"""HTTP/1.1 as far as a proxy needs it: heads in, heads out, and where a body ends.

Takes: bytes. Gives: bytes and small values. Effects: none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

HEAD_LIMIT = 1 << 16


@dataclass(frozen=True)
class Head:
    """The first line and the header lines of a request or an answer, as they came."""

    first: bytes
    fields: tuple[tuple[bytes, bytes], ...]

    @staticmethod
    def of(data: bytes) -> Head:
        """Parse everything up to the empty line."""
        first, *lines = data.rstrip(b"\r\n").split(b"\r\n")
        fields = []
        for line in lines:
            name, _, value = line.partition(b":")
            fields.append((name, value.strip()))
        return Head(first, tuple(fields))

    def __bytes__(self) -> bytes:
        lines = [self.first, *(b"%s: %s" % field for field in self.fields)]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def get(self, name: str) -> str:
        """Return a header's value, "" where there is none."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.fields if key.lower() == wanted), "")

    def with_field(self, name: str, value: str | None) -> Head:
        """Return the same head with one header set, or without it."""
        lower = name.lower().encode()
        kept = tuple(field for field in self.fields if field[0].lower() != lower)
        return replace(self, fields=kept if value is None else (*kept, (name.encode(), value.encode("latin-1"))))

    @property
    def method(self) -> str:
        """A request's method."""
        return self.first.split(b" ", 1)[0].decode("latin-1")

    @property
    def target(self) -> str:
        """A request's path and query."""
        return self.first.split(b" ")[1].decode("latin-1")

    @property
    def status(self) -> int:
        """An answer's status."""
        return int(self.first.split(b" ")[1])

    @property
    def is_chunked(self) -> bool:
        """Whether the body comes in chunks that say their own length."""
        return self.get("transfer-encoding").lower().endswith("chunked")

    @property
    def closes(self) -> bool:
        """Whether the sender will take nothing more on this connection."""
        said = self.get("connection").lower()
        return said == "close" or (self.first.startswith(b"HTTP/1.0") and said != "keep-alive")


def request_length(head: Head) -> int | None:
    """Return the length of a request's body; None where it comes in chunks."""
    return None if head.is_chunked else int(head.get("content-length") or 0)


def answer_length(head: Head, method: str) -> int | None:
    """Return the length of an answer's body; None where chunks or the end of the connection tell."""
    if method == "HEAD" or head.status < 200 or head.status in {204, 304}:
        return 0
    length = head.get("content-length")
    return int(length) if length and not head.is_chunked else None
