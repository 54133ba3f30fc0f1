"""Errors of every client: what kind, how long to wait, what to tell, and no credential in any of it."""

from __future__ import annotations

import pickle
import socket
import ssl
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seta_stream.errors import ReadError, ShardChangedError
from seta_stream.store.faults import Fault, Kind, error_of, fault_of
from seta_stream.store.redaction import LONGEST, redact, secrets_of

URL = "s3://data/in/a-0.tar"
SIGNED = "https://host/in/a.tar?X-Amz-Credential=AKIAABCDEFGHIJKLMNOP%2F2026&X-Amz-Signature=0123abcd"


def boto(code: str, status: int, **headers: str) -> Exception:
    """Return what botocore raises."""
    from botocore.exceptions import ClientError

    told = {"HTTPStatusCode": status, "HTTPHeaders": {name.replace("_", "-"): text for name, text in headers.items()}}
    return ClientError({"Error": {"Code": code, "Message": "said"}, "ResponseMetadata": told}, "GetObject")  # type: ignore[arg-type]


def translated(code: str, status: int) -> Exception:
    """Return what s3fs makes of it."""
    from s3fs.errors import translate_boto_error

    return translate_boto_error(boto(code, status))  # type: ignore[no-any-return]


def web(status: int, **headers: str) -> Exception:
    """Return what aiohttp raises for a status."""
    request: Any = SimpleNamespace(real_url="http://host/a")
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return aiohttp.ClientResponseError(request, (), status=status, message="said", headers=named)  # type: ignore[arg-type]


def azure(kind: str, status: int, code: str = "", **headers: str) -> Exception:
    """Return what Azure's SDK raises."""
    from azure.core import exceptions

    response = SimpleNamespace(status_code=status, reason="said", headers=headers, content_type="")
    error = getattr(exceptions, kind)(message="said", response=response)
    error.error_code = code or None
    return error  # type: ignore[no-any-return]


def google(status: int) -> Exception:
    """Return what gcsfs raises."""
    from gcsfs.retry import HttpError

    return HttpError({"code": status, "message": "said"})


def rust(kind: str, text: str) -> Exception:
    """Return what obstore raises."""
    from obstore import exceptions

    return getattr(exceptions, kind)(text)  # type: ignore[no-any-return]


def answered(status: str) -> str:
    """Return how obstore words an answer."""
    return (
        f"Generic S3 error: Error performing GET http://h/k - Server returned non-2xx status code: {status}: <Error>"
        f"<Code>Foo</Code></Error>\n\nDebug source:\nGeneric {{ status: 599 }}"
    )


def sending(debug: str) -> str:
    """Return how obstore words a request that did not get an answer."""
    return (
        f"Generic S3 error: Error performing GET http://h - HTTP error: error sending request\n\nDebug source:\n{debug}"
    )


def chained(outer: Exception, inner: Exception) -> Exception:
    """Return an error with its cause."""
    outer.__cause__ = inner
    return outer


def certificate() -> Exception:
    """Return what aiohttp raises where a certificate is not trusted."""
    key: Any = SimpleNamespace(host="host", port=443, ssl=True, is_ssl=True)
    return aiohttp.ClientConnectorCertificateError(key, ssl.SSLCertVerificationError("self-signed"))


def unknown_host(number: int, text: str) -> Exception:
    """Return what aiohttp raises where a name is not found."""
    key: Any = SimpleNamespace(host="host", port=443, ssl=True, is_ssl=True)
    inner = socket.gaierror(number, text)
    return chained(aiohttp.ClientConnectorDNSError(key, inner), inner)


def made(module: str, name: str, *arguments: Any, **named: Any) -> Exception:
    """Return an error of a library."""
    import importlib

    return getattr(importlib.import_module(module), name)(*arguments, **named)  # type: ignore[no-any-return]


