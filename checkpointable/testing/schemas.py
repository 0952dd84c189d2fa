"""Pins what a checkpoint class stores, so that a forgotten version shows before it ships."""

from typing import Any

from checkpointable.schema import schema_of, type_name


def assert_schema(cls: Any, *, version: int, fingerprint: str) -> None:
    """Assert that a checkpoint class still stores what it stored at this version.

    Put it into a test. It fails when what the class stores changes, and its error is what to do:
    increase the version and migrate old files to it, then pin the new fingerprint.

    >>> from attrs import frozen
    >>> @frozen
    ... class Walk:
    ...     step: int
    >>> assert_schema(Walk, version=1, fingerprint="0507a204cbf22fd9")
    """
    schema, name = schema_of(cls), type_name(cls)
    pin = f"assert_schema({name}, version={{}}, fingerprint={schema.fingerprint!r})"
    if schema.fingerprint != fingerprint and schema.version == version:
        raise AssertionError(
            f"what {name} stores has changed, but its version is still {version}: "
            "earlier files can no longer be read.\n"
            f"  hint: use @checkpoint({schema.name!r}, version={version + 1}), declare what was "
            f"added and removed, or write a function under @migrate({schema.name!r}, {version}); "
            f"then pin it:\n  {pin.format(version + 1)}"
        )
    if (schema.version, schema.fingerprint) != (version, fingerprint):
        raise AssertionError(
            f"{name} is version {schema.version} of {schema.name!r} now, "
            f"and version {version} is pinned.\n  hint: pin it:\n  {pin.format(schema.version)}"
        )
