"""The exceptions.

    AcbError
     ├─ NotFoundError               it is not there, or the caller may not know that it is
     ├─ AlreadyExistsError          it is there already
     ├─ ConflictError               it does not fit the state that things are in
     ├─ InvalidArgumentError        it can never be (also a ValueError)
     ├─ UnauthenticatedError        who calls is not known
     ├─ PermissionDeniedError       who calls may not (also a PermissionError)
     ├─ ResourceExhaustedError      a limit, a quota or a disk is full
     ├─ UnavailableError            the other side is not there now (also a ConnectionError)
     ├─ DeadlineExceededError       time ran out; it may have happened (also a TimeoutError)
     ├─ OperationCancelledError     it was given up, or the client is closed
     ├─ DataLossError               data is damaged
     ├─ UnsupportedError            this server or version does not do it
     └─ InternalError               a fault of ours

Classes are for ``except``, codes for what exactly it was: ``error.code`` is one of the names in ``ERROR_CODES``, the same
in every language, with a page each in ``docs/errors``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._error_codes import ERROR_CODES
from ._value import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AcbError",
    "AlreadyExistsError",
    "ConflictError",
    "DataLossError",
    "DeadlineExceededError",
    "Gap",
    "InternalError",
    "InvalidArgumentError",
    "NotFoundError",
    "OperationCancelledError",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
]


class Gap(Value, kw_only=False):
    """Messages that a subscription will never get, because they were trimmed before it read them."""

    from_seq: int
    """The first seq that is missing."""
    to_seq: int
    """The first that is there again."""
    reason: str
    """``retention`` or ``damage``."""


class AcbError(Exception):
    """The base of every exception of this package."""

    code: str
    """Stable name of what went wrong, such as ``agent_not_found``."""
    message: str
    """One sentence for people; may change."""
    operation: str
    """What was being done, such as ``agents.get``."""
    retryable: bool
    """Whether the same call may succeed later without anybody changing it."""
    retry_after: float | None
    """When the server says to try again, in seconds."""
    request_id: str | None
    """Names the request in the server's log."""
    context: Mapping[str, str]
    """Named facts, such as ``limit`` and ``actual``."""
    gap: Gap | None
    """The messages that are gone, when that is what it says."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "internal",
        operation: str = "",
        retryable: bool | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        context: Mapping[str, str] | None = None,
        gap: Gap | None = None,
    ) -> None:
        super().__init__(f"{operation}: {message}" if operation else message)
        self.code = code
        self.message = message
        self.operation = operation
        known = ERROR_CODES.get(code)
        self.retryable = retryable if retryable is not None else known is not None and known.retryable
        self.retry_after = retry_after
        self.request_id = request_id
        self.context = dict(context or {})
        self.gap = gap

    @property
    def kind(self) -> str:
        """What sort of failure it is, such as ``not_found``."""
        known = ERROR_CODES.get(self.code)
        return known.kind if known is not None else "internal"

    @property
    def hint(self) -> str:
        """What to do about it."""
        known = ERROR_CODES.get(self.code)
        return known.action if known is not None else ""

    def __str__(self) -> str:
        return f"{self.operation}: {self.message}" if self.operation else self.message

    def __reduce__(self) -> tuple[object, ...]:
        facts = (self.code, self.message, self.operation, self.retryable, self.retry_after, self.request_id)
        return (_rebuild, (type(self), *facts, dict(self.context), self.gap))


def _rebuild(
    cls: type[AcbError],
    code: str,
    message: str,
    operation: str,
    retryable: bool,
    retry_after: float | None,
    request_id: str | None,
    context: dict[str, str],
    gap: Gap | None,
) -> AcbError:
    return cls(
        message,
        code=code,
        operation=operation,
        retryable=retryable,
        retry_after=retry_after,
        request_id=request_id,
        context=context,
        gap=gap,
    )


class NotFoundError(AcbError):
    """It is not there, or the caller may not know that it is."""


class AlreadyExistsError(AcbError):
    """It is there already."""


class ConflictError(AcbError):
    """It does not fit the state that things are in: ask for the state and decide anew."""


class InvalidArgumentError(AcbError, ValueError):
    """It can never be, whatever the state."""


class UnauthenticatedError(AcbError):
    """Who calls is not known."""


class PermissionDeniedError(AcbError, PermissionError):
    """Who calls may not."""


class ResourceExhaustedError(AcbError):
    """A limit, a quota or a disk is full."""


class UnavailableError(AcbError, ConnectionError):
    """The other side is not there now."""


class DeadlineExceededError(AcbError, TimeoutError):
    """Time ran out; it may have happened."""


class OperationCancelledError(AcbError):
    """It was given up, or the client is closed."""


class DataLossError(AcbError):
    """Stored or sent data is damaged."""


class UnsupportedError(AcbError):
    """This server or version does not do it."""


class InternalError(AcbError):
    """A fault of ours."""


BY_KIND: Mapping[str, type[AcbError]] = {
    "not_found": NotFoundError,
    "already_exists": AlreadyExistsError,
    "conflict": ConflictError,
    "invalid_argument": InvalidArgumentError,
    "unauthenticated": UnauthenticatedError,
    "permission_denied": PermissionDeniedError,
    "resource_exhausted": ResourceExhaustedError,
    "unavailable": UnavailableError,
    "deadline_exceeded": DeadlineExceededError,
    "cancelled": OperationCancelledError,
    "data_loss": DataLossError,
    "unsupported": UnsupportedError,
    "internal": InternalError,
}


def make(code: str, message: str, operation: str, **facts: str) -> AcbError:
    """An exception of ours, of the class that its code says."""
    return BY_KIND[ERROR_CODES[code].kind](message, code=code, operation=operation, context=facts)


def from_native(
    code: str,
    message: str,
    operation: str,
    retryable: bool,
    retry_after: float | None,
    request_id: str | None,
    context: dict[str, str],
    gap: tuple[int, int, str] | None,
) -> AcbError:
    """An exception of the core's, of the class that its code says."""
    known = ERROR_CODES.get(code)
    cls = BY_KIND[known.kind] if known is not None else InternalError
    return _rebuild(
        cls, code, message, operation, retryable, retry_after, request_id, context, Gap(*gap) if gap is not None else None
    )
