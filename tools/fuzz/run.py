"""Runs families of parsers under atheris, guided by the coverage of the package.

    PYTHONPATH=.:tools python -m fuzz.run tars --seconds 300 --corpus /tmp/fuzzed
    PYTHONPATH=.:tools python -m fuzz.run all --runs 2000

Takes families and limits; gives inputs that were found (in a folder of the corpus for each family) and, where one
fails, its traceback, a file `crash-*` and exit code 1. What fails is: an exception that is none of the package's own,
an input that takes over ten seconds, and memory beyond what was there at the start and MEMORY_BYTES.
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import sys
import warnings
from pathlib import Path
from types import ModuleType

import atheris

from fuzz import FAMILIES
from fuzz.folders import scratch

MEMORY_BYTES = 768 << 20
"""Address space that one process may take above what it has once everything is imported."""
SLOWEST_S = 10
LONGEST_BYTES = 8192


def limit_memory(more_bytes: int) -> None:
    """Let this process take so much more address space, and no more: then it gets a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def fuzz(family: ModuleType, corpus: Path, given: argparse.Namespace) -> None:
    """Fuzz one family; the process ends here."""
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(family.seeds()):
        (corpus / f"seed-{number:03d}").write_bytes(seed)
        family.one(seed)  # whatever is imported late is there now
    limit_memory(MEMORY_BYTES)
    runs = given.runs if given.runs < 0 else max(1, given.runs // getattr(family, "COST", 1))
    options = {
        "atheris_runs": runs,
        "max_total_time": given.seconds,
        "seed": given.seed,
        "timeout": SLOWEST_S,
        "max_len": getattr(family, "LONGEST_BYTES", LONGEST_BYTES),
        "rss_limit_mb": 0,  # the limit above is met first, and tells where
        "artifact_prefix": f"{corpus}-",
        "print_final_stats": 1,
        "verbosity": 0,
    }
    atheris.Setup([sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus)], family.one)
    atheris.Fuzz()


def main() -> int:
    """Fuzz until the time or the number of runs is spent, or something fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="+", help="modules of this package, or all")
    parser.add_argument("--seconds", type=int, default=0, help="of each family; 0: no limit")
    parser.add_argument("--runs", type=int, default=-1, help="of each family, fewer of slow ones; -1: no limit")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="where inputs that reach something new are kept")
    given = parser.parse_args()
    names = list(FAMILIES) if given.families == ["all"] else given.families
    warnings.simplefilter("ignore")  # an input may be warned about; that is not what is looked for
    with atheris.instrument_imports(include=["seta_stream", *(f"fuzz.{name}" for name in names)]):
        families = [importlib.import_module(f"fuzz.{name}") for name in names]
    root = given.corpus or scratch("corpus")
    failed = []
    for name, family in zip(names, families, strict=True):
        sys.stderr.flush()
        child = os.fork()  # imported and instrumented once, fuzzed apart
        if not child:
            fuzz(family, root / name, given)
            os._exit(70)  # not reached: atheris ends the process
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            failed.append(name)
    print(f"{len(names) - len(failed)} families held; failed: {', '.join(failed) or 'none'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
