"""The base of values: what ``@dataclass(frozen=True, kw_only=True)`` gives, for less of the time that an import takes.

Each dataclass compiles its methods while its module is imported, and ``dataclasses`` itself imports ``inspect``: together
that was more than half of ``import acb_sdk`` (ADR 0011). Values are dataclasses all the same to whoever asks:
``dataclasses.replace``, ``asdict``, ``fields`` and what builds on them work, and pay at that moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, dataclass_transform


class _AsDataclass:
    """An attribute by which ``dataclasses`` and ``inspect`` know a dataclass. Made for a class when it is first read."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: Value | None, owner: type[Value]) -> Any:
        import inspect
        from dataclasses import MISSING, field, make_dataclass

        made = make_dataclass(
            owner.__name__,
            [
                (name, kind, field(default=owner._defaults.get(name, MISSING), repr=name not in owner._hidden))
                for name, kind in owner._kinds.items()
            ],
            frozen=True,
            kw_only=not owner._places,
        )
        value = inspect.signature(made) if self.name == "__signature__" else getattr(made, self.name)
        setattr(owner, self.name, value)
        return value


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Value:
    """A value: its fields are the annotations of its class. It cannot be changed, equals what has the same class and fields,
    can be hashed when its fields can, and shows its fields but those of ``hidden``."""

    _kinds: ClassVar[dict[str, str]] = {}
    _defaults: ClassVar[dict[str, Any]] = {}
    _hidden: ClassVar[frozenset[str]] = frozenset()
    _places: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, *, kw_only: bool = True, hidden: tuple[str, ...] = ()) -> None:
        super().__init_subclass__()
        own: dict[str, str] = cls.__annotations__
        cls._kinds = {**cls._kinds, **own}
        cls._defaults = {**cls._defaults, **{name: getattr(cls, name) for name in own if name in cls.__dict__}}
        cls._hidden = cls._hidden | frozenset(hidden)
        cls._places = () if kw_only else tuple(cls._kinds)
        # Of each class anew: what was made for its base is not its own.
        asked = {name: _AsDataclass(name) for name in ("__dataclass_fields__", "__dataclass_params__", "__signature__")}
        for name, value in {"__match_args__": cls._places, **asked}.items():
            setattr(cls, name, value)

    if not TYPE_CHECKING:  # Checkers make these of the fields.

        def __init__(self, /, *given: object, **named: object) -> None:
            if given:
                named = self._named(given, named)
            values = {**self._defaults, **named}
            if values.keys() != self._kinds.keys():
                raise self._misfit(values)
            # Attributes cannot be set.
            self.__dict__.update(values)

        def __setattr__(self, name: str, value: object) -> None:
            from dataclasses import FrozenInstanceError

            raise FrozenInstanceError(f"cannot assign to field {name!r}")

        def __delattr__(self, name: str) -> None:
            from dataclasses import FrozenInstanceError

            raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__[name] for name in self._kinds))

    def __repr__(self) -> str:
        shown = (f"{name}={self.__dict__[name]!r}" for name in self._kinds if name not in self._hidden)
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def _named(self, given: tuple[object, ...], named: dict[str, object]) -> dict[str, object]:
        """Positional arguments by their names."""
        places = self._places
        if len(given) > len(places):
            raise TypeError(f"{type(self).__name__} takes {len(places)} positional arguments, {len(given)} were given")
        placed = dict(zip(places, given, strict=False))
        for name in placed.keys() & named.keys():
            raise TypeError(f"{type(self).__name__} got two values for {name!r}")
        return {**placed, **named}

    def _misfit(self, values: dict[str, object]) -> TypeError:
        """What is wrong with names that are not those of the fields."""
        missing = [repr(name) for name in self._kinds if name not in values]
        unknown = [repr(name) for name in values if name not in self._kinds]
        wrong = [f"{what} {', '.join(names)}" for what, names in (("misses", missing), ("has no", unknown)) if names]
        return TypeError(f"{type(self).__name__} {' and '.join(wrong)}")
