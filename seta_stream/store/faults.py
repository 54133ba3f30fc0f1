"""What went wrong with a request, whichever client made it. Pure: takes errors, gives faults and messages.

Takes whatever fsspec, s3fs and botocore, aiohttp, adlfs and azure, gcsfs, obstore or the operating system raise. Gives
one of seven kinds, a pause where the server asked for one, and a reason without credentials; and of that the error that
a user meets. No client is imported: errors are known by their attributes and the names of their types.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Collection, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal

from seta_stream.errors import ReadError, ShardChangedError
from seta_stream.store.redaction import redact
from seta_stream.store.urls import protocol_of, shown, split

Kind = Literal["throttled", "transient", "changed", "missing", "denied", "no-ranges", "broken"]

_BY_STATUS: Final[Mapping[int, Kind]] = {
    401: "denied", 403: "denied", 404: "missing", 407: "denied", 408: "transient", 410: "missing", 412: "changed",
    416: "changed", 425: "transient", 429: "throttled", 500: "transient", 502: "transient", 503: "throttled",
    504: "transient", 509: "throttled", 520: "transient", 522: "transient", 524: "transient",
}  # fmt: skip
_BY_CODE: Final[Mapping[str, Kind]] = {
    # S3's and Azure's own words say more than the status that comes with them.
    **dict.fromkeys(("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests",
                     "TooManyRequestsException", "BandwidthLimitExceeded", "ServiceUnavailable", "ServerBusy"),
                    "throttled"),
    **dict.fromkeys(("InternalError", "RequestTimeout", "OperationTimedOut", "OperationAborted"), "transient"),
    **dict.fromkeys(("ExpiredToken", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken",
                     "TokenRefreshRequired", "RequestTimeTooSkewed", "AllAccessDisabled", "AccountProblem",
                     "InvalidSecurity", "NotSignedUp", "AuthenticationFailed", "AuthorizationFailure",
                     "AuthorizationPermissionMismatch", "NoAuthenticationInformation", "PublicAccessNotPermitted"),
                    "denied"),
    **dict.fromkeys(("NoSuchKey", "NoSuchBucket", "NoSuchVersion", "BlobNotFound", "ContainerNotFound"), "missing"),
    **dict.fromkeys(("PreconditionFailed", "ConditionNotMet", "InvalidRange"), "changed"),
    **dict.fromkeys(("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
                    "broken"),
}  # fmt: skip
_BY_TYPE: Final[Mapping[str, Kind]] = {
    # Looked up along each type's bases, so that a base stands for all that derive from it.
    **dict.fromkeys(("SSLCertVerificationError", "ClientConnectorCertificateError", "InvalidURL"), "broken"),
    **dict.fromkeys(("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound",
                     "TokenRetrievalError", "ClientAuthenticationError", "CredentialUnavailableError",
                     "GoogleAuthError", "PermissionDeniedError", "UnauthenticatedError", "PermissionError"), "denied"),
    **dict.fromkeys(("FileNotFoundError", "ResourceNotFoundError", "NotFoundError"), "missing"),
    **dict.fromkeys(("PreconditionError", "ResourceModifiedError", "FileExpired"), "changed"),
    **dict.fromkeys(("ConnectionError", "TimeoutError", "IncompleteReadError", "IncompleteRead", "HTTPClientError",
                     "ClientConnectionError", "ClientPayloadError", "ResponseStreamingError", "ServiceRequestError",
                     "ServiceResponseError", "RequestException", "ResponseParserError", "ChecksumError",
                     "JoinError", "EOFError", "SSLError"), "transient"),
}  # fmt: skip
_TRANSIENT_ERRNOS: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETRESET})
_STATUS_IN_TEXT: Final = re.compile(r"status code: (\d{3})")
_CODE_IN_TEXT: Final = re.compile(r"<Code>(\w+)</Code>")
_OBSTORE_TRANSIENT: Final = re.compile(r"HTTP error|timed? ?out|connection|decoding response|body", re.IGNORECASE)
_NO_BUCKET: Final = re.compile(r"NoSuchBucket|ContainerNotFound")
_LONGEST_CHAIN: Final = 8


class Fault(Exception):  # noqa: N818  (a value that travels as an exception; what a user meets is made of it)
    """One attempt that failed.

    Args:
        kind: "throttled": the store asks for fewer requests; "transient": worth another attempt; "changed": the object
            is another one; "missing": there is none; "denied": no right, or no valid credentials; "no-ranges": the
            server sends whole objects only; "broken": none of these, and another attempt would fail as well.
        reason: one line without credentials.
        retry_after_s: the pause that the server asked for.
    """

    def __init__(self, kind: Kind, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(kind, reason, retry_after_s)
        self.kind: Kind = kind
        self.reason = reason
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


def fault_of(error: BaseException, url: str, secrets: Collection[str] = ()) -> Fault:
    """Return what an error of any client means.

    Args:
        error: whatever was raised.
        url: of the object, whose signed query does not get into the reason.
        secrets: the caller's own credentials, likewise.
    """
    if isinstance(error, Fault):
        return error
    chain = list(_chain(error))
    kind, said = next(((kind, one) for one in chain if (kind := _by_answer(one)) is not None), (None, error))
    if kind is None:
        judged = [(found, one) for one in chain if (found := _by_type(one)) is not None]
        # What was wrong below, as a certificate or an unknown host, is hidden by the wrapper's "no connection".
        hopeless = [one for one in judged if one[0] == "broken"]
        kind, said = (hopeless or judged or [("broken", error)])[0]
    waits = (_retry_after(headers) for one in chain if (headers := _headers(one)))
    return Fault(kind, _reason(said, url, secrets), next((wait for wait in waits if wait is not None), None))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it, the last one first: clients wrap each other's."""
    one: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if one is None:
            return
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _names(error: BaseException) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__]


