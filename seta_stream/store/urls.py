"""URLs and paths: which protocol, which spelling. Pure but for the working folder that relative paths begin from."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from seta_stream.errors import ArgumentError


def protocol_of(url: str) -> str:
    """Return "file" for paths and file:// URLs, else the scheme. Refuses WebDataset's pipes and fsspec's chains."""
    if url.startswith("pipe:"):
        raise ArgumentError(
            f"{url!r} is a WebDataset pipe, which has no byte ranges to select from: give the URL that the command "
            "reads, as s3://bucket/train-000.tar, gs://…, https://… or a local path.",
            shard=url,
        )
    if "::" in url:
        raise ArgumentError(
            f"{url!r} chains file systems, which seta_stream does not follow: give the plain URL, as "
            "s3://bucket/train-000.tar, and cache= for a local copy.",
            shard=url,
        )
    scheme, mark, _ = url.partition("://")
    return scheme.lower() if mark and scheme.lower() != "local" else "file"


def is_local(url: str) -> bool:
    """Say whether a URL names a file of this machine."""
    return protocol_of(url) == "file"


def is_web(url: str) -> bool:
    """Say whether a URL is of a web server, which lists nothing and takes no files."""
    return protocol_of(url) in {"http", "https"}


def parsed(url: str) -> SplitResult:
    """Return the parts of a URL.

    Raises:
        ArgumentError: it is none.
    """
    try:
        return urlsplit(url)
    except ValueError as error:
        raise ArgumentError(
            f"Cannot use {shown(url)!r}: it is no URL ({error}). Check it: a bracket in the name of a host may be too "
            "much.",
            expected="a URL",
        ) from error


def local_path(url: str) -> Path:
    """Return the absolute path of a local URL (plain path or file://)."""
    if url.lower().startswith(("file://", "local://")):
        url = unquote(parsed(url).path)
    if "\0" in url:
        raise ArgumentError(f"Cannot use {url!r}: no file's name holds a NUL. Check it.", expected="a path", found=url)
    # os.path leaves a "~name" of no user of this machine as it is; resolve() would follow links.
    return Path(os.path.abspath(os.path.expanduser(url)))  # noqa: PTH100, PTH111


def normalise(url: str) -> str:
    """Return one spelling per object: absolute paths for local files, other URLs as they are."""
    return str(local_path(url)) if is_local(url) else url


def join(base: str, *names: str) -> str:
    """Return the URL of something inside a folder."""
    if is_local(base):
        return str(local_path(base).joinpath(*names))
    return "/".join([base.rstrip("/"), *names])


def split(url: str) -> tuple[str, str]:
    """Return the bucket, container or host of a remote URL, and the key in it."""
    bucket, _, key = url.partition("://")[2].partition("/")
    return bucket, key


def shown(url: str) -> str:
    """Return a URL as it may stand in a message: without a signed URL's query, and without user and password."""
    scheme, mark, rest = url.partition("://")
    if not mark or is_local(url):
        return url
    host, slash, path = rest.partition("/")
    user, _, place = host.rpartition("@")
    if is_web(url):  # a user alone can be a token
        return f"{scheme}://{place}{slash}{path.partition('?')[0]}"
    return f"{scheme}://{place if ':' in user else host}{slash}{path}"
