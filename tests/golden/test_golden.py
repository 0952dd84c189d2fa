"""Files of every format and schema version are read, for good."""

from pathlib import Path

import pytest

from checkpointable import load_file
from checkpointable.format import container, read_arrays
from checkpointable.format.reader import opened
from checkpointable.schema.schema import schema_of
from checkpointable.stores.local.file import open_reader
from checkpointable.testing.schemas import assert_schema
from tests.golden import values
from tests.golden.make import FOLDER, KEY
from tests.helpers.equality import same

FILES = sorted(FOLDER.glob("format-*/*.safetensors"))


def test_there_is_a_file_of_each_format_and_schema_version() -> None:
    schemas = {name: schema_of(type(value)) for name, value in values.TODAY.items()}
    assert {name: schema.name for name, schema in schemas.items()} == {n: n for n in schemas}
    expected = {
        f"format-{form}/{name}-{version}.safetensors"
        for form in range(1, container.FORMAT + 1)
        for name, schema in schemas.items()
        for version in range(1, schema.version + 1)
    }
    assert expected
    assert {str(path.relative_to(FOLDER)) for path in FILES} == expected


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_golden_file_is_read_as_what_it_was(path: Path) -> None:
    name, _, version = path.stem.rpartition("-")
    with open_reader(path) as reader:
        schema = read_arrays.verify(opened(reader)).meta.schema
    assert (schema["name"], str(schema["version"])) == (name, version)
    assert same(load_file(path, type(values.TODAY[name])), values.TODAY[name])


@pytest.mark.parametrize("form", range(1, container.FORMAT + 1))
def test_a_golden_signature_holds(form: int) -> None:
    path = FOLDER / "signed" / f"format-{form}.safetensors"
    assert same(load_file(path, type(values.TODAY["walk"]), key=KEY), values.TODAY["walk"])


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_golden_file_is_small(path: Path) -> None:
    assert path.stat().st_size < 20_000


PINS = {
    "everything": (1, "547371cd652b8010"),
    "walk": (3, "e1127782bc007761"),
    "wave": (1, "cf53b9f45da73655"),
    "ising": (1, "08fde686fe196da5"),
    "sketch": (1, "04b4ab8cfb82b712"),
    "nbody": (1, "061701e25666c1fd"),
    "pagerank": (1, "fac27837ebf3fd65"),
}


@pytest.mark.parametrize("name", PINS)
def test_the_meaning_of_the_classes_is_pinned(name: str) -> None:
    version, fingerprint = PINS[name]
    assert_schema(type(values.TODAY[name]), version=version, fingerprint=fingerprint)
