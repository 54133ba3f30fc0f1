"""What a fault proxy can break, and which request it breaks.

Takes: shares, a seed, heads. Gives: names of faults, changed heads. Effects: none.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from servers.http1 import Head

KINDS: dict[str, str] = {
    "reset": "the connection is reset (RST) before an answer",
    "reset-body": "the connection is reset in the middle of the body",
    "500": "500 Internal Server Error",
    "503": "503 Service Unavailable",
    "503-after": "503 Service Unavailable with Retry-After: 1",
    "429": "429 Too Many Requests",
    "truncated": "half the promised body, then the connection is closed",
    "short": "half the body, and headers that say that this is all of it",
    "stalled": "half the body, then nothing for as long as the client waits",
    "etag": "an answer of another version: another ETag and other bytes; 412 where the request said If-Match",
    "slow": "the first byte comes late",
}
# These need a body to break; where an answer has none they do not happen.
IN_BODY = frozenset({"reset-body", "truncated", "short", "stalled"})
OTHER_VERSION = '"00000000-another-version"'
CODES = {403: "AccessDenied", 404: "NoSuchKey", 429: "TooManyRequests", 500: "InternalError", 503: "SlowDown"}


def is_status(kind: str) -> bool:
    """Return whether a fault is an answer with an error's status; any of 400–599 is one, with or without -after."""
    return kind.removesuffix("-after").isdigit()


def checked(kind: str) -> str:
    """Return the name of a fault, "ok" among them.

    Raises:
        ValueError: there is no such fault.
    """
    if kind == "ok" or kind in KINDS or (is_status(kind) and kind[0] in "45" and len(kind.removesuffix("-after")) == 3):
        return kind
    raise ValueError(f"inject a fault: no kind {kind!r}; kinds are 'ok', {', '.join(KINDS)}, or a status as '404'")


def shares_of(faults: Mapping[str, float] | float, kinds: Sequence[str] | None) -> dict[str, float]:
    """Return the share of requests that meet each fault.

    Args:
        faults: a share for each kind, or one share for all of them together.
        kinds: which kinds one share is divided over; None: all.
    """
    if not isinstance(faults, Mapping):
        chosen = list(KINDS) if kinds is None else list(kinds)
        faults = dict.fromkeys(chosen, faults / len(chosen)) if faults else {}
    shares = {checked(kind): float(share) for kind, share in faults.items()}
    if not 0 <= sum(shares.values()) <= 1 + 1e-9 or any(share < 0 for share in shares.values()):
        raise ValueError(f"inject faults: shares must be 0 or more and add up to at most 1, found {shares}")
    return shares


class Draws:
    """Draws a fault for each request: by seed and by the request itself, not by the order of arrival."""

    def __init__(self, shares: Mapping[str, float], seed: int) -> None:
        self.shares = dict(shares)
        self._seed = seed
        self._attempts: Counter[str] = Counter()

    def kind_for(self, request: Head) -> str:
        """Return the fault for a request, or "ok"; the same request gets another draw each time it comes."""
        key = f"{request.method} {request.target} {request.get('range') or request.get('x-ms-range')}"
        attempt = self._attempts[key]
        self._attempts[key] += 1
        digest = hashlib.blake2b(f"{self._seed} {attempt} {key}".encode(), digest_size=8).digest()
        at = int.from_bytes(digest, "big") / 2**64
        for kind, share in self.shares.items():
            if at < share:
                return kind
            at -= share
        return "ok"


def error_answer(kind: str, method: str) -> bytes:
    """Return a whole answer with an error's status, as S3 words it."""
    status = int(kind.removesuffix("-after"))
    body = f"<Error><Code>{CODES.get(status, 'Injected')}</Code><Message>injected</Message></Error>".encode()
    lines = [
        f"HTTP/1.1 {status} Injected",
        "Content-Type: application/xml",
        f"Content-Length: {len(body)}",
        *(["Retry-After: 1"] if kind.endswith("-after") else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if method == "HEAD" else body)


def shortened(head: Head, length: int) -> Head:
    """Return an answer's head that claims fewer bytes, in its Content-Range too."""
    head = head.with_field("Content-Length", str(length))
    if span := head.get("content-range"):
        start = int(span.removeprefix("bytes ").split("-")[0])
        total = span.rpartition("/")[2]
        head = head.with_field("Content-Range", f"bytes {start}-{start + length - 1}/{total}")
    # A checksum would give the lie away; a store that cuts answers short does not sum them up before.
    for name in ("Content-MD5", "x-ms-blob-content-md5", "x-amz-checksum-crc32"):
        head = head.with_field(name, None)
    return head


def of_other_version(head: Head) -> Head:
    """Return an answer's head with the ETag of another version."""
    fields = tuple(field for field in head.fields if field[0].lower() != b"etag")
    return replace(head, fields=(*fields, (b"ETag", OTHER_VERSION.encode())))
