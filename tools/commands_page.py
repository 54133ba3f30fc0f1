"""Writes into docs/commands.md what the commands themselves say: usage, help, examples, arguments and options.

    python tools/commands_page.py            # writes
    python tools/commands_page.py --check    # exits with 1 where the page is not up to date

Takes the page and the tree of commands; gives the page with its generated parts made anew: those between
`<!-- begin NAME -->` and `<!-- end -->`. The rest is written by hand.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from seta_stream.cli import COMMANDS, main

PAGE: Final = Path(__file__).parent.parent / "docs" / "commands.md"
PART: Final = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
SHARED_FROM: Final = 5
"""An option that so many commands have, with the same words, is told once."""
SHARED: Final = "options"
_SMALL: Final = 1000
"""A limit above this keeps only nonsense out."""
_EXAMPLES: Final = re.compile(r"\n*\x08\nExamples:\n((?:    .*\n?)+)")


def commands() -> dict[str, click.Command]:
    """Return every command by its name."""
    context = click.Context(main, info_name="seta-stream")
    found = {name: main.get_command(context, name) for name in COMMANDS}
    return {name: command for name, command in found.items() if command is not None}


def examples(command: click.Command) -> list[str]:
    """Return the lines that a command's help shows to be copied; one that goes on in the next is one."""
    found = _EXAMPLES.search(_help(command))
    text = "" if found is None else inspect.cleandoc(found[1])
    return re.sub(r"\\\n\s*", "", text).splitlines()


def shared() -> dict[str, click.Option]:
    """Return the options that many commands have with the same words, by their longest name."""
    options = [option for command in commands().values() for option in _options(command)]
    counts = Counter((option.opts[-1], option.help) for option in options)
    return {option.opts[-1]: option for option in options if counts[option.opts[-1], option.help] >= SHARED_FROM}


def part(name: str) -> str:
    """Return what is generated of a command, or of the options that many have."""
    if name == SHARED:
        return "\n".join(_table(list(shared().values())))
    command = commands()[name]
    told = _EXAMPLES.sub("", _help(command))
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    usage = " ".join(["seta-stream", name, "[OPTIONS]", *map(_argument, arguments)])
    lines = [f"    {usage}", "", *_paragraphs(told), "Examples:", "", *_indented(_EXAMPLES.search(_help(command)))]
    told_there = {name: option.help for name, option in shared().items()}
    own = [one for one in _options(command) if told_there.get(one.opts[-1]) != one.help]
    besides = [f"`{one.opts[-1]}`" for one in _options(command) if one not in own]
    if own:
        lines += ["", *_table(own)]
    if besides:
        lines += ["", f"Besides, as [many commands](#options-that-many-commands-have): {', '.join(besides)}."]
    return "\n".join(lines)


def page(text: str) -> str:
    """Return the page with its generated parts made anew."""
    return PART.sub(lambda match: f"{match[1]}\n{part(match[2])}\n\n{match[3]}", text)


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "")


def _options(command: click.Command) -> list[click.Option]:
    return [one for one in command.params if isinstance(one, click.Option)]


def _argument(argument: click.Argument) -> str:
    kind = argument.type
    name = "|".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else (argument.name or "").upper()
    name += "..." * (argument.nargs == -1)
    return name if argument.required else f"[{name}]"


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\n+", text.strip()):
        yield _escaped(" ".join(paragraph.split()))
        yield ""


def _escaped(text: str) -> str:
    return re.sub(r"([*|])", r"\\\1", text).replace("<", "&lt;")


def _indented(found: re.Match[str] | None) -> list[str]:
    return [f"    {line}".rstrip() for line in inspect.cleandoc(found[1] if found else "").splitlines()]


def _table(options: list[click.Option]) -> list[str]:
    rows = [f"| {_names(option)} | {_escaped(_told(option))} |" for option in options]
    return ["| option | meaning |", "| --- | --- |", *rows]


def _names(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    return names if option.is_flag else f"{names} {_value(option)}"


def _value(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return " \\| ".join(f"`{choice}`" for choice in option.type.choices)
    return option.metavar or option.type.name.upper()


def _told(option: click.Option) -> str:
    """Return an option's help with what click would add to it."""
    help_text = " ".join((option.help or "").split()).replace("[default: ", "(default: ").replace("]", ")")
    more = ["required"] if option.required else []
    if option.show_default and option.default is not None:
        more.append(f"default: {option.default:,}" if isinstance(option.default, int) else f"default: {option.default}")
    kind = option.type
    if isinstance(kind, click.IntRange | click.FloatRange) and option.opts[-1] != "--seed":
        if kind.max is not None and kind.max <= _SMALL:
            more.append(f"{kind.min:g} to {kind.max:g}")
        elif kind.min not in {0, 1}:
            more.append(f"{kind.min:g} or more")
    return f"{help_text} ({'; '.join(more)})" if more else help_text


if __name__ == "__main__":
    before = PAGE.read_text()
    after = page(before)
    if sys.argv[1:] == ["--check"]:
        if after != before:
            sys.exit(f"{PAGE} is not what the commands say: run python tools/commands_page.py")
    else:
        PAGE.write_text(after)
