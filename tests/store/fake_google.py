"""Google's storage, as far as gcsfs and obstore ask it: objects with generations, over its JSON and its XML interface.

No emulator of it can be installed here from PyPI or npm that speaks both. Effects: a server in threads of this process.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

JSON = "/storage/v1/b/"


@dataclass
class Bucket:
    """Objects by key: data and generation."""

    objects: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    generations: Iterator[int] = field(default_factory=lambda: count(1_700_000_000_000_001))
    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: list[str] = field(default_factory=list)

    def put(self, key: str, data: bytes, *, is_new: bool = False) -> int | None:
        """Store an object; None where there is one and none must be."""
        with self.lock:
            if is_new and key in self.objects:
                return None
            self.objects[key] = (data, next(self.generations))
            return self.objects[key][1]

    def told(self, bucket: str, key: str) -> dict[str, Any]:
        """Return the object's resource."""
        data, generation = self.objects[key]
        return {
            "kind": "storage#object", "name": key, "bucket": bucket, "size": str(len(data)),
            "generation": str(generation), "etag": f"C{generation}=", "updated": "2026-11-24T10:00:00.000Z",
        }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send an answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def tell(self, value: object, status: int = 200) -> None:
        """Send JSON."""
        self.answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def refuse(self, status: int) -> None:
        """Send an error."""
        self.tell({"error": {"code": status, "message": "No such object"}}, status)

    def do_GET(self) -> None:
        """Look, list or read."""
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.bucket.asked.append(self.path)
        if url.path.startswith("/download"):
            self.read(unquote(url.path.partition("/o/")[2]), query.get("generation"))
        elif found := re.fullmatch(rf"{JSON}([^/]+)/o/(.+)", url.path):
            key = unquote(found[2])
            self.tell(self.bucket.told(found[1], key)) if key in self.bucket.objects else self.refuse(404)
        elif found := re.fullmatch(rf"{JSON}([^/]+)/o/?", url.path):
            self.list(found[1], query.get("prefix", ""), query.get("delimiter"))
        elif found := re.fullmatch(rf"{JSON}([^/]+)", url.path):
            self.tell({"name": found[1]})
        else:
            self.read(unquote(url.path.split("/", 2)[2]), None)

    def list(self, bucket: str, prefix: str, delimiter: str | None) -> None:
        """Send objects and folders below a prefix."""
        items, folders = [], set()
        for key in sorted(self.bucket.objects):
            rest = key.removeprefix(prefix)
            if not key.startswith(prefix):
                continue
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                items.append(self.bucket.told(bucket, key))
        self.tell({"items": items, "prefixes": sorted(folders)})

    def read(self, key: str, generation: str | None) -> None:
        """Send bytes."""
        data, there = self.bucket.objects.get(key, (b"", 0))
        if not there or generation not in {None, str(there)}:
            self.refuse(404)
            return
        headers = {
            "x_goog_generation": str(there), "ETag": f'"md5-{there}"', "Last_Modified": "Tue, 24 Nov 2026 10:00:00 GMT",
        }  # fmt: skip
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if span is None:
            self.answer(200, data, **headers)
            return
        start, stop = int(span[1]), min(int(span[2]) + 1, len(data))
        self.answer(206, data[start:stop], Content_Range=f"bytes {start}-{stop - 1}/{len(data)}", **headers)

    def do_POST(self) -> None:
        """Store an object."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        _, first, second, _ = body.split(b"--==0==")
        key = json.loads(first.partition(b"\n\n")[2])["name"]
        data = second.partition(b"\n\n")[2].removesuffix(b"\n")
        is_new = "ifGenerationMatch=0" in self.path
        if self.bucket.put(key, data, is_new=is_new) is None:
            self.refuse(412)
        else:
            self.tell(self.bucket.told("b", key))

    def do_DELETE(self) -> None:
        """Remove an object."""
        key = unquote(urlsplit(self.path).path.partition("/o/")[2])
        found = self.bucket.objects.pop(key, None)
        self.refuse(404) if found is None else self.answer(204)


@contextmanager
def google() -> Iterator[tuple[str, Bucket]]:
    """Run the server until the block ends; gives its URL, and what it holds."""
    bucket = Bucket()
    handler = type("BucketHandler", (Handler,), {"bucket": bucket})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bucket
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
