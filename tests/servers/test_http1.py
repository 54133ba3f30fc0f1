"""Heads pass through unchanged, and a body's end is where HTTP says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers.http1 import Head, answer_length, request_length

NAMES = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ-0123456789", min_size=1, max_size=20)
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=40).map(str.strip)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8))
def test_a_head_comes_out_as_it_went_in(fields: list[tuple[str, str]]) -> None:
    """Order, case and repeated names are kept; the first of a name is what is found."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    data = f"GET /a?b HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
    head = Head.of(data)
    assert bytes(head) == data
    assert (head.method, head.target) == ("GET", "/a?b")
    for name, _ in fields:
        assert head.get(name.upper()) == next(value for other, value in fields if other.lower() == name.lower())
    assert head.with_field("Added", "1").get("added") == "1"
    assert head.with_field("Added", "1").with_field("ADDED", None).get("added") == ""


@pytest.mark.parametrize(
    ("first", "fields", "method", "length"),
    [
        ("HTTP/1.1 200 OK", "Content-Length: 7", "GET", 7),
        ("HTTP/1.1 200 OK", "Content-Length: 7", "HEAD", 0),
        ("HTTP/1.1 204 No Content", "", "GET", 0),
        ("HTTP/1.1 304 Not Modified", "Content-Length: 7", "GET", 0),
        ("HTTP/1.1 100 Continue", "", "PUT", 0),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "GET", None),
        ("HTTP/1.1 200 OK", "Content-Length: 7\r\nTransfer-Encoding: chunked", "GET", None),
        ("HTTP/1.1 200 OK", "", "GET", None),
    ],
)
def test_where_an_answer_ends(first: str, fields: str, method: str, length: int | None) -> None:
    """Status, method, chunks and Content-Length decide, in HTTP's order (RFC 9112, section 6.3)."""
    assert answer_length(Head.of(f"{first}\r\n{fields}".encode()), method) == length


@pytest.mark.parametrize(
    ("fields", "length"), [("Host: x", 0), ("Content-Length: 5", 5), ("Transfer-Encoding: chunked", None)]
)
def test_where_a_request_ends(fields: str, length: int | None) -> None:
    """Without a length and without chunks there is no body."""
    assert request_length(Head.of(f"PUT / HTTP/1.1\r\n{fields}".encode())) == length


@pytest.mark.parametrize(
    ("text", "closes"),
    [
        ("HTTP/1.1 200 OK", False),
        ("HTTP/1.1 200 OK\r\nConnection: Close", True),
        ("HTTP/1.0 200 OK", True),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive", False),
    ],
)
def test_whether_a_connection_goes_on(text: str, closes: bool) -> None:
    """HTTP/1.1 keeps connections unless told otherwise, HTTP/1.0 the other way round."""
    assert Head.of(text.encode()).closes is closes
