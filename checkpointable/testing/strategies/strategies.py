"""Hypothesis strategies for checkpoint classes and their values."""

from typing import Any, TypeVar, cast

from hypothesis import reject
from hypothesis import strategies as st

from checkpointable.schema import fields_of, schema_of, type_name
from checkpointable.testing.strategies._classes import checkpoint_classes
from checkpointable.testing.strategies._making import Maker, Refused
from checkpointable.testing.strategies._shapes import all_shapes

__all__ = ["checkpoint_classes", "checkpoints"]

C = TypeVar("C")
_REFUSALS = 40
"""In a row, before it is told: Hypothesis itself gives up at 50, and knows no reason."""


def checkpoints(cls: type[C], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[C]:
    """Values of a checkpoint class, derived from its fields, made by its constructor.

    Hard values on purpose. The limits of attrs' own validators are kept. What other validators or
    the constructor say, of one field or several (equal shapes, say), is met by trying again; the
    arrays of a value have related shapes. Where that finds nothing, give a strategy for a field by
    its name.

    Raises `UnsupportedType` for a class that is not supported; drawing raises `ValueError`, naming
    field and reason, if the class refuses everything.

    >>> import attrs, numpy as np
    >>> from hypothesis import given
    >>> @attrs.frozen
    ... class Walk:
    ...     step: int = attrs.field(validator=attrs.validators.ge(0))
    ...     at: np.ndarray
    >>> @given(checkpoints(Walk))
    ... def test_walks(walk: Walk) -> None:
    ...     assert walk.step >= 0
    >>> test_walks()
    """
    schema_of(cls)
    name, refusals = type_name(cls), 0
    unknown = fields.keys() - {field.name for field in fields_of(cls)}
    if unknown:
        raise ValueError(f"{name} has no field {min(unknown)!r}")

    @st.composite
    def draw_one(draw: st.DrawFn) -> C:
        nonlocal refusals
        try:
            made = Maker(draw, draw(all_shapes)).record(cls, fields, 0)
        except Refused as refused:
            refusals += 1
            if refusals >= _REFUSALS:
                raise ValueError(
                    f"no value of {name} was found that it takes\n"
                    f"  the last was refused: {refused}\n"
                    f"  hint: give a strategy of your own: checkpoints({name}, {refused.field}=...)"
                ) from None
            reject()
        refusals = 0
        return cast(C, made)

    return draw_one()
