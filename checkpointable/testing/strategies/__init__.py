"""Hypothesis strategies for your own properties: checkpoint classes, and their values.

`values` draws the values of a class (`checkpoints`): scalars and arrays come from `leaves`, and
`limits` reads off a field's validator what it allows. `classes` makes classes of every kind, and
the types of their fields.
"""

from checkpointable.testing.strategies.classes import checkpoint_classes
from checkpointable.testing.strategies.values import checkpoints

__all__ = ["checkpoint_classes", "checkpoints"]