ROWS: list[tuple[Exception, Kind]] = [
    # botocore and s3fs
    (boto("SlowDown", 503), "throttled"),
    (boto("503", 503), "throttled"),
    (boto("RequestLimitExceeded", 400), "throttled"),
    (boto("TooManyRequests", 429), "throttled"),
    (boto("InternalError", 500), "transient"),
    (boto("RequestTimeout", 400), "transient"),
    (boto("502", 502), "transient"),
    (boto("ExpiredToken", 400), "denied"),
    (boto("AccessDenied", 403), "denied"),
    (boto("403", 403), "denied"),
    (boto("InvalidAccessKeyId", 403), "denied"),
    (boto("SignatureDoesNotMatch", 403), "denied"),
    (boto("RequestTimeTooSkewed", 403), "denied"),
    (boto("NoSuchKey", 404), "missing"),
    (boto("NoSuchBucket", 404), "missing"),
    (boto("404", 404), "missing"),
    (boto("PreconditionFailed", 412), "changed"),
    (boto("InvalidRange", 416), "changed"),
    (boto("PermanentRedirect", 301), "broken"),
    (boto("InvalidRequest", 400), "broken"),
    (translated("SlowDown", 503), "throttled"),
    (translated("AccessDenied", 403), "denied"),
    (translated("NoSuchKey", 404), "missing"),
    (translated("PreconditionFailed", 412), "changed"),
    (made("botocore.exceptions", "NoCredentialsError"), "denied"),
    (made("botocore.exceptions", "ProfileNotFound", profile="x"), "denied"),
    (made("botocore.exceptions", "EndpointConnectionError", endpoint_url="http://host"), "transient"),
    (made("botocore.exceptions", "ReadTimeoutError", endpoint_url="http://host"), "transient"),
    (made("botocore.exceptions", "ConnectionClosedError", endpoint_url="http://host"), "transient"),
    (made("botocore.exceptions", "IncompleteReadError", actual_bytes=1, expected_bytes=2), "transient"),
    (made("botocore.exceptions", "ResponseStreamingError", error="x"), "transient"),
    (chained(made("botocore.exceptions", "SSLError", endpoint_url="https://host", error="x"),
             ssl.SSLCertVerificationError("self-signed")), "broken"),
    # aiohttp
    (web(429), "throttled"),
    (web(503), "throttled"),
    (web(500), "transient"),
    (web(408), "transient"),
    (web(599), "transient"),
    (web(401), "denied"),
    (web(404), "missing"),
    (web(410), "missing"),
    (web(412), "changed"),
    (web(416), "changed"),
    (web(400), "broken"),
    (web(505), "broken"),
    (aiohttp.ClientPayloadError("not all"), "transient"),
    (aiohttp.ServerDisconnectedError(), "transient"),
    (aiohttp.ServerTimeoutError(), "transient"),
    (aiohttp.ClientOSError(104, "reset"), "transient"),
    (aiohttp.InvalidURL("x"), "broken"),
    (certificate(), "broken"),
    (unknown_host(socket.EAI_NONAME, "Name or service not known"), "broken"),
    (unknown_host(socket.EAI_AGAIN, "Temporary failure in name resolution"), "transient"),
    # Azure
    (azure("HttpResponseError", 503, "ServerBusy"), "throttled"),
    (azure("HttpResponseError", 500, "OperationTimedOut"), "transient"),
    (azure("HttpResponseError", 403, "AuthorizationFailure"), "denied"),
    (azure("ClientAuthenticationError", 403, "AuthenticationFailed"), "denied"),
    (azure("ResourceNotFoundError", 404, "BlobNotFound"), "missing"),
    (azure("ResourceNotFoundError", 404, "ContainerNotFound"), "missing"),
    (azure("ResourceModifiedError", 412, "ConditionNotMet"), "changed"),
    (azure("IncompleteReadError", 206), "transient"),
    (made("azure.core.exceptions", "ServiceRequestError", "x"), "transient"),
    (made("azure.core.exceptions", "ServiceResponseError", "x"), "transient"),
    (made("azure.identity", "CredentialUnavailableError", "x"), "denied"),
    # Google
    (google(429), "throttled"),
    (google(503), "throttled"),
    (google(500), "transient"),
    (google(401), "denied"),
    (google(400), "broken"),
    (OSError("Forbidden: https://storage.googleapis.com/x\nsaid"), "denied"),
    (ValueError("Bucket is requester pays. Set `requester_pays=True`"), "denied"),
    (made("requests.exceptions", "ProxyError"), "transient"),
    (made("google.auth.exceptions", "DefaultCredentialsError", "x"), "denied"),
    (made("gcsfs.retry", "ChecksumError", "x"), "transient"),
    # obstore
    (rust("GenericError", answered("503 Service Unavailable")), "throttled"),
    (rust("GenericError", answered("429 Too Many Requests")), "throttled"),
    (rust("GenericError", answered("500 Internal Server Error")), "transient"),
    (rust("GenericError", answered("400 Bad Request")), "broken"),
    (rust("GenericError", answered("400 Bad Request").replace("Foo", "ExpiredToken")), "denied"),
    (rust("GenericError", answered("416 Range Not Satisfiable")), "changed"),
    (rust("PermissionDeniedError", answered("403 Forbidden")), "denied"),
    (rust("UnauthenticatedError", "External AWS credential provider: ValueError: x"), "denied"),
    (rust("PreconditionError", answered("412 Precondition Failed")), "changed"),
    (FileNotFoundError("Object at location k not found: " + answered("404 Not Found")), "missing"),
    (rust("GenericError", sending("kind: Timeout")), "transient"),
    (rust("GenericError", sending('message: "Connection refused"')), "transient"),
    (rust("GenericError", sending("InvalidCertificate(UnknownIssuer)")), "broken"),
    (rust("GenericError", sending('"failed to lookup address information: Name or service not known"')), "broken"),
    (rust("GenericError", "Generic S3 error: Received non-partial response when range requested"), "no-ranges"),
    (rust("GenericError", "Requested 0..10, got 0..5\n\nDebug source:\nUnexpectedRange {}"), "changed"),
    (rust("GenericError", "Received redirect without LOCATION, an incorrectly configured region"), "broken"),
    (rust("NotSupportedError", "not implemented"), "broken"),
    # The operating system and fsspec
    (FileNotFoundError(2, "No such file"), "missing"),
    (PermissionError(13, "no"), "denied"),
    (ConnectionResetError(104, "reset"), "transient"),
    (TimeoutError(), "transient"),
    (OSError(113, "No route to host"), "transient"),
    (OSError(28, "No space left on device"), "broken"),
    (IsADirectoryError(21, "x"), "broken"),
    (made("fsspec.exceptions", "FSTimeoutError"), "transient"),
    (EOFError(), "transient"),
    (RuntimeError("odd"), "broken"),
    (chained(RuntimeError("wrapped"), boto("SlowDown", 503)), "throttled"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind"), ROWS, ids=[f"{type(error).__name__}-{kind}" for error, kind in ROWS])
def test_kinds(error: Exception, kind: Kind) -> None:
    """Each client's error is of the kind that decides whether another attempt is worth it."""
    fault = fault_of(error, URL)
    assert fault.kind == kind
    assert "\n" not in fault.reason
    assert fault.reason
    assert "Debug" not in fault.reason


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (web(503, Retry_After="7"), 7.0),
        (web(503, retry_after="0.5"), 0.5),
        (web(429, Retry_After="Tue, 24 Nov 2026 10:00:30 GMT", Date="Tue, 24 Nov 2026 10:00:00 GMT"), 30.0),
        (web(429, Retry_After="Tue, 24 Nov 2026 10:00:00 GMT", Date="Tue, 24 Nov 2026 10:00:30 GMT"), 0.0),
        (web(429, Retry_After="soon"), None),
        (web(503), None),
        (boto("SlowDown", 503, retry_after="3"), 3.0),
        (chained(OSError("x"), boto("SlowDown", 503, retry_after="3")), 3.0),
        (azure("HttpResponseError", 503, "ServerBusy", **{"x-ms-retry-after-ms": "1500"}), 1.5),
        (TimeoutError(), None),
    ],
)
def test_pauses_that_servers_ask_for(error: Exception, seconds: float | None) -> None:
    """Retry-After counts in seconds or to a date by the server's own clock; nonsense is no wish."""
    assert fault_of(error, URL).retry_after_s == seconds


