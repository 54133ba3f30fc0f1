"""What names one version of an object, the same whichever client asked. Pure: takes answers, gives values.

An index made through one client is valid through any other, and what a listing tells agrees with what the object itself
tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from seta_stream.store.faults import Fault
from seta_stream.store.objects import ObjectInfo

GOOGLE: Final = frozenset({"gs", "gcs"})
UNVERSIONED: Final = "size"
"""The version of an object of which the store tells nothing but its size."""

_ETAGS: Final = ("ETag", "etag", "e_tag")
_TIMES: Final = ("mtime", "LastModified", "last_modified", "modified", "created", "md5Hash")
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


def of_etag(etag: str) -> str:
    """Return the version of an ETag; quotes differ between clients, and the weak mark between a server's answers."""
    return f"etag:{etag.strip().removeprefix('W/').strip(chr(34))}"


def of_facts(protocol: str, facts: Mapping[str, Any]) -> ObjectInfo:
    """Return size and version from what an fsspec file system tells of an object.

    Raises:
        Fault: there is a folder, or the size is not told.
    """
    if facts.get("type") == "directory":
        raise Fault("missing", "there is a folder of that name")
    size = facts.get("size")
    if size is None:
        raise Fault("broken", "the store does not tell the size")
    if protocol in GOOGLE and facts.get("generation") is not None:
        # Google's two interfaces give different ETags for the same object; both tell its generation.
        return ObjectInfo(int(size), f"generation:{facts['generation']}")
    etag = next((str(facts[name]) for name in _ETAGS if facts.get(name)), None)
    if etag is not None:
        return ObjectInfo(int(size), of_etag(etag))
    time = next((facts[name] for name in _TIMES if facts.get(name) is not None), None)
    return ObjectInfo(int(size), UNVERSIONED if time is None else f"time:{_spelt(time)}")


def _spelt(time: Any) -> str:
    """Return one spelling of a time: a file system may list seconds and tell a date of the object itself."""
    seconds = time.timestamp() if isinstance(time, datetime) else time
    return str(round(seconds * 1e6)) if isinstance(seconds, (int, float)) else str(seconds)


def of_headers(size: int, headers: Mapping[str, str]) -> ObjectInfo:
    """Return size and version from the headers of an HTTP answer."""
    if etag := headers.get("ETag"):
        return ObjectInfo(size, of_etag(etag))
    modified = headers.get("Last-Modified")
    return ObjectInfo(size, f"time:{modified}" if modified else UNVERSIONED)


def content_range(value: str) -> tuple[int | None, int | None, int | None]:
    """Return first byte, last byte and size of the whole from a Content-Range header; None for what it leaves out."""
    found = _CONTENT_RANGE.fullmatch(value.strip())
    if found is None:
        return None, None, None
    first, last, size = (int(one) if one and one != "*" else None for one in found.groups())
    return first, last, size


def check_same(found: ObjectInfo, expected: ObjectInfo) -> None:
    """Refuse bytes of another version than the one that is read.

    Raises:
        Fault: size or version differ.
    """
    if found != expected:
        raise Fault(
            "changed",
            f"it had {expected.size} bytes ({expected.version}) and has {found.size} ({found.version})",
        )


def check_length(found: int, expected: int) -> None:
    """Refuse a body that is shorter or longer than what was asked for.

    Raises:
        Fault: it is; another attempt may bring all of it.
    """
    if found != expected:
        raise Fault("transient", f"{found} of {expected} bytes came")


def check_range(told: str | None, start: int, stop: int) -> None:
    """Refuse an answer whose Content-Range is not that of the bytes start … stop − 1; None tells nothing.

    Raises:
        Fault: it is another one; another attempt may bring the right one.
    """
    if told and content_range(told)[:2] != (start, stop - 1):
        raise Fault("transient", f"{told} came for bytes {start}-{stop - 1}")