def _is_obstore(error: BaseException) -> bool:
    return any(kind.__module__.startswith("obstore") for kind in type(error).__mro__)


def _by_answer(error: BaseException) -> Kind | None:
    """Return what the server's answer says; None where the error holds none."""
    code, status = _code(error), _status(error)
    if code in _BY_CODE:
        return _BY_CODE[code]
    if status is None or status < 300:
        return None
    return _BY_STATUS.get(status, "transient" if status >= 505 and status != 505 else "broken")


def _code(error: BaseException) -> str:
    """Return the store's own word for what went wrong."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore
        return str(response.get("Error", {}).get("Code", ""))
    code = getattr(error, "error_code", None)  # azure: an enum, or a text
    if code is not None:
        return str(getattr(code, "value", code))
    found = _CODE_IN_TEXT.search(str(error)) if _is_obstore(error) or isinstance(error, OSError) else None
    return found[1] if found else ""


def _status(error: BaseException) -> int | None:
    """Return the HTTP status."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        told = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return told if isinstance(told, int) else None
    if "HttpError" in _names(error):  # gcsfs
        told = str(getattr(error, "code", ""))
        return int(told) if told.isdigit() else None
    for name in ("status", "status_code"):  # aiohttp, azure
        told = getattr(error, name, None)
        if isinstance(told, int) and told > 0:
            return told
    if _is_obstore(error) or isinstance(error, OSError):
        found = _STATUS_IN_TEXT.search(str(error))
        return int(found[1]) if found else None
    return None


def _by_type(error: BaseException) -> Kind | None:
    """Return what the error's type says."""
    if _is_obstore(error):
        named = next((_BY_TYPE[name] for name in _names(error) if name in _BY_TYPE), None)
        return named or _by_obstore_text(str(error))
    if type(error).__name__ == "gaierror":
        # A name that no server knows stays unknown; one that could not be asked for now may be known later.
        return "broken" if "not known" in str(error) or "No address" in str(error) else "transient"
    for name in _names(error):
        if name in _BY_TYPE:
            return _BY_TYPE[name]
    if str(error).startswith("Forbidden") or "requester pays" in str(error):  # gcsfs
        return "denied"
    return "transient" if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS else None


def _by_obstore_text(text: str) -> Kind:
    if "InvalidCertificate" in text or "Name or service not known" in text:
        return "broken"
    if "NotPartial" in text or "non-partial response" in text:
        return "no-ranges"
    if "UnexpectedRange" in text:
        return "changed"
    return "transient" if _OBSTORE_TRANSIENT.search(text.partition("Debug source")[0]) else "broken"


