"""docs/dependencies.md names what comes with this package, under the licences that they themselves name."""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import Distribution
from pathlib import Path

import pytest
import ship_licences as licences
from packaging.utils import canonicalize_name

PAGE = Path(__file__).parent.parent / "docs" / "dependencies.md"
EXTRAS = (None, *licences.project()["optional-dependencies"])
ACCEPTED = {*licences.PERMISSIVE, "MPL"}
"""The page says why no other."""
NOT_OF_PIP = ("Chromium", "nginx")
OSI = "Classifier: License :: OSI Approved ::"


@cache
def installed() -> dict[str, Distribution]:
    """Return every installed package that this one or an extra of it brings, by canonical name."""
    return licences.closure(one for extra in EXTRAS for one in licences.direct(extra))


@cache
def rows() -> list[tuple[str, str]]:
    """Return (names, licence) of each row of the page's tables, but those of packages that pip does not bring."""
    found, at = [], (0, 0)
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if "licence" in cells:
            at = (cells.index("package" if "package" in cells else "packages"), cells.index("licence"))
        elif line.startswith("| ") and not any(word in line for word in NOT_OF_PIP):
            found.append((cells[at[0]], cells[at[1]]))
    return found


def told(name: str) -> set[str]:
    """Return the families of licences that the page names for a package; empty where it does not name the package."""
    word = re.compile(rf"(?<![\w.-]){name.replace('-', '[-_.]')}(?![\w-])", re.IGNORECASE)
    found = [licences.families(cell) for names, cell in rows() if word.search(names)]
    return set.union(*found) if found else set()


def disagreement(name: str, one: Distribution) -> str | None:
    """Return how the page and a package differ; None where the page names its licence, and each that asks for more."""
    page, own = told(name), licences.families(licences.licence(one))
    if own - licences.PERMISSIVE <= page and own & page:
        return None
    return f"{name}: the page says {sorted(page) or 'nothing'}, the package {licences.licence(one)}"


@pytest.mark.parametrize("extra", EXTRAS)
def test_direct_dependencies_have_the_licence_that_the_page_names(extra: str | None) -> None:
    """Each one that is installed; so does what an extra of ours brings."""
    names = {canonicalize_name(one.name) for one in licences.direct(extra)}
    assert names
    assert not sorted(name for name in names if not told(name)), "docs/dependencies.md has no row for these"
    found = [disagreement(name, installed()[name]) for name in names if name in installed()]
    assert [one for one in found if one] == []


def test_all_that_the_core_brings_is_listed() -> None:
    """What an installation without extras holds stands on the page, package by package."""
    core = licences.closure(licences.direct())
    assert {"numpy", "scikit-learn", "scipy", "markdown-it-py"} <= set(core)
    assert "torch" not in core
    assert [one for one in (disagreement(name, package) for name, package in sorted(core.items())) if one] == []


def test_all_that_asks_for_more_than_its_notice_is_listed() -> None:
    """A package that no row names is permissive; one that a row names is what the row says."""
    assert len(installed()) > 150
    found = [
        disagreement(name, one)
        for name, one in sorted(installed().items())
        if told(name) or not licences.families(licences.licence(one)) <= licences.PERMISSIVE
    ]
    assert [one for one in found if one] == []


def test_the_page_accepts_no_other_copyleft() -> None:
    """What it lists is permissive or MPL-2.0, whose terms end with the package's own files."""
    assert len(rows()) > 60
    named = {(names, family) for names, cell in rows() for family in licences.families(cell)}
    assert {(names, family) for names, family in named if family not in ACCEPTED} == set()
    assert "MPL-2.0 alone is accepted" in " ".join(PAGE.read_text().split())


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("License-Expression: BSD-3-Clause AND MIT", "BSD-3-Clause AND MIT"),
        ("License: Apache 2.0", "Apache-2.0"),
        ("License: GPL-3.0-only", "GPL-3.0-only"),
        (f"License: UNKNOWN\n{OSI} MIT License", "MIT"),
        (f"{OSI} Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
        (f"License: Dual License\n{OSI} BSD License\n{OSI} Apache Software License", "Apache-2.0 OR BSD"),
        (f"{OSI} BSD License\n{OSI} GNU General Public License (GPL)", "unknown"),
        ("Summary: says nothing", "unknown"),
    ],
)
def test_licences_are_read_from_metadata(metadata: str, expected: str, tmp_path: Path) -> None:
    """In every way that packages write them; what is not understood is no permissive licence."""
    folder = tmp_path / "one-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: one\nVersion: 1\n{metadata}\n")
    found = licences.licence(Distribution.at(folder))
    assert found == expected
    assert (licences.families(found) <= licences.PERMISSIVE) == bool(re.match("BSD|Apache|MIT", expected))


def test_a_licence_is_read_from_its_text(tmp_path: Path) -> None:
    """Where the metadata say nothing."""
    folder = tmp_path / "one-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.4\nName: one\nVersion: 1\n")
    (folder / "LICENSE.txt").write_text("                Apache License\n          Version 2.0\n")
    (folder / "RECORD").write_text("one-1.dist-info/LICENSE.txt,,\n")
    assert licences.licence(Distribution.at(folder)) == "Apache-2.0"
