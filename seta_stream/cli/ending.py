"""How every command ends: exit codes, errors and warnings in words or as JSON, a closed pipe, Ctrl-C.

Takes what a command raises and warns of; gives exit codes. Effects: writes to stderr, never to stdout, so that what is
read there is a command's result and nothing else.
"""

from __future__ import annotations

import errno
import json
import os
import select
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn

import click

from seta_stream.errors import SetaStreamError, SetaStreamWarning
from seta_stream.visible import visible_lines

FAILED: Final = 1
MISUSED: Final = 2
FOUND: Final = 3
INTERRUPTED: Final = 130
CLOSED: Final = 141
CODES: Final[Mapping[int, str]] = {
    0: "done",
    FAILED: "it could not be done; one message says why",
    MISUSED: "the command line is wrong",
    FOUND: "`verify` found something",
    INTERRUPTED: "interrupted by Ctrl-C",
    CLOSED: "whoever read the output closed it, as `head` does",
}
"""Every exit code, and what it says; 130 and 141 are what shells give a program that such a signal ends."""

_FACTS: Final = ("shard", "key", "offset")
"""What an error of the package is about, where it is about one."""
_ADVICE: Final[Mapping[int, str]] = {
    errno.EACCES: "Change its permissions, or name another place.",
    errno.EPERM: "Change its permissions, or name another place.",
    errno.EROFS: "Name a place that can be written.",
    errno.ENOSPC: "Make room, and run the command again.",
    errno.EDQUOT: "Make room, and run the command again.",
    errno.EEXIST: "Name another place: something else has this name.",
    errno.ENOTDIR: "Name a folder: a file has this name, or that of a folder above it.",
    errno.EISDIR: "Name a file: a folder has this name.",
    errno.ENOENT: "Check the spelling.",
    errno.ENAMETOOLONG: "Give a shorter name.",
    errno.EMFILE: "Raise the limit (ulimit -n), or give fewer --jobs.",
}


@contextmanager
def ending(*, as_json: bool) -> Iterator[None]:
    """Turn what a command raises into one message and an exit code; what is no mistake of a user's passes.

    Args:
        as_json: whether the message is JSON.

    Raises:
        SystemExit: with the code, once all is said.
    """
    try:
        yield
    except click.ClickException as error:
        if as_json:
            _end(error.exit_code, type(error).__name__, error.format_message(), as_json=True)
        error.show()
        raise SystemExit(error.exit_code) from error
    except (SetaStreamError, OSError, MemoryError) as error:
        facts = {name: getattr(error, name) for name in _FACTS if getattr(error, name, None) is not None}
        _end(FAILED, type(error).__name__, told(error), as_json=as_json, facts=facts)
    except click.Abort as error:
        # click's word for Ctrl-C, and for a question whose answer was to come from a pipe that ended.
        if isinstance(error.__context__, KeyboardInterrupt):
            stays = getattr(error.__context__, "__notes__", None)
            _end(INTERRUPTED, "Interrupted", f"Interrupted: {stays[0]}" if stays else "Interrupted.", as_json=as_json)
        _end(FAILED, "Abort", "Nobody answered, so nothing was done.", as_json=as_json)


@contextmanager
def closed_pipes_told() -> Iterator[None]:
    """Turn a closed stdout into its exit code: click would end with that of a failure.

    Raises:
        click.exceptions.Exit: it was closed.
    """
    try:
        yield
    except BrokenPipeError as error:
        if not silence():  # another pipe, as one that a user's model writes to; of EPIPE click would say nothing
            raise OSError(error.strerror or "Broken pipe") from error
        raise click.exceptions.Exit(CLOSED) from None


@contextmanager
def warnings_told(*, as_json: bool) -> Iterator[None]:
    """Tell each warning of the package on stderr; others go the way they went before."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", SetaStreamWarning)
        before = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, SetaStreamWarning):
                click.echo(json.dumps({"warning": str(message)}) if as_json else f"Warning: {message}", err=True)
            else:
                before(message, category, *place, **more)

        warnings.showwarning = show
        yield


def told(error: Exception) -> str:
    """Return what an error says; of one of the operating system, what it refused, and what to do about it."""
    if isinstance(error, SetaStreamError):
        return error.message
    if isinstance(error, MemoryError):
        return f"There is not enough memory{f': {error}' if str(error) else ''}. Give it less to do at once."
    what = getattr(error, "strerror", None) or str(error) or type(error).__name__
    names = [getattr(error, name, None) for name in ("filename", "filename2")]
    places = " → ".join(os.fspath(name) for name in names if isinstance(name, str | os.PathLike))
    return " ".join(
        (f"{what}: {places}." if places else f"{what}.", _ADVICE.get(getattr(error, "errno", 0) or 0, ""))
    ).rstrip()


def silence() -> bool:
    """Send to nowhere what is still to be written to a closed stdout or stderr: at its end Python flushes both.

    Returns:
        bool: whether one of them is closed.
    """
    is_closed = False
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # one without a descriptor, which is no pipe
            asked = select.poll()
            asked.register(stream.fileno(), 0)
            if any(event & select.POLLERR for _, event in asked.poll(0)):  # nobody reads
                is_closed = True
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
    return is_closed


def _end(code: int, kind: str, message: str, *, as_json: bool, facts: Mapping[str, Any] | None = None) -> NoReturn:
    told = visible_lines(message)
    if as_json:
        told = json.dumps({"error": told, "kind": kind, "exit_code": code, **(facts or {})})
    elif code == FAILED:
        told = f"Error: {told}"
    with suppress(OSError):  # stderr may be closed, and the exit code still tells
        click.echo(told, err=True)
    raise SystemExit(code)
