"""Random calls of a store, beside a dict."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from checkpointable.errors import CheckpointExists, NoCheckpoint
from checkpointable.stores import Reader
from checkpointable.testing.stores._subject import StoreSubject, expect, expect_raises, listed, read

NAMES = st.sampled_from(["a", "b", "c.1", "step-000000000001.safetensors"])


def run_machine(subject: StoreSubject, promise: Callable[..., None]) -> None:
    """Drive stores through random histories, and compare each result with a dict's."""

    class History(RuleBasedStateMachine):
        """A store, the dict that it must equal, and the readers that are open."""

        def __init__(self) -> None:
            super().__init__()
            self.store = subject.make()
            self.model: dict[str, bytes] = {}
            self.readers: list[tuple[Reader, bytes]] = []
            self.stack = ExitStack()

        @rule(name=NAMES, parts=st.lists(st.binary(max_size=50), max_size=3))
        def create(self, name: str, parts: list[bytes]) -> None:
            blob = b"".join(parts)
            if name in self.model:
                with expect_raises(
                    promise, CheckpointExists, f"create({name!r})", "a replacing put"
                ):
                    self.store.create(name, len(blob), parts)
            else:
                self.store.create(name, len(blob), parts)
                self.model[name] = blob

        @rule(name=NAMES)
        def fail_to_create(self, name: str) -> None:
            def chunks() -> Iterator[bytes]:
                yield b"half"
                raise ZeroDivisionError

            error = CheckpointExists if name in self.model else ZeroDivisionError
            with expect_raises(promise, error, f"create({name!r}) with chunks that raise", ""):
                self.store.create(name, 8, chunks())

        @rule(name=NAMES)
        def read(self, name: str) -> None:
            if name in self.model:
                good = read(self.store, name) == self.model[name]
                expect(promise, good, "other bytes came back", "", f"open({name!r})")
            else:
                with expect_raises(promise, NoCheckpoint, f"open({name!r})", ""):
                    self.store.open(name).__enter__()

        @rule(name=NAMES)
        def delete(self, name: str) -> None:
            if self.model.pop(name, None) is not None:
                self.store.delete(name)
            else:
                with expect_raises(promise, NoCheckpoint, f"delete({name!r})", ""):
                    self.store.delete(name)

        @rule(name=NAMES)
        def hold_a_reader(self, name: str) -> None:
            if name in self.model:
                reader = self.stack.enter_context(self.store.open(name))
                self.readers.append((reader, self.model[name]))

        @rule()
        def open_the_place_again(self) -> None:
            self.store = subject.again(self.store) or self.store

        @invariant()
        def it_lists_what_the_dict_has(self) -> None:
            expected = {name: len(blob) for name, blob in self.model.items()}
            found = listed(self.store)
            expect(promise, found == expected, f"it lists {found}, not {expected}", "")

        @invariant()
        def readers_read_on(self) -> None:
            for reader, blob in self.readers:
                buffer = bytearray(len(blob))
                reader.read_into(0, memoryview(buffer))
                expect(promise, buffer == blob, "an open reader gives other bytes", "")

        def teardown(self) -> None:
            self.stack.close()

    run_state_machine_as_test(History, settings=subject.settings)
