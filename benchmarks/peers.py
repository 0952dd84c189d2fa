"""How each library saves a dict of float32 arrays, durably, and loads it; for `durable.py`.

Each factory takes the arrays and gives a `Peer`; what the library wants to have of them (tensors,
objects of its own) it makes there, before anything is timed. None is told to compress but by its
own defaults, none writes more than its users need. What each needs until a power cut cannot take
the checkpoint:

- checkpointable: nothing; `archive.save` to a `LocalStore`.
- safetensors, torch.save, numpy.savez, h5py, pickle: an fsync of the file and of its directory.
- torch.distributed.checkpoint: it syncs its files, so an fsync of its directories is left.
- orbax, zarr: an fsync of each of their files and directories.

In `ASYNC` are those that save while the caller goes on: each begins a save and gives what waits for
its end. There, none but ours is durable in the end.
"""

import asyncio
import logging
import os
import pickle
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from attrs import frozen

from benchmarks._limits import Floats, sync, sync_all
from checkpointable import Array, Checkpointer, LocalStore, archive, capture, reinstate

Arrays: TypeAlias = Mapping[str, Floats]
Begin: TypeAlias = Callable[[Path], Callable[[], object]]


@frozen
class Peer:
    """`save` makes a checkpoint, durable, in an empty directory; `load` gives what it holds."""

    save: Callable[[Path], object]
    load: Callable[[Path], Arrays]


def file_peer(name: str, save: Callable[[Path], object], load: Callable[[Path], Arrays]) -> Peer:
    """A library that saves to one file and leaves it to the system when that reaches the disk."""

    def durably(folder: Path) -> None:
        save(folder / name)
        sync(folder / name)
        sync(folder)

    return Peer(durably, lambda folder: load(folder / name))


# --- ours -----------------------------------------------------------------------------------------


@frozen
class State:
    arrays: dict[str, Array[np.float32]]


class Kernel:
    step = 1

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = dict(arrays)

    async def checkpoint(self) -> State:
        return await capture(State, self)

    async def restore(self, checkpoint: State) -> None:
        await reinstate(checkpoint, self)


def checkpointable(arrays: Arrays) -> Peer:
    state = State(dict(arrays))

    def load(folder: Path) -> Arrays:
        found = archive.load(LocalStore(folder), archive.name_of(1), State)
        return {name: np.asarray(array) for name, array in found.arrays.items()}

    return Peer(lambda folder: archive.save(LocalStore(folder), state, 1), load)


def checkpointable_in_place(arrays: Arrays) -> Peer:
    """The same, restored into the arrays that a kernel has."""
    kernel = Kernel({name: np.zeros_like(array) for name, array in arrays.items()})

    def load(folder: Path) -> Arrays:
        asyncio.run(Checkpointer(kernel, folder, in_place=True).restore_latest())
        return kernel.arrays

    return Peer(checkpointable(arrays).save, load)


def checkpointable_async(arrays: Arrays) -> Begin:
    kernel = Kernel(arrays)
    checkpointer = cache(lambda folder: Checkpointer(kernel, folder))
    return lambda folder: asyncio.run(checkpointer(folder).save()).result


# --- the others; each imports what it needs -------------------------------------------------------


def safetensors(arrays: Arrays) -> Peer:
    numpy = import_module("safetensors.numpy")
    return file_peer("st", lambda path: numpy.save_file(arrays, path), numpy.load_file)


def torch_save(arrays: Arrays) -> Peer:
    torch = import_module("torch")
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def load(path: Path) -> Arrays:
        return {name: tensor.numpy() for name, tensor in torch.load(path).items()}

    return file_peer("pt", lambda path: torch.save(tensors, path), load)


def torch_distributed(arrays: Arrays) -> Peer:
    torch = import_module("torch")
    library = import_module("torch.distributed.checkpoint")
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    into: dict[str, Any] = {}

    def save(folder: Path) -> None:
        library.save(tensors, checkpoint_id=folder / "dcp", no_dist=True)
        sync_all(folder / "dcp", files=False)

    def load(folder: Path) -> Arrays:
        """It reads into tensors that are there already, as in a restart they are."""
        if not into:
            into.update({name: torch.zeros_like(tensor) for name, tensor in tensors.items()})
        library.load(into, checkpoint_id=folder / "dcp", no_dist=True)
        return {name: tensor.numpy() for name, tensor in into.items()}

    return Peer(save, load)


