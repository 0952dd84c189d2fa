"""`checkpointable verify`."""

from pathlib import Path

from checkpointable import archive
from checkpointable.format import layout
from checkpointable.format.reader import read_header
from checkpointable.stores.local.file import open_reader
from tests.cli.common import Cli, damage


def test_verify(cli: Cli, three: Path, sample: Path) -> None:
    sound = cli("verify", three, sample)
    assert (sound.code, sound.err) == (0, "")
    assert sound.out.splitlines()[-1] == "4 checkpoints: 4 ok, 0 not"
    assert sound.out.startswith(f"ok       three/{archive.name_of(8)}  step 8, ")

    damage(three / archive.name_of(16))
    (three / archive.name_of(30)).write_bytes(b"garbage")
    with open_reader(sample) as reader:
        header = read_header(reader)
        begin = header.data_offset + header.arrays["floats"].offset
    damage(sample, begin + layout.BLOCK)
    bad = cli("verify", three, sample)
    assert (bad.code, bad.err) == (1, "")
    lines = bad.out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "damaged", "ok", "damaged", "damaged", "5"]
    block = "the data is damaged (array 'field', block 0 of 1)"
    assert lines[1] == f"damaged  three/{archive.name_of(16)}: {block}"
    assert "(array 'floats', block 1 of 3)" in lines[4]
    assert lines[-1] == "5 checkpoints: 2 ok, 3 not"

    events = cli("verify", three, "--json").events
    assert [event["ok"] for event in events] == [True, False, True, False]
    assert (events[1]["error"], events[1]["what"]) == ("CorruptCheckpoint", "the data is damaged")
    assert cli("verify", three / archive.name_of(8)).code == 0