def test_a_fault_is_its_own() -> None:
    """A fault is passed on as it is, says what it is, and survives pickling."""
    fault = Fault("throttled", "503 SlowDown", 2.0)
    assert fault_of(fault, URL) is fault
    assert str(fault) == "throttled: 503 SlowDown"
    copy = pickle.loads(pickle.dumps(fault))
    assert (copy.kind, copy.reason, copy.retry_after_s) == ("throttled", "503 SlowDown", 2.0)


def test_the_cause_below_is_told() -> None:
    """obstore's first line hides what the connection failed of."""
    error = rust("GenericError", sending('Os { code: 111, message: "Connection refused" }'))
    assert "Connection refused" in fault_of(error, URL).reason


@pytest.mark.parametrize(
    "text",
    [
        f"403, message='Forbidden', url='{SIGNED}'",
        "https://user:SECRETWORD@host/a failed",
        "headers {'Authorization': 'AWS4-HMAC-SHA256 Credential=SECRETWORD/2026, Signature=SECRETWORD'}",
        "Authorization: Bearer SECRETWORD.SECRETWORD-x",
        "authorization: SharedKey account:SECRETWORD=",
        "<AWSAccessKeyId>SECRETWORD</AWSAccessKeyId><StringToSign>x</StringToSign>",
        "DefaultEndpointsProtocol=https;AccountName=n;AccountKey=SECRETWORD==;EndpointSuffix=x",
        "BlobEndpoint=https://x/;SharedAccessSignature=sv=2026&sig=SECRETWORD%3D",
        "aws_secret_access_key=SECRETWORD and aws_session_token = 'SECRETWORD'",
        "{'X-Amz-Security-Token': 'SECRETWORD'}",
        '{"access_token": "SECRETWORD"}',
        "password: SECRETWORD",
        "the key AKIAABCDEFGHIJKLMNOP does not exist",
    ],
)
def test_what_looks_like_a_credential_is_hidden(text: str) -> None:
    """Signed URLs, authorization headers, connection strings and keys go out of a reason, wherever they stand."""
    said = redact(text)
    for secret in ("SECRETWORD", "AKIAABCDEFGHIJKLMNOP", "0123abcd"):
        assert secret not in said
    assert "…" in said


