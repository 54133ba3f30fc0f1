"""README and docs say what is true: their code fits the package, and their links lead somewhere."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_blocks import PAGES, ROOT, every_block, headings_of, links_of

import seta_stream
from seta_stream import Reading, SeTa, SetaStream

SIGNATURES = {
    "SetaStream": set(inspect.signature(SetaStream).parameters),
    "SetaDataset": {*inspect.signature(SetaStream).parameters, "batches"},
    "SetaWebDataset": set(inspect.signature(SetaStream).parameters),
    "SeTa": set(inspect.signature(SeTa).parameters),
    "Reading": set(inspect.signature(Reading).parameters),
}


def test_code_fits_the_package() -> None:
    """Every block parses, imports names that are there, and passes options that are there."""
    seen = 0
    python = (block for blocks in every_block().values() for block in blocks if block.language == "python")
    for block in python:
        page = str(block)
        for node in ast.walk(ast.parse(block.code)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SIGNATURES:
                unknown = {keyword.arg for keyword in node.keywords} - SIGNATURES[node.func.id]
                assert not unknown, f"{page}: {node.func.id} has no {unknown}"
                seen += 1
            elif isinstance(node, ast.ImportFrom) and node.module == "seta_stream":
                assert {alias.name for alias in node.names} <= set(seta_stream.__all__), page
    assert seen > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A link within the repository names a file that is there, and a heading of it."""
    for link in links_of(page.read_text()):
        target, _, anchor = unquote(link).partition("#")
        if target.startswith(("https:", "http:")):
            continue
        path = page.parent / target if target else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor and "api" not in path.parts:  # those of docstrings are the site's
            assert anchor in headings_of(path.read_text()), f"{page.name} links to {link}"


def test_ci_runs_the_command_of_the_readme() -> None:
    """Exactly one line of the README makes an environment and runs the tests; .ci/run takes it from there."""
    pattern = re.compile(r"^python3 -m venv \.venv .* -m pytest.*$", re.MULTILINE)
    assert len(pattern.findall((ROOT / "README.md").read_text())) == 1
    assert pattern.pattern.split(".*$")[0] in (ROOT / ".ci" / "run").read_text()


def test_every_dependency_is_named_with_its_reason() -> None:
    """docs/dependencies.md has a line for each name in pyproject.toml."""
    told = (ROOT / "docs" / "dependencies.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = {re.split(r"[>=\[]", name)[0] for names in listed for name in names} - {"seta-stream"}
    assert len(wanted) > 15
    assert sorted(name for name in wanted if name not in told) == []
