"""Every code block of README and docs runs as a reader would run it, or says why it does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from block_runner import IGNORED, ONE_THREAD, SETUPS, SHELL, Setup, is_run, places, run_page
from markdown_blocks import MARKDOWN, PAGES, ROOT, every_block

BLOCKS = every_block()
PARTS = [
    (page, part)
    for page, blocks in BLOCKS.items()
    for part in dict.fromkeys(Setup(page).part_of(block) for block in blocks if is_run(block))
]
"""Each page, and each process that some of its sections have to themselves."""

REASONS = {
    r"downloads packages": "installing is tested by tests/test_shipping.py and, for the README's line, by CI itself",
    r"needs several machines": "torchrun across machines, Slurm",
    r"needs a (Ray|Spark) cluster": "of the reader's",
    r"package not installed here": "another loader's code, shown beside ours",
    r"(examples/\w+\.py) is run instead": "the same in a program that tests/test_examples.py runs",
}
"""Why a block may stand unrun; whatever else it says is refused."""
FIGURES = {"": "a drawing, a folder or what a command printed", "blocks": "tests/read/test_cache_format.py",
           "index": "tests/corpus/test_index_file.py", "table": "tests/corpus/test_index_file.py"}  # fmt: skip
"""Languages that are no code, and what holds the hex dumps true."""

LIMIT_S = 200.0
"""A part imports a framework or two: 10 s alone, over a minute on a busy machine."""

pytestmark = [
    pytest.mark.timeout(LIMIT_S + 20),
    *(pytest.mark.filterwarnings(f"ignore:{message}") for message in IGNORED),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # the unclosed files' again
]


@pytest.mark.parametrize(("page", "part"), PARTS, ids=[f"{page}-{part}".rstrip("-") for page, part in PARTS])
def test_the_blocks_of_a_page_run(page: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one namespace and one folder; and each has done what its setup says it does."""
    if part:
        command = [sys.executable, str(Path(__file__).with_name("block_runner.py")), page, part, str(tmp_path)]
        environment = {**os.environ, **ONE_THREAD}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return
    monkeypatch.chdir(tmp_path)
    assert run_page(page, part, tmp_path) > 0


def test_every_block_is_run_or_says_why_not() -> None:
    """A block's language is known; the reason of one that is not run is one of few, and names what is there."""
    unrun: Counter[str] = Counter()
    for block in (block for blocks in BLOCKS.values() for block in blocks):
        assert block.language in ("python", *SHELL, *FIGURES), f"{block} is of an unknown language"
        if block.reason is None:
            continue
        found = [match for match in (re.fullmatch(known, block.reason) for known in REASONS) if match]
        assert found, f"{block} is not run, and {block.reason!r} is no reason: {', '.join(REASONS)}"
        assert block.language not in FIGURES, f"{block} is no code, so it needs no reason"
        assert all((ROOT / name).exists() for name in found[0].groups() if name and name.startswith("examples/")), block
        unrun[found[0].re.pattern] += 1
    ran = sum(is_run(block) for blocks in BLOCKS.values() for block in blocks)
    assert set(unrun) == set(REASONS), "a reason that no block has"
    assert ran > 3 * unrun.total(), (ran, unrun)


def test_code_stands_in_fences() -> None:
    """An indented block would be run by nobody; those of docs/commands.md are the examples of --help."""
    indented = {page.name for page in PAGES for token in MARKDOWN.parse(page.read_text()) if token.type == "code_block"}
    assert indented == {"commands.md"}


def test_a_reason_belongs_to_the_block_below_it() -> None:
    """A comment that stands elsewhere says nothing, and would hide that a block came or went."""
    for page, blocks in BLOCKS.items():
        told = len(re.findall(r"^\s*<!-- not run:", (ROOT / page).read_text(), re.MULTILINE))
        assert told == sum(block.reason is not None for block in blocks), page


def test_every_setup_is_of_use() -> None:
    """Each belongs to a page; what it puts before and after blocks, and replaces, is there."""
    used = set()
    for page, blocks in BLOCKS.items():
        setup = Setup(page)
        used.add(setup.path.name)
        here = [place for place, block in zip(places(blocks), blocks, strict=True) if is_run(block)]
        assert {*setup.before, *setup.after} <= set(here), page
        assert {section for part in setup.alone.values() for section in part} <= {block.section for block in blocks}
        code = "".join(block.code for block in blocks if is_run(block))
        assert [text for text in setup.replace if text not in code] == [], page
    assert {path.name for path in SETUPS.glob("*.py")} <= used
