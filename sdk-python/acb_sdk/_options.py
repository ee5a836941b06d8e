"""What a client is told before it connects."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from ._value import Value

if TYPE_CHECKING:
    from pathlib import Path

    from ._types import Durability


class Credentials(Value, kw_only=False, hidden=("parts",)):
    """What a client proves itself with. Made by its class methods; secrets do not show in ``repr``."""

    parts: tuple[str, ...]
    shown: str

    @classmethod
    def enrolment_key(cls, key: str, agent_id: str) -> Credentials:
        """An enrolment key (``acb_…``), which names its tenant, and the agent id to take with it."""
        return cls(("enrolment_key", key, agent_id), f"enrolment key for {agent_id}")

    @classmethod
    def secret(cls, tenant: str, agent_id: str, secret: str) -> Credentials:
        """An agent's own secret."""
        return cls(("secret", tenant, agent_id, secret), f"secret of {agent_id} in {tenant}")

    @classmethod
    def token(cls, access_token: str) -> Credentials:
        """An access token made elsewhere: the client works until it ends."""
        return cls(("token", access_token), "access token")

    @classmethod
    def refresh_token(cls, refresh_token: str) -> Credentials:
        """A refresh token. It works once: the client takes it over."""
        return cls(("refresh_token", refresh_token), "refresh token")

    @classmethod
    def dev(cls, agent_id: str, *, tenant: str = "default") -> Credentials:
        """No proof at all: for ``acb-server --dev``, which takes everybody's word."""
        return cls(("dev", tenant, agent_id), f"{agent_id} in {tenant}, by name alone")


class Tls(Value):
    """Roots and client certificate for ``acbs://``, as files in PEM."""

    roots: Path | str | None = None
    """Certificates to trust in place of the system's."""
    certificate: Path | str | None = None
    key: Path | str | None = None
    server_name: str | None = None
    """The name that the server's certificate must have, when it is not the endpoint's host."""


class Options(Value):
    """Everything that was decided before connecting. Spans are seconds."""

    request_timeout: float = 10.0
    """How long a call may take, reconnects and retries included, when it is given no ``timeout``."""
    connect_timeout: float = 10.0
    publish_timeout: float = 30.0
    """How long a publish may wait for room in the window, and then once more for its acknowledgement."""
    drain_timeout: float = 10.0
    publish_window_messages: int = 1024
    """Publishes that may be unacknowledged at once; more wait for room."""
    publish_window_bytes: int = 8 << 20
    frame_messages_max: int = 128
    max_pending: int = 64
    """Messages that each subscription may have here, unacknowledged, when it does not say otherwise."""
    max_pending_bytes: int = 8 << 20
    ack_linger: float = 0.005
    """How long a plain ack may wait for others."""
    durability: Durability | None = None
    """Level of sends and publishes that name none; the server's default, ``synced``, without it."""
    retry_attempts: int | None = None
    reconnect_attempts: int | None = None
    """Attempts to connect again before the client closes; it never gives up without it."""
    keep_alive_interval: float = 10.0
    keep_alive_timeout: float = 10.0
    tls: Tls | None = None

    def to_native(self) -> dict[str, object]:
        """As the border takes it. The files of ``tls`` are read here."""
        out: dict[str, object] = {
            name: value for name, value in vars(self).items() if name != "tls"
        }
        if self.tls is not None:
            from pathlib import Path

            for name, path in (
                ("tls_roots", self.tls.roots),
                ("tls_certificate", self.tls.certificate),
                ("tls_key", self.tls.key),
            ):
                if path is not None:
                    out[name] = Path(path).read_text(encoding="utf-8")
            out["tls_server_name"] = self.tls.server_name
        return out


class NotGiven(Enum):
    """Stands for what is not given, where ``None`` means something."""

    NOT_GIVEN = "not given"

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN: Final = NotGiven.NOT_GIVEN


def given(**options: object) -> dict[str, object] | None:
    """The options that are given; ``None`` when none is."""
    out = {name: value for name, value in options.items() if value is not None}
    return out or None