def torch_async(arrays: Arrays, *, keep: bool) -> Begin:
    """`async_save` as it comes; or with a stager that is kept, and with it the memory it fills."""
    torch = import_module("torch")
    library = import_module("torch.distributed.checkpoint")
    staging = import_module("torch.distributed.checkpoint.staging")
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    options = staging.StagingOptions(False, False, False, False)  # as it comes: nothing needs CUDA
    stager = staging.DefaultStager(options) if keep else None

    def begin(folder: Path) -> Callable[[], object]:
        future: Callable[[], object] = library.async_save(
            tensors, checkpoint_id=folder / "dcp", no_dist=True, async_stager=stager
        ).result
        return future

    return begin


def orbax(arrays: Arrays, *, compress: bool = True) -> Peer:
    library = import_module("orbax.checkpoint")
    handler = library.PyTreeCheckpointHandler(use_compression=compress)
    checkpointer = library.Checkpointer(handler)

    def save(folder: Path) -> None:
        checkpointer.save(folder / "orbax", args=library.args.PyTreeSave(dict(arrays)))
        sync_all(folder / "orbax")

    def load(folder: Path) -> Arrays:
        found: Arrays = checkpointer.restore(folder / "orbax")
        return found

    return Peer(save, load)


def orbax_async(arrays: Arrays) -> Begin:
    library = import_module("orbax.checkpoint")
    checkpointer = library.AsyncCheckpointer(library.PyTreeCheckpointHandler())

    def begin(folder: Path) -> Callable[[], object]:
        checkpointer.save(folder / "orbax", args=library.args.PyTreeSave(dict(arrays)))
        wait: Callable[[], object] = checkpointer.wait_until_finished
        return wait

    return begin


def numpy_savez(arrays: Arrays) -> Peer:
    def load(path: Path) -> Arrays:
        with np.load(path) as file:
            return dict(file)

    return file_peer("state.npz", lambda path: np.savez(path, **dict[str, Any](arrays)), load)


def h5py(arrays: Arrays) -> Peer:
    File = import_module("h5py").File

    def save(path: Path) -> None:
        with File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array

    def load(path: Path) -> Arrays:
        with File(path, "r") as file:
            return {name: array[()] for name, array in file.items()}

    return file_peer("h5", save, load)


def zarr(arrays: Arrays) -> Peer:
    library = import_module("zarr")

    def save(folder: Path) -> None:
        group = library.create_group(folder / "zarr")
        for name, array in arrays.items():
            group.create_array(name, data=array)
        sync_all(folder / "zarr")

    def load(folder: Path) -> Arrays:
        group = library.open_group(folder / "zarr", mode="r")
        return {name: array[...] for name, array in group.arrays()}

    return Peer(save, load)


def pickled(arrays: Arrays) -> Peer:
    def save(path: Path) -> None:
        with path.open("wb") as file:
            pickle.dump(dict(arrays), file, protocol=5)

    def load(path: Path) -> Arrays:
        with path.open("rb") as file:
            found: Arrays = pickle.load(file)
            return found

    return file_peer("pickle", save, load)


OURS = "checkpointable"
SAFETENSORS, DCP, ORBAX = "safetensors", "torch.distributed.checkpoint", "orbax"
PEERS: dict[str, Callable[[Arrays], Peer]] = {
    OURS: checkpointable,
    SAFETENSORS: safetensors,
    "torch.save": torch_save,
    DCP: torch_distributed,
    ORBAX: orbax,
    "orbax, uncompressed": lambda arrays: orbax(arrays, compress=False),
    "numpy.savez": numpy_savez,
    "h5py": h5py,
    "zarr": zarr,
    "pickle": pickled,
}
DCP_ASYNC, ORBAX_ASYNC = "torch async_save", "orbax AsyncCheckpointer"
ASYNC: dict[str, Callable[[Arrays], Begin]] = {
    OURS: checkpointable_async,
    DCP_ASYNC: lambda arrays: torch_async(arrays, keep=False),
    "torch async_save, stager kept": lambda arrays: torch_async(arrays, keep=True),
    ORBAX_ASYNC: orbax_async,
}
PACKAGES = (
    *("checkpointable", "numpy", "xxhash", "safetensors", "torch", "orbax-checkpoint", "jax"),
    *("tensorstore", "h5py", "zarr"),
)


def quiet() -> None:
    """Have the libraries keep to the host, and to themselves."""
    os.environ |= {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    logging.disable()
    warnings.simplefilter("ignore")
