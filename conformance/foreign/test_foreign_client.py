"""A client in another language, from the server's reflection alone: register, send, receive, acknowledge."""

import queue
import uuid

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from conftest import PATIENCE

END = object()


class Requests:
    """What goes up a stream, said when the test says it."""

    def __init__(self):
        self._queue = queue.Queue(maxsize=64)

    def say(self, request):
        self._queue.put(request)

    def end(self):
        self._queue.put(END)

    def __iter__(self):
        return iter(self._queue.get, END)


def new_agent(contract):
    agent = f"py-{uuid.uuid4().hex[:8]}"
    spec = contract.message("AgentSpec", id=agent, type="foreign", name="From Python")
    contract.call("AgentRegistry", "RegisterAgent", contract.message("RegisterAgentRequest", spec=spec), agent)
    return agent


def open_inbox(contract, agent):
    requests = Requests()
    frames = contract.stream("SubscriptionService", "Consume", iter(requests), agent)
    credit = contract.message("Credit", messages=10, bytes=1 << 20)
    opening = contract.message(
        "ConsumeOpen", subscription=f"$inbox.{agent}", session_id=uuid.uuid4().bytes, credit=credit)
    requests.say(contract.message("ConsumeRequest", open=opening))
    assert next(frames).HasField("opened")
    return requests, frames


def next_with(frames, field):
    for frame in frames:
        if getattr(frame, field):
            return frame
    pytest.fail(f"the stream ended before {field} came")


def receive_and_confirm(contract, requests, frames):
    """Takes one frame of messages, acknowledges all and waits until that is on disk."""
    frame = next_with(frames, "messages")
    assert sum(run.count for run in frame.runs) == len(frame.messages)
    ranges = [contract.message("SeqRange", first_seq=run.first_seq, count=run.count) for run in frame.runs]
    requests.say(contract.message("ConsumeRequest", confirmed_acks=ranges))
    settled = next_with(frames, "settled").settled
    assert settled and not any(one.HasField("error") for one in settled)
    return frame


def open_publisher(contract, agent):
    requests = Requests()
    frames = contract.stream("MessageService", "PublishStream", iter(requests), agent)
    opening = contract.message("PublishOpen", producer_id=uuid.uuid4().bytes, epoch=1)
    requests.say(contract.message("PublishStreamRequest", open=opening))
    assert next(frames).HasField("opened")
    return requests, frames


def test_health_answers_serving(channel):
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_shows_the_contract(contract):
    wanted = {"AgentRegistry", "MessageService", "SubscriptionService", "DeadLetterService", "AuthService", "AdminService"}
    assert {f"acb.v1.{name}" for name in wanted} <= contract.services()
    consume = contract.pool.FindServiceByName("acb.v1.SubscriptionService").FindMethodByName("Consume")
    assert consume.client_streaming and consume.server_streaming


def test_register_and_discover(contract):
    agent = new_agent(contract)
    request = contract.message("DiscoverAgentsRequest", type="foreign", text=agent)
    found = contract.call("AgentRegistry", "DiscoverAgents", request)
    assert [a.spec.id for a in found.agents] == [agent]


def test_send_receive_ack(contract):
    agent = new_agent(contract)
    requests, frames = open_inbox(contract, agent)
    message = contract.message("Message", topic=f"$acb.inbox.{agent}", payload=b"from Python")
    sent = contract.call("MessageService", "Send", contract.message("SendRequest", message=message), "sender")
    frame = receive_and_confirm(contract, requests, frames)
    assert [m.payload for m in frame.messages] == [b"from Python"]
    assert (getattr(frame.runs[0], "from"), frame.runs[0].attempt) == ("sender", 1)
    status = contract.call(
        "MessageService", "GetMessageStatus", contract.message("GetMessageStatusRequest", message_id=sent.message_id))
    # DELIVERY_STATE_ACKED
    assert [s.state for s in status.subscriptions if s.subscription == f"$inbox.{agent}"] == [3]
    requests.end()


def test_publish_stream_receive_ack(contract):
    agent = new_agent(contract)
    requests, frames = open_inbox(contract, agent)
    up, down = open_publisher(contract, "publisher")
    messages = [contract.message("Message", topic=f"$acb.inbox.{agent}", payload=b"%d" % n) for n in range(3)]
    up.say(contract.message("PublishStreamRequest", counter=1, messages=messages))
    acks = next_with(down, "acks").acks
    assert sum(ack.count for ack in acks) == 3 and not any(ack.duplicate for ack in acks)
    got = []
    while len(got) < 3:
        got += [m.payload for m in receive_and_confirm(contract, requests, frames).messages]
    assert got == [b"0", b"1", b"2"]
    up.end()
    requests.end()


def field(number, payload):
    """A length-delimited field, by hand; lengths up to 127."""
    assert len(payload) < 128
    return bytes([number << 3 | 2, len(payload)]) + payload


def test_frame_in_another_order_is_taken(contract):
    agent = new_agent(contract)
    requests, frames = open_inbox(contract, agent)
    up, down = open_publisher(contract, "publisher")
    # Payload before topic, messages before the counter, and the counter in two bytes where one would do.
    message = field(15, b"backwards") + field(1, f"$acb.inbox.{agent}".encode())
    up.say(field(15, message) + bytes([3 << 3, 0x81, 0x00]))
    acks = next_with(down, "acks").acks
    assert [(ack.counter, ack.count) for ack in acks] == [(1, 1)]
    assert [m.payload for m in receive_and_confirm(contract, requests, frames).messages] == [b"backwards"]
    up.end()
    requests.end()


def test_errors_are_named_in_the_metadata(contract):
    with pytest.raises(grpc.RpcError) as raised:
        contract.call("AgentRegistry", "GetAgent", contract.message("GetAgentRequest", agent_id="nobody"))
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
    assert dict(raised.value.trailing_metadata())["acb-error-code"] == "agent_not_found"