def test_harmless_words_stay() -> None:
    """What helps is not hidden."""
    text = "An error occurred (NoSuchKey) when calling the GetObject operation: The specified key does not exist."
    assert redact(text) == text
    assert redact("GET http://host:9000/bucket/train-000.tar in 3 ms - 503") == (
        "GET http://host:9000/bucket/train-000.tar in 3 ms - 503"
    )
    assert len(redact("x" * 1000)) == LONGEST


def test_secrets_are_known_by_their_options() -> None:
    """Keys, tokens and passwords are found at any depth, and the parts of a connection string; the rest is harmless."""
    options = {
        "key": "the-id", "secret": "the-secret", "endpoint_url": "http://host", "anon": False, "token": None,
        "account_name": "visible", "connection_string": "AccountName=visible;AccountKey=the-key==",
        "client_kwargs": {"aws_session_token": "the-token", "region_name": "eu-west-1",
                          "headers": {"Authorization": "the-header"}},
        "session_kwargs": {"auth": ("user-name", b"the-password")}, "pass" "word": "abc",
    }  # fmt: skip
    found = secrets_of(options)
    assert {"the-id", "the-secret", "the-key==", "the-token", "the-header", "the-password", "user-name"} <= found
    assert not found & {"visible", "http://host", "eu-west-1", "abc"}


@given(st.text(st.characters(categories=["L", "N", "P"]), min_size=6, max_size=40), st.text(), st.text())
def test_no_given_secret_is_told(secret: str, before: str, after: str) -> None:
    """Whatever a secret looks like, and wherever a client puts it, it is not in the reason."""
    fault = fault_of(RuntimeError(f"{before} {secret} {after}"), URL, secrets_of({"secret": secret}))
    assert secret not in fault.reason.removeprefix("RuntimeError: ").replace("…", "\0")


