"""A program that reads from a bucket, forks or spawns, and reads in the child: what it finds, as one line of JSON.

Takes: how the parent used the bucket ("read", "listed", "nothing", or "own": it used obstore by itself), how the child
begins ("fork", "spawn", "threads"), the object's URL, and the storage options as JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from seta_stream.store.clients import client_for
from seta_stream.store.remote import RemoteStore


def read(url: str, options: dict[str, Any]) -> tuple[str, str]:
    """Return some bytes of the object, and which client brought them."""
    store = RemoteStore(url.partition("://")[0], options)
    file = store.open(url)
    data = b"".join(file.read_spans([(0, 4), (10, 4)]))
    assert store.exists(url)
    fetch = client_for(url.partition("://")[0], options).fetch
    return data.decode(), "obstore" if getattr(fetch, "_proven", None) else "fsspec"


def child(url: str, options: dict[str, Any], pipe: Any) -> None:
    """Read, and tell."""
    pipe.send(read(url, options))
    pipe.close()


def use_obstore() -> None:
    """Start obstore's threads, as a caller's own use does."""
    import obstore
    from obstore.store import MemoryStore

    store = MemoryStore()
    obstore.put(store, "a", b"x")
    obstore.get(store, "a").bytes()


def main() -> None:
    """Read in the parent, in the child, and in the parent again."""
    parent, begins, url, options = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
    store = RemoteStore(url.partition("://")[0], options)
    found = []
    if parent == "read":
        found.append(read(url, options))
    elif parent == "listed":
        assert store.names(url.rpartition("/")[0])
        assert store.info(url).size == 14
        assert len(store.read(url)) == 14
    elif parent == "own":
        use_obstore()
    if begins == "threads":
        with ThreadPoolExecutor(8) as pool:
            found.extend(set(pool.map(lambda _: read(url, options), range(8))))
    else:
        context = multiprocessing.get_context(begins)
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=child, args=(url, options, theirs))
        process.start()
        theirs.close()
        found.append(ours.recv())
        process.join()
        assert process.exitcode == 0
    if parent == "read":
        found.append(read(url, options))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
