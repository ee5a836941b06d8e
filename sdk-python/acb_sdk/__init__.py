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
from ._async_contexts import AsyncContextPages, AsyncContexts
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
from ._async_watches import AsyncWatch
from ._client import Client
from ._contexts import ContextPages, Contexts
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
from ._options import NOT_GIVEN, Credentials, NotGiven, Options, Tls
from ._payload import Payload
from ._subscription import Subscription
from ._types import (
    Agent,
    AgentActivity,
    AgentEvent,
    AgentPresence,
    AgentStatus,
    ByteReader,
    ByteWriter,
    Capability,
    ConnectionEvent,
    Context,
    ContextAccess,
    ContextEvent,
    ContextPage,
    ContextScope,
    CreatedKey,
    CreatedSubscription,
    DeadLetter,
    DeadLetterPolicy,
    DeliveryState,
    Downloaded,
    Durability,
    EnrolmentKey,
    Group,
    GroupMember,
    Health,
    Identity,
    MessageKind,
    MessageStatus,
    Page,
    Priority,
    Progress,
    SharedContext,
    SubscriptionInfo,
    SubscriptionStatus,
    Tenant,
    Tokens,
    UpdatedContext,
    Uploaded,
    UploadStatus,
)
from ._watches import Watch

__all__ = [
    "ERROR_CODES",
    "NOT_GIVEN",
    "AcbError",
    "Admin",
    "Agent",
    "AgentActivity",
    "AgentEvent",
    "AgentPresence",
    "AgentStatus",
    "Agents",
    "AlreadyExistsError",
    "AsyncAdmin",
    "AsyncAgents",
    "AsyncAuth",
    "AsyncClient",
    "AsyncContextPages",
    "AsyncContexts",
    "AsyncDeadLetters",
    "AsyncEvents",
    "AsyncMessage",
    "AsyncMessages",
    "AsyncPages",
    "AsyncPublisher",
    "AsyncReceipt",
    "AsyncSubscription",
    "AsyncSubscriptions",
    "AsyncWatch",
    "Auth",
    "ByteReader",
    "ByteWriter",
    "Capability",
    "Client",
    "ConflictError",
    "ConnectionEvent",
    "Context",
    "ContextAccess",
    "ContextEvent",
    "ContextPage",
    "ContextPages",
    "ContextScope",
    "Contexts",
    "CreatedKey",
    "CreatedSubscription",
    "Credentials",
    "DataLossError",
    "DeadLetter",
    "DeadLetterPolicy",
    "DeadLetters",
    "DeadlineExceededError",
    "DeliveryState",
    "Downloaded",
    "Durability",
    "EnrolmentKey",
    "ErrorCode",
    "Events",
    "Gap",
    "Group",
    "GroupMember",
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
    "NotGiven",
    "OperationCancelledError",
    "Options",
    "Page",
    "Pages",
    "Payload",
    "PermissionDeniedError",
    "Priority",
    "Progress",
    "Published",
    "Publisher",
    "Receipt",
    "ResourceExhaustedError",
    "SharedContext",
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
    "UpdatedContext",
    "UploadStatus",
    "Uploaded",
    "Watch",
    "__version__",
    "new_idempotency_key",
]
