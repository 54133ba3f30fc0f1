"""Azurite, Microsoft's Azure Blob emulator.

Takes: a folder, or none. Gives: the account's URL, with storage options for it.
Effects: a node process. tools/install_servers.sh installs the program, into the folder that `server_folder` names.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from servers.child import INSTALL, ServerError, Url, running, server_folder

# Azurite's published account: the same everywhere, and good for nothing else.
NAME = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
READY = re.compile(r"successfully listens on http://127\.0\.0\.1:(\d+)|listening at http://127\.0\.0\.1:(\d+)")


class AzureAccount(Url):
    """The URL of an Azure storage account's blobs."""

    __slots__ = ()

    @property
    def options(self) -> dict[str, Any]:
        """Storage options of fsspec for az:// URLs."""
        return self.options_at(self)

    def options_at(self, url: str) -> dict[str, Any]:
        """Return storage_options that reach this server through a proxy's URL."""
        return {
            "account_name": NAME,
            "account_key": KEY,
            "connection_string": f"AccountName={NAME};AccountKey={KEY};BlobEndpoint={url}",
        }

    def obstore_options(self, url: str | None = None) -> dict[str, Any]:
        """Return the options of obstore's AzureStore for this server, or for a proxy's URL before it."""
        return {
            "account_name": NAME,
            "account_key": KEY,
            "endpoint": str(url or self),
            "client_options": {"allow_http": True},
        }

    def make_container(self, name: str) -> str:
        """Make a container; returns its az:// URL."""
        with self._service() as service:
            service.create_container(name)
        return f"az://{name}"

    def put(self, url: str, data: bytes) -> None:
        """Store a blob at an az:// URL."""
        container, _, blob = url.removeprefix("az://").partition("/")
        with self._service() as service, service.get_blob_client(container, blob) as client:
            client.upload_blob(data, overwrite=True)

    def delete(self, url: str) -> None:
        """Delete the blob at an az:// URL."""
        container, _, blob = url.removeprefix("az://").partition("/")
        with self._service() as service, service.get_blob_client(container, blob) as client:
            client.delete_blob()

    def _service(self) -> Any:
        from azure.storage.blob import BlobServiceClient

        return BlobServiceClient.from_connection_string(self.options["connection_string"])


def azurite_program() -> Path:
    """Return where Azurite's blob server is.

    Raises:
        ServerError: it is not installed.
    """
    own = server_folder() / "node_modules" / ".bin" / "azurite-blob"
    if own.exists():
        return own
    if (other := shutil.which("azurite-blob")) is not None:
        return Path(other)
    raise ServerError(f"start Azurite: no azurite-blob in {own.parent} or PATH; install it with: {INSTALL}")


@contextmanager
def azurite(folder: str | Path | None = None) -> Iterator[AzureAccount]:
    """Run an Azure Blob server until the block ends; gives its account's URL.

    Args:
        folder: where blobs are kept; None: in the server's memory.
    """
    where = ["--inMemoryPersistence"] if folder is None else ["--location", str(folder)]
    command = [
        str(azurite_program()), *where, "--blobHost", "127.0.0.1", "--blobPort", "0", "--silent",
        "--skipApiVersionCheck", "--disableTelemetry", "--disableProductStyleUrl",
    ]  # fmt: skip
    with running(command, name="Azurite") as child:
        said: list[str] = []
        while not (found := READY.search(said[-1] if said else "")):
            said.append(child.line())
        yield AzureAccount(f"http://127.0.0.1:{found[1] or found[2]}/{NAME}")
