"""Every exception of the package.

A message says what was attempted, on which object, what was expected and found, and what to do next. The same facts
are attributes, so that a program need not parse the message. All of them survive pickling (a DataLoader worker sends
its error to the main process).
"""

from __future__ import annotations

from seta_stream.visible import visible_lines


class SetaStreamError(Exception):
    """Base of everything raised on purpose by seta_stream.

    Args:
        message: the whole text for a person; what cannot be seen is spelled out, since keys and names in it are those
            of whoever made the corpus. The facts stay as they are.
        shard: URL of the shard concerned.
        key: key of the sample, or name of the member, concerned.
        offset: byte offset in the shard.
        expected: what should have been there.
        found: what was there.
    """

    def __init__(
        self,
        message: str,
        *,
        shard: str | None = None,
        key: str | None = None,
        offset: int | None = None,
        expected: object = None,
        found: object = None,
    ) -> None:
        message = visible_lines(message)
        super().__init__(message)
        self.message = message
        self.shard = shard
        self.key = key
        self.offset = offset
        self.expected = expected
        self.found = found

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, dict(self.__dict__))


def _rebuild(kind: type[SetaStreamError], message: str, facts: dict[str, object]) -> SetaStreamError:
    error = kind(message)
    error.__dict__.update(facts)
    return error


class ArgumentError(SetaStreamError, ValueError):
    """An option of a public entry point is wrong, or two of them exclude each other."""


class UnsupportedError(SetaStreamError, NotImplementedError):
    """Something that this release does not do; the message names the way round."""


class CorpusError(SetaStreamError):
    """The corpus cannot be listed, indexed or understood."""


class TarError(CorpusError):
    """A shard breaks the tar format: bad checksum, truncated header or body, unsupported member."""


class DuplicateFieldError(CorpusError):
    """One sample holds the same field twice; WebDataset refuses that too."""


class IndexFileError(CorpusError):
    """An index file is damaged, foreign or of a future version."""


class ShardChangedError(CorpusError):
    """A shard is not the object that was indexed: its size, or its time or ETag, differs."""


class StateError(SetaStreamError):
    """The state (sidecars, generations, history, a checkpoint) is missing, locked or does not fit."""


class SidecarError(StateError):
    """A sidecar file is damaged, foreign or of a future version."""


class GenerationError(StateError):
    """A generation that is asked for is gone or not whole."""


class StateLockedError(StateError):
    """Another run writes the same state."""


class CheckpointError(StateError):
    """A checkpoint does not fit this corpus, policy or batch."""


class LossError(SetaStreamError, ValueError):
    """record() or update() was given ids or losses that cannot be what they should be."""


class PolicyError(SetaStreamError, ValueError):
    """A policy's settings are impossible, or the rule it gave is malformed."""


class PlanError(SetaStreamError, ValueError):
    """An epoch cannot be planned: nothing selected, or fewer samples than one global batch."""


class ReadError(SetaStreamError, OSError):
    """Bytes could not be read: missing shard, short read, no permission."""


class DecodeError(SetaStreamError):
    """A field could not be turned into a value, or too many samples could not."""


class SetaStreamWarning(UserWarning):
    """Category of every warning that the package gives; what cannot be seen in its text is spelled out."""

    def __init__(self, *told: object) -> None:
        super().__init__(*map(visible_lines, told))


class PeerError(SetaStreamError):
    """Another process of the run failed, left, or did something else than this one."""


class PeerFailedError(PeerError):
    """Another process told that it failed: it is still there, and all stand at the same exchange."""


class MissingExtraError(SetaStreamError, ImportError):
    """A package that an optional part needs is not installed; the message holds the pip command."""

    @classmethod
    def of(cls, what: str, extra: str, error: ImportError) -> MissingExtraError:
        """Return the error for a part of the package whose framework cannot be imported.

        Args:
            what: needs it, as the subject of a sentence.
            extra: of this package, that brings it.
            error: what its import raised.
        """
        return cls(
            f"{what} needs a package that cannot be imported ({error}). Install it: pip install 'seta-stream[{extra}]'",
            expected=extra,
            found=str(error),
        )
