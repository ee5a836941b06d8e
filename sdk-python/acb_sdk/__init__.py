"""The Python client of the Agentic Context Bus.

>>> import acb_sdk
>>> async def hello() -> None:
...     async with acb_sdk.AsyncClient(credentials=acb_sdk.Credentials.dev("worker-1")) as bus:
...         await bus.agents.register("worker-1", capabilities=["text.count"])
...         await bus.messages.send("planner", {"text": "ready"})
...         async with bus.inbox() as messages:
...             async for message in messages:
...                 await message.ack()

``Client`` has the same methods without ``await``. All failures are an ``AcbError``; every call takes a ``timeout`` in
seconds; logs go to ``logging.getLogger("acb_sdk")``.
"""

from ._async_client import AsyncClient
from ._async_messages import AsyncMessages, AsyncPublisher
from ._async_nouns import (
    AsyncAdmin,
    AsyncAgents,
    AsyncAuth,
    AsyncDeadLetters,
    AsyncEvents,
    AsyncPages,
    AsyncSubscriptions,
)
from ._async_subscription import AsyncSubscription
from ._client import Client
from ._error_codes import ERROR_CODES, ErrorCode
from ._errors import (
    AcbError,
    AlreadyExistsError,
    ConflictError,
    DataLossError,
    DeadlineExceededError,
    Gap,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    OperationCancelledError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from ._messages import Messages, Publisher
from ._native import VERSION as __version__
from ._native import AsyncMessage, AsyncReceipt, KeptLease, Message, Published, Receipt
from ._native import random_key as new_idempotency_key
from ._nouns import Admin, Agents, Auth, DeadLetters, Events, Pages, Subscriptions
from ._options import Credentials, Options, Tls
from ._payload import Payload
from ._subscription import Subscription
from ._types import (
    Agent,
    AgentStatus,
    Capability,
    ConnectionEvent,
    CreatedKey,
    CreatedSubscription,
    DeadLetter,
    DeadLetterPolicy,
    DeliveryState,
    Durability,
    EnrolmentKey,
    Health,
    Identity,
    MessageKind,
    MessageStatus,
    Page,
    Priority,
    SubscriptionInfo,
    SubscriptionStatus,
    Tenant,
    Tokens,
)

__all__ = [
    "ERROR_CODES",
    "AcbError",
    "Admin",
    "Agent",
    "AgentStatus",
    "Agents",
    "AlreadyExistsError",
    "AsyncAdmin",
    "AsyncAgents",
    "AsyncAuth",
    "AsyncClient",
    "AsyncDeadLetters",
    "AsyncEvents",
    "AsyncMessage",
    "AsyncMessages",
    "AsyncPages",
    "AsyncPublisher",
    "AsyncReceipt",
    "AsyncSubscription",
    "AsyncSubscriptions",
    "Auth",
    "Capability",
    "Client",
    "ConflictError",
    "ConnectionEvent",
    "CreatedKey",
    "CreatedSubscription",
    "Credentials",
    "DataLossError",
    "DeadLetter",
    "DeadLetterPolicy",
    "DeadLetters",
    "DeadlineExceededError",
    "DeliveryState",
    "Durability",
    "EnrolmentKey",
    "ErrorCode",
    "Events",
    "Gap",
    "Health",
    "Identity",
    "InternalError",
    "InvalidArgumentError",
    "KeptLease",
    "Message",
    "MessageKind",
    "MessageStatus",
    "Messages",
    "NotFoundError",
    "OperationCancelledError",
    "Options",
    "Page",
    "Pages",
    "Payload",
    "PermissionDeniedError",
    "Priority",
    "Published",
    "Publisher",
    "Receipt",
    "ResourceExhaustedError",
    "Subscription",
    "SubscriptionInfo",
    "SubscriptionStatus",
    "Subscriptions",
    "Tenant",
    "Tls",
    "Tokens",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
    "__version__",
    "new_idempotency_key",
]
