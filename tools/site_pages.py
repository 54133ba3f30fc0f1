"""Hook of mkdocs: brings the pages that live outside docs/ into the site, and fits the links of all.

Takes the repository as it lies; gives README.md, CONTRIBUTING.md, CHANGELOG.md and each program of examples/ as pages
of the site, and links between them that lead within it. On a forge the same files are read as they are. Effects: reads
files of the repository.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).parent.parent
ROOT_PAGES: Final = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the repository's root, and what they are called in the site."""
LINK: Final = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")


def place_in_site(path: str) -> str | None:
    """Return the source of the site's page or file for one of the repository, or None where it has none."""
    if path in ROOT_PAGES:
        return ROOT_PAGES[path]
    if path.startswith("docs/"):
        inside = path.removeprefix("docs/")
        return inside if posixpath.splitext(inside)[1] else posixpath.join(inside, "index.md")
    if path.startswith("examples/") and path.endswith(".py"):
        return path.removesuffix(".py") + ".md"
    return None


def place_in_repository(source: str) -> str:
    """Return the file of the repository that a page of the site comes from."""
    for path, name in ROOT_PAGES.items():
        if source == name:
            return path
    if source.startswith("examples/"):
        return source.removesuffix(".md") + ".py"
    return f"docs/{source}"


def fitted(text: str, source: str) -> str:
    """Return a page's text with its relative links made for the site.

    A link to what the site does not have stays as it is: the strict build refuses it.

    Args:
        text: Markdown, whose links are relative to the file's place in the repository.
        source: the page of the site.
    """
    at = posixpath.dirname(place_in_repository(source))

    def replaced(link: re.Match[str]) -> str:
        place = place_in_site(posixpath.normpath(posixpath.join(at, link[1])))
        if place is None:
            return link[0]
        return posixpath.relpath(place, posixpath.dirname(source) or ".") + (link[2] or "")

    return LINK.sub(replaced, text)


def program_page(name: str, code: str) -> str:
    """Return a page that shows a program under what its docstring says."""
    told = ast.get_docstring(ast.parse(code)) or name
    return f"# {name}\n\n{told}\n\n```python\n{code.rstrip()}\n```\n"


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages that live outside docs/."""
    for path, source in ROOT_PAGES.items():
        files.append(File.generated(config, source, content=(ROOT / path).read_text()))
    for program in sorted((ROOT / "examples").glob("*.py")):
        content = program_page(f"examples/{program.name}", program.read_text())
        files.append(File.generated(config, f"examples/{program.stem}.md", content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001  (mkdocs's names)
    """Fit the links of every page that is text of the repository."""
    source = page.file.src_uri
    return markdown if source.startswith("examples/") else fitted(markdown, source)
