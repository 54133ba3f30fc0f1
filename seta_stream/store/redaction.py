"""What must not stand in a message: keys, tokens, signatures. Pure: takes texts and options, gives texts.

Clients put whole requests into their errors. Whatever looks like a credential goes out of their text, and whatever the
caller gave as one, however it looks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

HIDDEN: Final = "…"
LONGEST: Final = 300
SHORTEST_SECRET: Final = 4
"""A shorter value is no credential, and hiding it would tear words apart."""

_SECRET_OPTION: Final = re.compile(r"key|secret|token|passw|sas|cred|connection_string|sign|auth|cookie", re.IGNORECASE)
_HARMLESS_OPTION: Final = re.compile(r"region|endpoint|sign\w*version|account_name", re.IGNORECASE)
_NAMES: Final = (
    r"x-amz-[a-z-]*(?:signature|token|credential)|x-goog-(?:signature|credential)|signature|sig|"
    r"(?:proxy-)?authorization|cookie|accountkey|sharedaccesssignature|awsaccesskeyid|(?:aws_)?access_?key(?:_?id)?|"
    r"(?:aws_)?secret(?:_?access)?_?key|client_secret|(?:\w+_)?(?:security)?token|password|"
    r"account_key|sas_token|credential"
)
_PATTERNS: Final = (
    (re.compile(r"(\w+://)[^\s/@'\"]+:[^\s/@'\"]*@"), rf"\1{HIDDEN}@"),
    (re.compile(r"(https?://[^\s?'\"<>]+)\?[^\s'\"<>]+"), rf"\1?{HIDDEN}"),
    (re.compile(r"\b(?:bearer|basic|sharedkey|aws4-hmac-sha256)\s+[^\s'\"<>].*", re.IGNORECASE), HIDDEN),
    (re.compile(rf"(<({_NAMES})>)[^<]*", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(rf"(?<![\w-])((?:{_NAMES})['\"]?\s*[=:]\s*)(['\"]?)[^\s'\"&;,<>)]+", re.IGNORECASE), rf"\1\2{HIDDEN}"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"), HIDDEN),
)


def secrets_of(options: Mapping[str, Any]) -> frozenset[str]:
    """Return the values in storage options that are credentials, by their names; nested ones too."""
    return frozenset(_secrets(options, is_secret=False))


def _secrets(value: Any, *, is_secret: bool) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, one in value.items():
            named = str(name)
            is_named_so = bool(_SECRET_OPTION.search(named)) and not _HARMLESS_OPTION.search(named)
            yield from _secrets(one, is_secret=is_secret or is_named_so)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for one in value:
            yield from _secrets(one, is_secret=is_secret)
    elif is_secret and isinstance(value, (str, bytes)):
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if len(text) >= SHORTEST_SECRET:
            yield text
            parts = (part.partition("=") for part in text.split(";"))  # of a connection string
            yield from (one for name, _, one in parts if _SECRET_OPTION.search(name) and len(one) >= SHORTEST_SECRET)


def redact(text: str, secrets: Collection[str] = ()) -> str:
    """Return a text as one short line that holds no credential.

    Args:
        text: of an error.
        secrets: values that must not stand there.
    """
    line = " ".join(text.split())
    for secret in sorted((" ".join(one.split()) for one in secrets), key=len, reverse=True):
        line = line.replace(secret, HIDDEN) if secret else line
    for pattern, by in _PATTERNS:
        line = pattern.sub(by, line)
    return line if len(line) <= LONGEST else line[: LONGEST - 1].rstrip() + HIDDEN
