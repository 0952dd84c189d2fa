"""A policy is equal to, prints and pickles as the call that made it."""

from functools import partial
from operator import and_, or_
from signal import Signals
from typing import Any


class Policy:
    """The base of `Keep` and `When`: made by a function, or a subclass of a user's."""

    _call: partial[Any] | None = None

    def __repr__(self) -> str:
        if self._call is None:
            return super().__repr__()
        function, args, keywords = self._call.func, self._call.args, self._call.keywords
        if function is or_:
            return " | ".join(map(repr, args))
        if function is and_:
            return " & ".join(f"({arg!r})" if _is_or(arg) else repr(arg) for arg in args)
        given = {name: value for name, value in keywords.items() if value not in (None, False)}
        named = [f"{name}={value!r}" for name, value in given.items()]
        return f"{function.__name__}({', '.join([*map(_text, args), *named])})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Policy) or self._call is None or other._call is None:
            return self is other
        return _parts(self._call) == _parts(other._call)

    def __hash__(self) -> int:
        return super().__hash__() if self._call is None else hash(_parts(self._call))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return super().__reduce_ex__(protocol) if self._call is None else (self._call, ())


def _parts(call: partial[Any]) -> tuple[Any, ...]:
    return call.func, call.args, frozenset(call.keywords.items())


def _is_or(policy: Any) -> bool:
    call = getattr(policy, "_call", None)
    return call is not None and call.func is or_


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return repr(list(value))
    return f"signal.{value.name}" if isinstance(value, Signals) else repr(value)