def _headers(error: BaseException) -> Mapping[str, str]:
    """Return the answer's headers by lower-case name."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        headers: Any = response.get("ResponseMetadata", {}).get("HTTPHeaders")
    else:
        headers = getattr(error, "headers", None) or getattr(response, "headers", None)
    if not isinstance(headers, Mapping):
        return {}
    return {str(name).lower(): str(value) for name, value in headers.items()}


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the pause that the server asks for: seconds, or a date, counted from the server's own clock."""
    for name, factor in (("retry-after-ms", 1e-3), ("x-ms-retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if value.replace(".", "", 1).isdigit():
            return float(value) * factor
    try:
        then, now = (parsedate_to_datetime(headers.get(name, "")) for name in ("retry-after", "date"))
    except (TypeError, ValueError):
        return None
    return max((then - now).total_seconds(), 0.0)


def _reason(error: BaseException, url: str, secrets: Collection[str]) -> str:
    """Return the error in one line: the type where the text does not say it all, and no credentials."""
    text = str(error).partition("\n\nDebug source")[0]
    if _is_obstore(error) and (found := re.search(r'message: "([^"]+)"', str(error))):
        text = f"{text}: {found[1]}"
    before, mark, document = text.partition("<?xml")
    if mark and (code := _CODE_IN_TEXT.search(document)):  # of the store's document, its own word is enough
        text = f"{before.rstrip(': ')}: {code[1]}"
    # A client may quote the host alone, with the user and password that were written into the URL.
    text = text.replace(url, shown(url)).replace(split(url)[0] or url, split(shown(url))[0])
    said = redact(text, secrets)
    name = type(error).__name__
    return f"{name}: {said}" if said else name


_CREDENTIALS: Final[Mapping[str, str]] = {
    "s3": "key= and secret= (and token=), or profile=, in storage_options, anon=True for a public bucket, and "
    "requester_pays=True where the reader pays; a refused signature can be a clock that is wrong",
    "gs": 'token= in storage_options (a key file, or "anon" for a public bucket), and requester_pays=True where the '
    "reader pays",
    "az": "account_name= with account_key=, sas_token= or connection_string= in storage_options, or anon=True for a "
    "public container",
    "http": 'client_kwargs={"headers": {"Authorization": …}} in storage_options, or a URL whose signature is valid',
}
_FAMILIES: Final[Mapping[str, str]] = {
    "s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az", "http": "http",
    "https": "http",
}  # fmt: skip


def error_of(
    fault: Fault, url: str, *, offset: int | None = None, attempts: int = 0, action: str = "read"
) -> ReadError | ShardChangedError:
    """Return the error that a user meets: which object, what is likely wrong, and what to do.

    Args:
        fault: what the last attempt met.
        url: the object.
        offset: where in the object bytes were wanted.
        attempts: how many failed, where there were several.
        action: what was tried.
    """
    named = shown(url)
    if fault.kind == "changed":
        return ShardChangedError(
            f"{named} changed since it was indexed: {fault.reason}. Run `seta-stream index` again, or restore the "
            "shard.",
            shard=named,
            offset=offset,
            found=fault.reason,
        )
    return ReadError(f"Cannot {action} {named}: {_advice(fault, url, attempts)}", shard=named, offset=offset)


def _advice(fault: Fault, url: str, attempts: int) -> str:
    family = _FAMILIES.get(protocol_of(url), "")
    bucket, key = split(shown(url))
    word = {"az": "container", "http": "host"}.get(family, "bucket")
    if fault.kind == "missing":
        where = "Check"
        if _NO_BUCKET.search(fault.reason):
            where = f"There is no {word} {bucket!r}: check"
        elif family:
            where = f"No {'path' if family == 'http' else 'key'} {key!r} was found in {word} {bucket!r}: check"
        place = ", the endpoint or region," if family in {"s3", "az"} else ""
        return f"there is no such file. {where} the spelling{place} and whether it was removed ({fault.reason})."
    if fault.kind == "denied":
        give = _CREDENTIALS.get(family, "what the file system asks for in storage_options")
        return f"access to {word} {bucket!r} is denied ({fault.reason}). Give {give}. Commands take these by --option."
    if fault.kind == "no-ranges":
        return (
            f"the server sends whole files only ({fault.reason}). Read it in sequence: run `seta-stream index` again; "
            "or put the shards where byte ranges are served."
        )
    tried = f" after {attempts} attempts" if attempts > 1 else ""
    if fault.kind == "throttled":
        return f"the store asks for fewer requests{tried} ({fault.reason}). Lower in_flight=, or try again later."
    if fault.kind == "transient":
        return f"no whole answer came{tried} ({fault.reason}). Check the network and the endpoint, and try again."
    return f"{fault.reason}. Check the URL, the endpoint and storage_options."
