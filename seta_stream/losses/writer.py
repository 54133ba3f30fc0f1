"""One writer per state in a bucket: a record that names the newest run, and that an older one meets at its next commit.

Takes a store and a URL; effects: the record is written when a run becomes the writer, and read before each commit. It
is never removed: a run that ends leaves it, and the next one writes its own. docs/formats/state.md tells its bytes.

Buckets have no locks. Between the last look and the manifest another run may still become the writer; then both have
committed a generation, whole and under its own name, and the older run is refused at its next commit.
"""

from __future__ import annotations

import os
import secrets
import socket
from typing import Any, Final

from seta_stream.errors import ReadError, StateError, StateLockedError
from seta_stream.losses.envelope import FileKind, pack_file, unpack_file
from seta_stream.store import Store

WRITER: Final = FileKind(b"SETAWRIT", 1, "writer record", StateError)
WRITER_NAME: Final = "writer"


def pack_writer(token: str, host: str, pid: int) -> bytes:
    """Return the record of a run.

    Args:
        token: tells runs apart.
        host, pid: the machine and process that writes, for people.
    """
    return pack_file(WRITER, {"token": token, "host": host, "pid": pid})


class WriterRecord:
    """The right to write a state; whoever took it last has it.

    Args:
        store: of the state.
        url: of the record.
    """

    def __init__(self, store: Store, url: str) -> None:
        self._store = store
        self._url = url
        self._record = b""

    @property
    def token(self) -> str:
        """What tells this run apart; empty before it became the writer."""
        return str(_read(self._record).get("token", "")) if self._record else ""

    def acquire(self) -> None:
        """Become the writer; later: see that no other run became it.

        Raises:
            StateLockedError: another run did.
            StateError: the record cannot be written.
        """
        if self._record:
            self._confirm()
            return
        record = pack_writer(secrets.token_hex(16), socket.gethostname(), os.getpid())
        try:
            self._store.write(self._url, record)
        except OSError as error:
            told = str(error) if isinstance(error, ReadError) else f"Cannot write {self._url}: {error}."
            raise StateError(
                f"{told} Give a place that this run may write, and its own options (state_options=) where those of the "
                "shards do not open it."
            ) from error
        self._record = record

    def release(self) -> None:
        """Write no more; the record stays, since removing it could remove a newer run's."""
        self._record = b""

    def _confirm(self) -> None:
        try:
            found = self._found()
        except OSError as error:
            raise StateError(
                f"Cannot tell who writes the state: {error} The losses of this epoch are still in memory: set the "
                "epoch again."
            ) from error
        if found == self._record:
            return
        told = _read(found)
        raise StateLockedError(
            f"Cannot write the state at {self._url.rpartition('/')[0]}: another run became its writer after this one "
            f"(process {told.get('pid', '?')} on {told.get('host', '?')}). Stop that run and start this one again from "
            "its last checkpoint, or give this one another state=.",
            expected=self.token,
            found=told.get("token"),
        )

    def _found(self) -> bytes:
        """Return the record that is there; where somebody emptied the state, write this run's again."""
        try:
            return self._store.read(self._url)
        except ReadError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
        return self._record if self._store.create(self._url, self._record) else self._store.read(self._url)


def _read(record: bytes) -> dict[str, Any]:
    """Return what a record tells; nothing where it is damaged or of a future version: it is another run's then."""
    try:
        return unpack_file(WRITER, record, name=WRITER_NAME)[0]
    except StateError:
        return {}
