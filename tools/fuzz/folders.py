"""Folders for what parsers can only read from files. Imports nothing that is fuzzed."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path


def scratch(name: str) -> Path:
    """Return a new folder that goes with this process, and not with those that it forks."""
    folder, maker = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-")), os.getpid()

    def remove() -> None:
        if os.getpid() == maker:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder
