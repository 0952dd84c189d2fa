"""The class of a checkpoint, before any value of it exists.

`types` reads annotations, `fields` lists the fields of a class, `supported` checks that they can be
stored, `schema` names a class and its version by a fingerprint, and `shard` is the part of a global
array that one rank holds.
"""
# isort: skip_file
# fmt: off

from checkpointable.schema.fields import Field, fields_of, holds_arrays
from checkpointable.schema.schema import (
    Schema, checkpoint, is_same, mark_of, mismatch, schema_from_json, schema_of,
)
from checkpointable.schema.shard import Shard, shard_fields
from checkpointable.schema.types import (
    SEQUENCES, Array, ArrayType, array_type, describe, is_enum, is_leaf, is_literal, is_named_tuple,
    is_record, is_union, members_of, plain, type_name,
)

__all__ = [
    "SEQUENCES", "Array", "ArrayType", "Field", "Schema", "Shard", "array_type", "checkpoint",
    "describe", "fields_of", "holds_arrays", "is_enum", "is_leaf", "is_literal", "is_named_tuple",
    "is_record", "is_same", "is_union", "mark_of", "members_of", "mismatch", "plain",
    "schema_from_json", "schema_of", "shard_fields", "type_name",
]
