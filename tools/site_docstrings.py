"""Extension of griffe: arguments that share a line of a docstring ("starts, stops: …") get a row each.

Takes docstrings in the form of this code; gives them in the form that griffe's Google parser reads, so that each
argument is checked against the signature and shown with its type. Effects: none on files.
"""

from __future__ import annotations

import re
from typing import Any, Final

import griffe

SECTION: Final = re.compile(r"^(?:Args|Attributes):\n((?:[ ]{4,}.*(?:\n|\Z)|\n(?=[ ]{4}))+)", re.MULTILINE)
"""A section of a docstring without its indentation, and the lines below its head."""
TOGETHER: Final = re.compile(r"^[ ]{4}(\w+(?:, \w+)+):(.*(?:\n+[ ]{8,}.*)*)", re.MULTILINE)
"""Names that share a line, and what is said of them, further lines included."""


def apart(docstring: str) -> str:
    """Return the docstring with an entry for each name of those that share one."""

    def entries(found: re.Match[str]) -> str:
        return "\n".join(f"    {name}:{found[2]}" for name in found[1].split(", "))

    return SECTION.sub(lambda section: TOGETHER.sub(entries, section[0]), docstring)


class TogetherInOneLine(griffe.Extension):
    """Rewrites the docstring of every object before it is parsed."""

    def on_object(self, *, obj: griffe.Object, loader: griffe.GriffeLoader, **kwargs: Any) -> None:  # noqa: ARG002
        """Give the object's docstring an entry per name."""
        if obj.docstring is not None:
            obj.docstring.value = apart(obj.docstring.value)
