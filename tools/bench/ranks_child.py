"""One simulated rank in a process of its own: a case comes as JSON on stdin, its figures go out as JSON."""

from __future__ import annotations

import json
import sys
import tempfile

from _common import WORK
from ranks_rig import Case, run_case

if __name__ == "__main__":
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK, prefix="ranks-") as state:
        print(json.dumps(run_case(Case(**json.load(sys.stdin)), state)))
