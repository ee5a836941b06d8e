"""The real server, and what it says of itself by reflection. Nothing here is generated from our proto files."""

import os
import pathlib
import random
import socket
import subprocess
import time
import urllib.error
import urllib.request

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 15.0
READY_WITHIN = 30.0


def free_port():
    """A port below those of outgoing connections: one of these to a closed port can otherwise meet itself."""
    for port in random.sample(range(18_000, 31_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


def is_ready(admin):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/ready", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server on a new folder; its address. Its log is shown when it does not start."""
    program = pathlib.Path(os.environ.get("ACB_SERVER_BIN", ROOT / "target/debug/acb-server"))
    if not program.is_file():
        pytest.fail(f"{program} is not built: cargo build -p acb-server")
    # The server takes variables of its own prefix for settings and refuses those that it does not know.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACB_")}
    folder = tmp_path_factory.mktemp("server")
    port, admin = free_port(), free_port()
    log = folder / "log"
    command = [program, "--dev", "--listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{admin}",
               "--data-dir", folder / "data"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        until = time.monotonic() + READY_WITHIN
        while not is_ready(admin):
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"the server did not become ready:\n{log.read_text()}")
            time.sleep(0.01)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server) as channel:
        grpc.channel_ready_future(channel).result(timeout=PATIENCE)
        yield channel


class Contract:
    """Calls and messages as the server's reflection tells them."""

    def __init__(self, channel):
        self.channel = channel
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def services(self):
        return set(self.database.get_services())

    def message(self, name, /, **fields):
        kind = message_factory.GetMessageClass(self.pool.FindMessageTypeByName(f"acb.v1.{name}"))
        return kind(**fields)

    def call(self, service, method, request, agent="foreign"):
        """One unary call."""
        types = self._types(service, method)
        make = self.channel.unary_unary(
            f"/acb.v1.{service}/{method}",
            request_serializer=types[0].SerializeToString,
            response_deserializer=types[1].FromString,
        )
        return make(request, metadata=[("acb-agent", agent)], timeout=PATIENCE)

    def stream(self, service, method, requests, agent="foreign"):
        """A stream both ways. Requests may be messages, or bytes that go as they are."""
        types = self._types(service, method)
        make = self.channel.stream_stream(
            f"/acb.v1.{service}/{method}",
            request_serializer=lambda r: r if isinstance(r, bytes) else r.SerializeToString(),
            response_deserializer=types[1].FromString,
        )
        return make(requests, metadata=[("acb-agent", agent)], timeout=PATIENCE)

    def _types(self, service, method):
        found = self.pool.FindServiceByName(f"acb.v1.{service}").FindMethodByName(method)
        return (message_factory.GetMessageClass(found.input_type), message_factory.GetMessageClass(found.output_type))


@pytest.fixture
def contract(channel):
    return Contract(channel)
