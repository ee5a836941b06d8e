"""Values: frozen, compared by their fields, secrets hidden; dataclasses to those who ask."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from typing import Any

import pytest

import acb_sdk
from acb_sdk import Capability, Credentials, GroupMember, Identity, Options, Tls, Tokens

IDENTITY = Identity(agent_id="a", tenant_id="t", roles=[], access_expires_at=None, refresh_expires_at=None)
TOKENS = Tokens(access_token="first", refresh_token="second", identity=IDENTITY)
VALUES = [v for n in acb_sdk.__all__ if isinstance(v := getattr(acb_sdk, n), type) and hasattr(v, "_kinds")]


def test_a_value_cannot_be_changed() -> None:
    member = GroupMember(agent_id="a", since=None)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'agent_id'"):
        member.agent_id = "b"  # type: ignore[misc]
    with pytest.raises(AttributeError, match="cannot delete field 'since'"):
        del member.since  # type: ignore[misc]
    assert member.agent_id == "a"


def test_values_are_equal_by_class_and_fields_and_hash_like_that() -> None:
    one, other = Capability("code.review", version="1.0.0"), Capability(version="1.0.0", name="code.review")
    assert one == other and hash(one) == hash(other) and len({one, other}) == 1
    assert one != Capability("code.review") and one != ("code.review", "1.0.0", "", "")

    class Other(GroupMember):
        """The same fields, another class."""

    assert GroupMember(agent_id="a", since=None) != Other(agent_id="a", since=None)
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        hash(IDENTITY)


def test_a_value_shows_its_fields_but_no_secret() -> None:
    assert repr(Capability("a.b")) == "Capability(name='a.b', version='', input_schema='', output_schema='')"
    assert repr(TOKENS) == f"Tokens(identity={IDENTITY!r})"
    shown = repr(Credentials.enrolment_key("acb_secret", "worker"))
    assert "acb_secret" not in shown and "worker" in shown
    context = acb_sdk.SharedContext(**dict.fromkeys(acb_sdk.SharedContext._kinds, "x"))  # type: ignore[arg-type]
    assert "payload" not in repr(context) and "existed='x'" in repr(context)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: GroupMember(agent_id="a"), "GroupMember misses 'since'"),
        (lambda: Tls(root="x"), "Tls has no 'root'"),
        (lambda: GroupMember(agent="a", since=None), "GroupMember misses 'agent_id' and has no 'agent'"),
        (lambda: GroupMember("a", None), "GroupMember takes 0 positional arguments, 2 were given"),
        (lambda: Capability("a", "1", "", "", ""), "Capability takes 4 positional arguments, 5 were given"),
        (lambda: Capability("a", name="b"), "Capability got two values for 'name'"),
    ],
)
def test_wrong_arguments_are_named(make: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        make()


def test_what_is_not_given_is_the_default() -> None:
    options = Options(request_timeout=3)
    assert (options.request_timeout, options.connect_timeout, options.tls) == (3, 10.0, None)
    assert list(vars(options)) == [f.name for f in dataclasses.fields(Options)]


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_every_value_is_a_dataclass_to_those_who_ask(kind: Any) -> None:
    names = list(kind._kinds)
    assert names, "no fields"
    value = kind(**{name: name for name in names})
    assert dataclasses.is_dataclass(value)
    assert [f.name for f in dataclasses.fields(value)] == names
    assert dataclasses.asdict(value) == {name: name for name in names}
    other = dataclasses.replace(value, **{names[0]: "another"})
    assert type(other) is kind and getattr(other, names[0]) == "another"
    assert [getattr(other, name) for name in names[1:]] == names[1:]
    assert list(inspect.signature(kind).parameters) == names
    assert {f.name for f in dataclasses.fields(kind) if not f.repr} == kind._hidden
    for copied in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert copied == value and type(copied) is kind


def test_the_fields_of_a_base_do_not_hide_those_of_its_heirs() -> None:
    assert "existed" not in {f.name for f in dataclasses.fields(acb_sdk.Context)}
    assert "existed" in {f.name for f in dataclasses.fields(acb_sdk.SharedContext)}


def test_positional_values_are_made_and_matched_by_position() -> None:
    assert str(inspect.signature(Capability)).startswith("(name: 'str', version: 'str' = '', ")
    assert str(inspect.signature(GroupMember)).startswith("(*, agent_id: 'str', since: ")
    match Capability("a.b", "1.2.3"):
        case Capability(name, version):
            assert (name, version) == ("a.b", "1.2.3")
        case _:
            pytest.fail("no match")
