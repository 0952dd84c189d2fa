"""Expressions over a checkpoint: `isnan(field)`, `energy > 3`, `max(abs(field)) > 1e3`.

A small part of Python's grammar: fields of the checkpoint (`setup.bodies[3].mass`), numbers,
arithmetic, comparisons, `and`, `or`, `not`, and the functions of `FUNCTIONS`. Python evaluates
nothing: a dot or an index leads into the stored tree or into an array, never to an attribute of an
object. An array is true if any of its elements is; `and`, `or` and `not` give truth values.
"""

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import frozen

from checkpointable.cli._shared import usage_error
from checkpointable.format import AnyArray
from checkpointable.tree import container, decode, member

_MOST_NODES = 200
_MOST_CHARACTERS = 2000

Read = Callable[[str], AnyArray]
"""Reads an array of the checkpoint by its name."""


def _reduced(reduce: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Reduce an array without its NaN, as `show` does; NaN if nothing is left."""

    def function(value: Any) -> Any:
        array = np.asarray(value)
        if array.dtype.kind in "fc":
            array = array[~np.isnan(array)]
        return reduce(array).item() if array.size else float("nan")

    return function


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "isnan": np.isnan,
    "isinf": np.isinf,
    "abs": np.abs,
    "min": _reduced(np.min),
    "max": _reduced(np.max),
    "mean": _reduced(np.mean),
    "sum": _reduced(np.sum),
    "std": _reduced(np.std),
    "any": lambda value: bool(np.any(value)),
    "all": lambda value: bool(np.all(value)),
    "len": lambda value: len(value) if isinstance(value, list) else int(np.shape(value)[0]),
}
"""The functions, each of one argument. Those that reduce ignore NaN, which `isnan` finds."""

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type, Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


@frozen
class _Wire:
    """A value in the tree that is not decoded yet."""

    value: Any


@frozen
class Expression:
    """An allowed expression; `holds` evaluates it for a checkpoint."""

    text: str
    node: ast.expr

    def holds(self, tree: Any, read: Read) -> bool:
        """Whether it is true for a tree whose arrays `read` reads; for arrays, of any element."""
        with np.errstate(all="ignore"):
            return _truth(self._number(self.node, tree, read))

    def _number(self, node: ast.expr, tree: Any, read: Read) -> Any:
        """Evaluate to a number or an array of numbers."""
        value = self._value(node, tree, read)
        if isinstance(value, _Wire):
            return self._plain(node, value, read)
        fields = getattr(value, "dtype", np.dtype(bool)).names  # of records, not yet asked for one
        return value if fields is None else self._computable(node, value)

    def _plain(self, node: ast.expr, value: _Wire, read: Read) -> Any:
        match value.value:
            case {"$array": str(name)}:
                return self._computable(node, read(name))
            case _ if container(value.value) is None:
                number = _scalar(value.value)
                if isinstance(number, np.generic):
                    number = number.item()
                if isinstance(number, bool | int | float | complex):
                    return number
        raise self._wrong(node, "is neither a number nor an array of numbers")

    def _computable(self, node: ast.expr, array: AnyArray) -> Any:
        """The array in a wider type, against overflow; raises for a structured one."""
        dtype = array.dtype
        if dtype.names is not None:
            raise self._wrong(node, f"has fields: choose one of {', '.join(dtype.names)}")
        if dtype.type.__module__ == "ml_dtypes":
            array = array.astype(np.complex64 if "complex" in dtype.name else np.float32)
        elif dtype.kind in "iu" and dtype.itemsize < 8:
            array = array.astype(np.int64)
        elif dtype == np.float16:
            array = array.astype(np.float32)
        elif dtype.kind not in "biufc":
            raise self._wrong(node, f"is of dtype {dtype}, which is not a number")
        return array

    def _value(self, node: ast.expr, tree: Any, read: Read) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name() | ast.Attribute() | ast.Subscript():
                return self._place(node, tree, read)
            case ast.Call(func=ast.Name(id=name), args=[argument]):
                value = self._value(argument, tree, read)
                if name == "len" and isinstance(value, _Wire) and (c := container(value.value)):
                    return len(c[1])
                if isinstance(value, _Wire):
                    value = self._plain(argument, value, read)
                return self._done(node, FUNCTIONS[name], value)
            case ast.BinOp(left=left, op=op, right=right):
                a, b = (_counted(self._number(part, tree, read)) for part in (left, right))
                if not isinstance(op, ast.Add | ast.Sub | ast.Mult):  # 9**9**9, and 1/0, are inf
                    a, b = (self._done(part, _float, x) for part, x in ((left, a), (right, b)))
                return self._done(node, _BINARY[type(op)], a, b)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not _truth(self._number(operand, tree, read))
            case ast.UnaryOp(op=op, operand=operand):
                value = _counted(self._number(operand, tree, read))
                return self._done(node, _UNARY[type(op)], value)
            case ast.BoolOp(op=op, values=values):
                truths = (_truth(self._number(value, tree, read)) for value in values)
                return all(truths) if isinstance(op, ast.And) else any(truths)
            case ast.Compare(left=left, ops=ops, comparators=others):
                values = [self._number(value, tree, read) for value in (left, *others)]
                pairs = zip(ops, values, values[1:], strict=False)
                results = [self._done(node, _COMPARE[type(op)], a, b) for op, a, b in pairs]
                result = results[0]
                for one in results[1:]:
                    result = self._done(node, np.logical_and, result, one)
                return result
        raise self._wrong(node, "is not allowed")  # the check allows nothing else

    def _place(self, node: ast.expr, tree: Any, read: Read) -> Any:
        """Follow names, dots and indices, into the tree and then into an array."""
        match node:
            case ast.Name(id=name):
                return self._member(node, _Wire(tree), name)
            case ast.Attribute(value=base, attr=name):
                value = self._place(base, tree, read)
                if isinstance(value, _Wire) and "$array" in _object(value.value):
                    value = read(value.value["$array"])
                if isinstance(value, _Wire):
                    return self._member(node, value, name)
                if value.dtype.names is None or name not in value.dtype.names:
                    raise self._wrong(node, "does not exist: the array has no field of that name")
                return self._unless_fields(node, value[name])
            case ast.Subscript(value=base, slice=index):
                value, at = self._place(base, tree, read), _index(index)
                if isinstance(value, _Wire) and "$array" in _object(value.value):
                    value = read(value.value["$array"])
                if not isinstance(value, _Wire):
                    part = self._done(node, operator.getitem, value, at)
                    return self._unless_fields(node, np.asarray(part))
                return self._member(node, value, at)
        raise self._wrong(node, "has no parts")

    def _unless_fields(self, node: ast.expr, array: AnyArray) -> Any:
        return array if array.dtype.names is not None else self._computable(node, array)

    def _member(self, node: ast.expr, value: _Wire, key: Any) -> _Wire:
        try:
            return _Wire(member(value.value, key))
        except LookupError as error:
            raise self._wrong(node, f"does not exist; there is {error}") from None

    def _done(self, node: ast.expr, function: Callable[..., Any], *values: Any) -> Any:
        try:
            return function(*values)
        except (TypeError, ValueError, ArithmeticError, IndexError) as error:
            raise self._wrong(node, f"cannot be computed: {error}") from None

    def _wrong(self, node: ast.expr, what: str) -> Exception:
        return usage_error(f"{self.text!r}: {ast.unparse(node)} {what}")


def _scalar(wire: Any) -> Any:
    """The value that a leaf of the tree stands for; None if it is not a scalar."""
    try:
        return decode(wire)
    except Exception:  # not as this version writes it
        return None


def _truth(value: Any) -> bool:
    return bool(np.any(value))


def _counted(value: Any) -> Any:
    """Truth values as numbers, as in Python but not in NumPy's arithmetic."""
    return np.add(value, 0) if getattr(value, "dtype", None) == np.bool_ else value


def _float(value: Any) -> Any:
    return np.float64(value) if isinstance(value, bool | int | float) else value


def _object(wire: Any) -> dict[str, Any]:
    return wire if type(wire) is dict else {}


def _index(node: ast.expr) -> Any:
    """The constant of an index; the check allows nothing else."""
    match node:
        case ast.Tuple(elts=elements):
            return tuple(_index(element) for element in elements)
        case ast.Slice(lower=lower, upper=upper, step=step):
            return slice(*(None if part is None else _index(part) for part in (lower, upper, step)))
    return ast.literal_eval(node)


def parse_expression(text: str) -> Expression:
    """Parse an expression; a usage error names the part that is not allowed.

    >>> tree = {"step": 3, "energy": 2.5, "setup": {"sizes": [4, 5]}}
    >>> parse_expression("energy > 2 and setup.sizes[1] == 5").holds(tree, {}.__getitem__)
    True
    """
    try:
        if len(text) > _MOST_CHARACTERS:
            raise ValueError("it is too long")
        node = ast.parse(text.strip(), mode="eval").body
        if sum(1 for _ in ast.walk(node)) > _MOST_NODES:
            raise ValueError("it is too long")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        what = error.msg if isinstance(error, SyntaxError) else error
        raise usage_error(f"{text[:200]!r} is not an expression: {what}") from None
    _check(node, text)
    return Expression(text, node)


def _check(node: ast.expr, text: str) -> None:
    """Allow what is listed here, and nothing else."""
    match node:
        case ast.Constant(value=bool() | int() | float()) | ast.Name():
            inner: list[ast.expr] = []
        case ast.Attribute(value=ast.Name() | ast.Attribute() | ast.Subscript() as base):
            inner = [base]
        case ast.Subscript(value=ast.Name() | ast.Attribute() | ast.Subscript() as base, slice=at):
            if not _is_index(at):
                raise usage_error(
                    f"{text!r}: {ast.unparse(node)}: an index must be a number or a string"
                )
            inner = [base]
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if (
            name in FUNCTIONS and not isinstance(argument, ast.Starred)
        ):
            inner = [argument]
        case ast.Call():
            known = ", ".join(FUNCTIONS)
            what = f"{ast.unparse(node)} is not allowed: there are {known}, of one argument"
            raise usage_error(f"{text!r}: {what}")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            inner = [left, right]
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd(), operand=operand):
            inner = [operand]
        case ast.BoolOp(values=values):
            inner = values
        case ast.Compare(left=left, ops=ops, comparators=others) if all(
            type(op) in _COMPARE for op in ops
        ):
            inner = [left, *others]
        case _:
            raise usage_error(f"{text!r}: {ast.unparse(node)} is not allowed")
    for part in inner:
        _check(part, text)


def _is_index(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=int() | str()):
            return True
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int())):
            return True
        case ast.Tuple(elts=elements):
            return all(_is_index(element) for element in elements)
        case ast.Slice(lower=lower, upper=upper, step=step):
            return all(part is None or _is_index(part) for part in (lower, upper, step))
    return False
