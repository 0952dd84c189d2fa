"""`checkpointable replay`."""

import pytest

from checkpointable import LocalStore, archive
from tests.cli.common import Cli, Result


def test_replay_gives_the_same_bits(cli: Cli, walked: str) -> None:
    result = cli("replay", walked, "walks:Walk", "--from", 10, "--to", 30)
    assert result == Result(0, "the same, bit by bit: step 10 run to 30\n", "")
    assert len(archive.entries(LocalStore(walked))) == 3


def test_replay_names_the_first_array_that_differs(cli: Cli, walked: str) -> None:
    words = ("replay", walked, "walks:Walk", "--from", 10, "--to", 20)
    result = cli(*words, "--", "--gain", "0.25")
    assert result.code == 1
    assert result.out.splitlines() == [
        "place: differs, first at [2], in 1 block",
        "speed: differs, first at [2], in 1 block",
    ]
    event = cli(*words, "--json", "--", "--gain", "0.25").events[-1]
    assert (event["same"], event["arrays"][0]["name"]) == (False, "place")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("--from 20 --to 10", 64, "--to 10 is before --from 20"),
        ("--from 10 --to 25", 1, "there is no checkpoint of step 25"),
        ("--from 5 --to 20", 1, "there is no checkpoint of step 5"),
        ("--from 10 --to 20 -- --size 4", 78, "float64 of shape (3,)"),
    ],
)
def test_replay_refuses(cli: Cli, walked: str, words: str, code: int, message: str) -> None:
    result = cli("replay", walked, "walks:Walk", *words.split())
    assert result.code == code
    assert message in result.err
