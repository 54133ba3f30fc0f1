"""docs/watching.md: its commands take the options that it names."""

from __future__ import annotations

import re
from pathlib import Path

from seta_stream.cli.report import command as report
from seta_stream.cli.watch import command as watch

TEXT = (Path(__file__).parents[2] / "docs" / "watching.md").read_text()


def test_the_options_are_there() -> None:
    """Each --option of the page is one of the two commands'."""
    known = {flag for one in (report, watch) for option in one.params for flag in option.opts}
    named = set(re.findall(r"(--[a-z][a-z0-9-]+)", TEXT))
    assert len(named) > 10
    assert named <= known
