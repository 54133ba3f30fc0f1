"""nginx, serving a folder over HTTP.

Takes: a folder and how to serve it. Gives: a URL that also counts requests and bytes.
Effects: an nginx process with a configuration in a temporary folder; it needs no root and touches no system folder.
"""

from __future__ import annotations

import http.client
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from servers.child import INSTALL, Child, ServerError, Url, free_port, running, server_folder

TAKEN = "Address already in use"
# Where Debian's packages put their files, below the system's root or below the folder that they were unpacked into.
SYSTEM = Path("/")
PROGRAM = Path("usr/sbin/nginx")
ECHO_MODULE = Path("usr/lib/nginx/modules/ngx_http_echo_module.so")

# One process: nothing is left when it is killed, and files in a user's private folders are read as that user.
CONFIG = """
{load}
daemon off;
master_process off;
pid {work}/pid;
error_log {work}/error.log error;
events {{ worker_connections 8192; multi_accept on; }}
http {{
  client_body_temp_path {work}/body;
  proxy_temp_path {work}/proxy;
  fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi;
  scgi_temp_path {work}/scgi;
  log_format counted '$request_method $status $body_bytes_sent $request_uri "$http_range"';
  access_log {work}/access.log counted;
  default_type application/octet-stream;
  sendfile on;
  sendfile_max_chunk {chunk};
  tcp_nodelay on;
  keepalive_requests 100000000;
  keepalive_timeout 3600;
  etag {etag};
  {ranges}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    root "{folder}";
    location = /__idle__ {{ access_log off; return 204; }}
    location / {{ {first} }}
    location @file {{ {rate} }}
  }}
}}
"""


class Answered(NamedTuple):
    """One request that was answered: bytes are those of its body that went out."""

    method: str
    status: int
    bytes: int
    target: str
    range: str


class WebServer(Url):
    """The URL of a folder that nginx serves; what it has served so far."""

    __slots__ = ("_log",)
    _log: Path

    @property
    def served(self) -> list[Answered]:
        """Every request that it is done with, in that order; of one that its client gave up, what had gone out."""
        # nginx writes its log before it takes the next request: once this one is answered, the log holds all others.
        where = urlsplit(str(self))
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
        with suppress(OSError):
            connection.request("GET", "/__idle__")
            connection.getresponse().read()
        connection.close()
        lines = (line.split(" ", 4) for line in self._log.read_text().splitlines())
        return [Answered(row[0], int(row[1]), int(row[2]), row[3], row[4].strip('"')) for row in lines]

    @property
    def requests(self) -> int:
        """How many requests it has answered."""
        return len(self.served)

    @property
    def bytes(self) -> int:
        """How many bytes of bodies it has sent."""
        return sum(answered.bytes for answered in self.served)


@contextmanager
def nginx(
    folder: str | Path,
    *,
    ranges: bool = True,
    first_byte_ms: float = 0,
    bytes_per_s: float | None = None,
    etag: bool = True,
) -> Iterator[WebServer]:
    """Serve a folder until the block ends; gives its URL, without a slash at the end.

    Args:
        folder: what is served.
        ranges: whether range requests are honoured; False: they get the whole file and 200.
        first_byte_ms: how long each answer is held back before its first byte.
        bytes_per_s: the rate of each request's body; None: as fast as it goes.
        etag: whether answers carry an ETag.
    """
    program, module = find_nginx()
    with tempfile.TemporaryDirectory(prefix="servers-nginx-") as name:
        work = Path(name)
        command = [str(program), "-p", name, "-e", "stderr", "-c", str(work / "nginx.conf")]
        for _ in range(5):
            port = free_port()
            text = _config(work, Path(folder), port, module, ranges, first_byte_ms, bytes_per_s, etag)
            (work / "nginx.conf").write_text(text)
            with running(command, name="nginx") as child:
                if not _listens(child, work):
                    continue
                server = WebServer(f"http://127.0.0.1:{port}")
                server._log = work / "access.log"  # noqa: SLF001  (a str takes no more arguments)
                yield server
                return
        raise ServerError("start nginx: each of 5 free ports was taken before nginx could; start it again")


def find_nginx() -> tuple[Path, Path]:
    """Return nginx's program and its echo module: a pair that was built together.

    Raises:
        ServerError: they are not installed.
    """
    places = (SYSTEM, server_folder() / "nginx")
    for place in places:
        if (place / PROGRAM).exists() and (place / ECHO_MODULE).exists():
            return place / PROGRAM, place / ECHO_MODULE
    raise ServerError(
        f"start nginx: no {PROGRAM} and {ECHO_MODULE} below {' or '.join(map(str, places))}; install with: {INSTALL}"
    )


def _listens(child: Child, work: Path) -> bool:
    """Wait for nginx; False where somebody else took the port in between."""
    # It writes its pid once it listens; that something answers at the port would not say that it is nginx. While the
    # port is taken it says so and tries on for seconds.
    child.wait_until(lambda: (work / "pid").exists() or TAKEN in child.stderr())
    return (work / "pid").exists()


def _config(
    work: Path,
    folder: Path,
    port: int,
    module: Path,
    ranges: bool,
    first_byte_ms: float,
    bytes_per_s: float | None,
    etag: bool,
) -> str:
    load, first, rate = "", "try_files /__none__ @file;", ""
    if first_byte_ms:
        load = f"load_module {module};"
        first = f"echo_sleep {first_byte_ms / 1000:.3f}; echo_exec @file;"
    chunk = 2 << 20
    if bytes_per_s is not None:
        rate = f"limit_rate {int(bytes_per_s)};"
        # nginx waits after each chunk, in whole milliseconds, for as long as the chunk takes at the rate.
        chunk = max(4096, int(bytes_per_s * 0.004))
    return CONFIG.format(
        load=load, work=work, chunk=chunk, etag="on" if etag else "off", ranges="" if ranges else "max_ranges 0;",
        port=port, folder=folder.resolve(), first=first, rate=rate,
    )  # fmt: skip
