"""Runs the code blocks of one page, in order, in a folder.

What a page's code takes for given (a corpus, a model, a name that the reader has) is made by its setup,
tests/code_blocks/<page>.py, a module with some of:

    names(folder, blocks) -> dict     what the first block finds: the namespace that all python blocks share
    BEFORE, AFTER                     {place: function(namespace)}: what is put in place before a block, and what must
                                      be true after it. A place is a section's title; "Title 2" is its second block
    REPLACE                           {text: other text}: what cannot be had as it is written, in python and in shell
    ALONE                             {name: sections}: sections that run in a process of their own

Python blocks are compiled at their own line of the page, so a traceback points there; shell blocks go to bash, which
stops at the first command that fails. Also a program: python block_runner.py PAGE PART FOLDER.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from markdown_blocks import ROOT, Block, blocks_of

SETUPS: Final = Path(__file__).parent / "code_blocks"
PATHS: Final = {
    "s3://bucket/": "./bucket/",
    "gs://bucket/": "./bucket/",
    "/shared/": "./shared/",
    "/mnt/nvme/": "./nvme/",
    "/data/": "./data/",
}
"""Places that a page's code names, and where they lie in its folder. All pages' code is read with these."""
IGNORED: Final = {
    "This DataLoader will create": "pages advise what real machines have; this one has two cores",
    ".*does not have many workers": "likewise, Lightning's",
    "'set_vital' is deprecated": "torch's StatefulDataLoader asks for its own deprecated name",
    ".*isinstance.treespec, LeafSpec": "Lightning 2.6 calls what torch 2.13 deprecates",
    ".*unclosed file": "webdataset leaves files to the collector",
    ".*pin_memory": "torch pins memory for accelerators alone, and there is none",
}
"""Warnings, by how their text begins, that say nothing of the page."""
SHELL: Final = ("sh", "bash")
SHELL_S: Final = 100.0
ONE_THREAD: Final = {"OMP_NUM_THREADS": "1"}
"""For programs whose arrays are this small more threads only wait for each other."""
Known = dict[str, Any]
Step = Callable[[Known], object]


class Setup:
    """What a page's code takes for given, with nothing where the page has no setup."""

    def __init__(self, page: str) -> None:
        self.path = SETUPS / f"{page.removeprefix('docs/').removesuffix('.md').replace('/', '_').lower()}.py"
        module = _loaded(self.path) if self.path.exists() else ModuleType("nothing")
        self.names: Callable[[Path, Sequence[Block]], Known] = getattr(module, "names", lambda _folder, _blocks: {})
        self.before: Mapping[str, Step] = getattr(module, "BEFORE", {})
        self.after: Mapping[str, Step] = getattr(module, "AFTER", {})
        self.replace: Mapping[str, str] = getattr(module, "REPLACE", {})
        self.alone: Mapping[str, Sequence[str]] = getattr(module, "ALONE", {})

    def read(self, code: str) -> str:
        """Return code with the texts replaced that cannot be had as they are written."""
        for told, here in {**self.replace, **PATHS}.items():
            code = code.replace(told, here)
        return code

    def part_of(self, block: Block) -> str:
        """Return the name of the process that a block runs in; "" is the caller's."""
        return next((name for name, sections in self.alone.items() if block.section in sections), "")


def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"code_blocks_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def places(blocks: Sequence[Block]) -> list[str]:
    """Return the name by which a setup means each block: its section, and from the second on its number there."""
    counts: dict[str, int] = {}
    named = []
    for block in blocks:
        counts[block.section] = counts.get(block.section, 0) + 1
        named.append(block.section if counts[block.section] == 1 else f"{block.section} {counts[block.section]}")
    return named


def run_page(page: str, part: str, folder: Path) -> int:
    """Run the blocks of a page's part that are run here; return how many there were. The working folder is `folder`."""
    setup, blocks = Setup(page), blocks_of(ROOT / page)
    wanted = [(place, block) for place, block in zip(places(blocks), blocks, strict=True) if is_run(block)]
    wanted = [(place, block) for place, block in wanted if setup.part_of(block) == part]
    known: Known = {"__name__": "__main__", **setup.names(folder, blocks)}
    for place, block in wanted:
        if place in setup.before:
            setup.before[place](known)
        if block.language == "python":
            # Compiled where it stands: a traceback shows the page's own line.
            code = "\n" * (block.line - 1) + setup.read(block.code)
            exec(compile(code, str(ROOT / page), "exec", dont_inherit=True), known)
        else:
            run_shell(block, setup.read(block.code), folder)
        if place in setup.after:
            setup.after[place](known)
    return len(wanted)


def is_run(block: Block) -> bool:
    """Tell whether a block is code that runs here."""
    return block.reason is None and block.language in ("python", *SHELL)


def run_shell(block: Block, code: str, folder: Path) -> None:
    """Let bash run a block; the first command that fails fails it."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder, env={**os.environ, **ONE_THREAD, "PATH": path}, capture_output=True, text=True, timeout=SHELL_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{block} ended with {done.returncode}:\n{done.stdout}{done.stderr}"


if __name__ == "__main__":
    warnings.simplefilter("error")
    for message in IGNORED:
        warnings.filterwarnings("ignore", message)
    os.chdir(sys.argv[3])
    sys.exit(run_page(sys.argv[1], sys.argv[2], Path(sys.argv[3])) == 0)