@pytest.mark.parametrize(
    ("url", "fault", "text"),
    [
        (URL, Fault("missing", "NoSuchKey"), r"^Cannot read s3://data/in/a-0\.tar: there is no such file\. No key "),
        (URL, Fault("missing", "NoSuchKey"), r" No key 'in/a-0\.tar' was found in bucket 'data': check the "),
        (URL, Fault("missing", "E: NoSuchBucket"), r"no such file\. There is no bucket 'data': check the spelling"),
        ("az://box/a.tar", Fault("missing", "ContainerNotFound"), r"There is no container 'box': check"),
        (URL, Fault("missing", "NoSuchKey"), r" the endpoint or region, and .* was removed \(NoSuchKey\)\.$"),
        ("az://box/a.tar", Fault("missing", "BlobNotFound"), r"No key 'a\.tar' was found in container 'box'"),
        ("sftp://host/a.tar", Fault("missing", "gone"), r"such file\. Check the spelling and whether it was removed"),
        (URL, Fault("denied", "AccessDenied"), r"to bucket 'data' is denied \(AccessDenied\)\. Give key= and secret="),
        (URL, Fault("denied", "AccessDenied"), r"anon=True for a public bucket.*requester_pays=True.*clock that"),
        (URL, Fault("denied", "AccessDenied"), r"Commands take these by --option\.$"),
        ("gs://b/a.tar", Fault("denied", "403"), r"access to bucket 'b' is denied \(403\)\. Give token="),
        ("az://b/a.tar", Fault("denied", "403"), r"access to container 'b' is denied.*account_name= with account_key="),
        (SIGNED, Fault("denied", "403"), r"access to host 'host' is denied.*a URL whose signature is valid"),
        ("sftp://host/a.tar", Fault("denied", "no"), r"Give what the file system asks for in storage_options"),
        ("http://h/a.tar", Fault("no-ranges", "status 200"), r"whole files only \(status 200\)\. Read it in sequence"),
        (URL, Fault("throttled", "503"), r"asks for fewer requests after 4 attempts \(503\)\. Lower in_flight="),
        (URL, Fault("transient", "reset"), r"no whole answer came after 4 attempts \(reset\)\. Check the network"),
        (URL, Fault("broken", "odd"), r": odd\. Check the URL, the endpoint and storage_options\.$"),
    ],
)  # fmt: skip
def test_what_a_user_is_told(url: str, fault: Fault, text: str) -> None:
    """The object, what is likely wrong, and the next step."""
    error = error_of(fault, url, offset=7, attempts=4)
    assert isinstance(error, ReadError)
    with pytest.raises(ReadError, match=text):
        raise error
    assert error.offset == 7


def test_a_changed_object_is_told_apart() -> None:
    """It is another error, since another step follows."""
    error = error_of(Fault("changed", "another ETag"), URL)
    assert isinstance(error, ShardChangedError)
    with pytest.raises(ShardChangedError, match=r"a-0\.tar changed since it was indexed: another ETag\. Run `seta"):
        raise error


def test_no_message_holds_a_signature() -> None:
    """Neither the text nor the facts of an error hold a signed URL's query."""
    for kind in ("missing", "denied", "changed", "broken"):
        error = error_of(fault_of(web(403), SIGNED), SIGNED) if kind == "denied" else error_of(Fault(kind, "x"), SIGNED)
        assert "X-Amz" not in str(error)
        assert "X-Amz" not in repr(vars(error))
    assert "X-Amz" not in fault_of(RuntimeError(f"GET {SIGNED} failed"), SIGNED).reason


def test_a_host_is_quoted_without_its_password() -> None:
    """A client that repeats a part of the URL repeats no password."""
    reason = fault_of(ValueError('Invalid bucket name "me:pass@data"'), "s3://me:pass@data/a.tar").reason
    assert reason == 'ValueError: Invalid bucket name "data"'


def test_of_a_document_the_code_is_told() -> None:
    """What a store writes about an error in XML is one word of it in the reason."""
    document = '<?xml version="1.0"?> <Error><Code>NoSuchKey</Code><Message>None such.</Message></Error>'
    error = OSError(f"Object a.tar not found: status code: 404 Not Found: {document}")
    assert fault_of(error, URL).reason == "OSError: Object a.tar not found: status code: 404 Not Found: NoSuchKey"
