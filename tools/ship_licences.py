"""Which packages come with this one, and their licences, as installed here: the last tables of docs/dependencies.md.

python tools/ship_licences.py prints the tables; tests/test_licences.py compares the page with what is installed.
Reads pyproject.toml and the metadata of installed packages; writes nothing.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
DEVELOPMENT = ("test", "lint", "docs", "bench", "dev")
"""Extras of those who work on the package; the others are its users'."""

SPELLINGS = {
    r"apache.*": "Apache-2.0",
    r"bsd( license)?": "BSD",
    r"(3-clause bsd|bsd 3-clause)( license)?": "BSD-3-Clause",
    r"isc.*": "ISC",
    r"mit( license)?": "MIT",
    r"mozilla public license 2\.0.*": "MPL-2.0",
    r"python software foundation license": "PSF-2.0",
}
"""How packages that know no SPDX expressions call their licence → its expression."""

TEXTS = {"Apache License": "Apache-2.0", "Permission is hereby granted, free of charge": "MIT"}
"""What stands in a licence's text → its expression, for packages that say nothing else."""

PERMISSIVE = {
    "0BSD", "Apache", "BSD", "BSL", "CC0", "CNRI", "HPND", "ISC", "LicenseRef-MPICH", "MIT", "PSF", "Zlib",
}  # fmt: skip
"""Families that ask for no more than their notice."""


def project() -> dict[str, Any]:
    """Return the table `project` of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def direct(extra: str | None = None) -> list[Requirement]:
    """Return what an extra asks for itself; None for what is always needed. Extras of this package are looked into."""
    table = project()
    asked = table["dependencies"] if extra is None else table["optional-dependencies"][extra]
    found = []
    for requirement in map(Requirement, asked):
        if requirement.name == "seta-stream":
            found += [one for inner in sorted(requirement.extras) for one in direct(inner)]
        else:
            found.append(requirement)
    return found


def closure(requirements: Iterable[Requirement]) -> dict[str, Distribution]:
    """Return what is installed of some requirements and of all that they bring in turn, by its canonical name."""
    found: dict[str, Distribution] = {}
    looked_into: set[tuple[str, str]] = set()
    left = [(requirement.name, {"", *requirement.extras}) for requirement in requirements]
    while left:
        name, extras = left.pop()
        try:
            found[canonicalize_name(name)] = one = distribution(name)
        except PackageNotFoundError:
            continue
        for extra in extras:
            if (canonicalize_name(name), extra) not in looked_into:
                looked_into.add((canonicalize_name(name), extra))
                left += list(_asked(one, extra))
    return found


def _asked(one: Distribution, extra: str) -> Iterator[tuple[str, set[str]]]:
    for requirement in map(Requirement, one.requires or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement.name, {"", *requirement.extras}


def licence(one: Distribution) -> str:
    """Return a package's licence as an SPDX expression: from its metadata, else from its licence's text."""
    metadata = one.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    lines = [line for line in metadata.get_all("Classifier") or () if line.startswith("License :: OSI Approved")]
    classifiers = [line.rpartition(" :: ")[2] for line in lines]
    for told in ([(metadata.get("License") or "").strip()], classifiers):
        spelt = [known for known in map(_spelt, told) if known]
        if spelt and len(spelt) == len(told):
            return " OR ".join(sorted(spelt))
    for file in one.files or ():
        if re.search(r"licen[cs]e", file.name, re.IGNORECASE):
            text = Path(str(one.locate_file(file))).read_text(errors="replace")
            for words, expression in TEXTS.items():
                if words in text:
                    return expression
    return "unknown"


def _spelt(told: str) -> str | None:
    """Return what a package calls its licence as an SPDX expression; None where it is not understood."""
    if re.fullmatch(r"MIT|ISC|[A-Za-z\d.]+(-[A-Za-z\d.]+)+|.+ (AND|OR) .+", told):
        return told
    return next((name for words, name in SPELLINGS.items() if re.fullmatch(words, told, re.IGNORECASE)), None)


def families(expression: str) -> set[str]:
    """Return the families that an expression, or several with commas between, names: Apache, BSD, …; else as spelt."""
    found = set()
    for name in re.split(r"\s+(?:AND|OR)\s+|[(),;]", expression.strip()):
        spelt = name.partition(" WITH ")[0].strip()
        if spelt:
            head = re.match(r"0BSD|Apache|BSD|BSL|CC0|CNRI|HPND|ISC|MIT-CMU|MIT|MPL|PSF|Zlib", spelt)
            found.add({"MIT-CMU": "HPND"}.get(head[0], head[0]) if head else spelt)
    return found


def table(packages: dict[str, Distribution]) -> str:
    """Return the rows `| licence | packages |`, most packages first."""
    groups: dict[str, list[str]] = {}
    for name, one in sorted(packages.items()):
        groups.setdefault(licence(one), []).append(name)
    rows = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    return "\n".join(f"| {expression} | {', '.join(names)} |" for expression, names in rows)


def main() -> None:
    """Print the packages that the direct ones bring: always, with users' extras, and with development's besides."""
    extras = project()["optional-dependencies"]
    groups = {
        "Always": (None,),
        "With the extras of users": [extra for extra in extras if extra not in DEVELOPMENT],
        "With those of development, besides": DEVELOPMENT,
    }
    shown: set[str] = set()
    for title, members in groups.items():
        asked = [one for extra in members for one in direct(extra)]
        shown |= {canonicalize_name(one.name) for one in asked}
        rest = {name: one for name, one in closure(asked).items() if name not in shown}
        shown |= set(rest)
        print(f"{title}:\n\n| licence | packages |\n|---|---|\n{table(rest)}\n")


if __name__ == "__main__":
    main()
