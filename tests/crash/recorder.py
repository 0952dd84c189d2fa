"""What a program does to the files below a directory, as strace saw it."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from attrs import frozen

CALLS = (
    "open,openat,creat,lseek,write,pwrite64,writev,pwritev,pwritev2,truncate,ftruncate,fallocate,"
    "fsync,fdatasync,sync_file_range,link,linkat,rename,renameat,renameat2,unlink,unlinkat,"
    "mkdir,mkdirat,rmdir,symlink,symlinkat,copy_file_range,sendfile,mmap"
)


@frozen
class Call:
    """One system call that succeeded; `paths` are the absolute ones that it is about."""

    name: str
    paths: tuple[Path, ...]
    data: bytes = b""
    number: int = 0
    flags: str = ""


_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<([^>]*)>)?(.*)")
_UNFINISHED = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FD = re.compile(r"(\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>(\(deleted\))?")
_OF_PROCESS = re.compile(r"/proc/(?:self|\d+)/fd/(\d+)")


def record(command: Sequence[str], root: Path, log: Path) -> list[Call]:
    """Run a command to its end, and give the calls that changed something below `root`."""
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-xx", "-s", "100000000"]
    strace += ["-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(log)]
    subprocess.run([*strace, *command], check=True)
    return [*_below(root, _whole_lines(log))]


def need_strace() -> None:
    """Skip a test where there is no strace; but a CI without it would prove nothing."""
    if shutil.which("strace") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs strace: apt install strace")


def _whole_lines(log: Path) -> Iterator[str]:
    """Join each call that another one interrupted, at the place where it ended."""
    begun: dict[str, str] = {}
    for line in log.read_text(errors="surrogateescape").splitlines():
        if match := _UNFINISHED.fullmatch(line):
            begun[match[1]] = f"{match[1]} {match[2]}({match[3]}"
        elif match := _RESUMED.fullmatch(line):
            yield begun.pop(match[1]) + match[3]
        else:
            yield line


def _below(root: Path, lines: Iterator[str]) -> Iterator[Call]:
    open_as: dict[tuple[str, str], Path] = {}  # the path that a process's descriptor last had
    for line in lines:
        match = _LINE.fullmatch(line)
        if not match or match[4] == "-1":
            continue
        process, name, arguments, returned = match[1], match[2], match[3], match[4]
        descriptors = [(d[1], Path(_plain(d[2]))) for d in _FD.finditer(arguments)]
        for number, path in descriptors:
            open_as[process, number] = path
        if match[5] is not None:
            open_as[process, returned] = Path(_plain(match[5]))
        texts = [bytes.fromhex(t[1].replace("\\x", "")) for t in _TEXT.finditer(arguments)]
        call = _call(name, arguments, int(returned), descriptors, texts, process, open_as)
        if name.startswith("open") and match[5] is not None:  # as the kernel resolved it
            call = Call("open", (Path(_plain(match[5])),), flags=arguments)
        if any(path == root or root in path.parents for path in call.paths):
            if name in ("copy_file_range", "sendfile", "symlink", "symlinkat"):
                raise NotImplementedError(f"{name} below {root}")
            if name != "mmap" or ("MAP_SHARED" in arguments and "PROT_WRITE" in arguments):
                yield call


def _call(
    name: str,
    arguments: str,
    returned: int,
    descriptors: list[tuple[str, Path]],
    texts: list[bytes],
    process: str,
    open_as: dict[tuple[str, str], Path],
) -> Call:
    if "write" in name:
        offset = int(arguments.rsplit(", ", 1)[1]) if name == "pwrite64" else -1
        if name in ("pwritev", "pwritev2"):
            offset = int(arguments.split("], ", 1)[1].split(", ")[1])
        return Call("write", (descriptors[0][1],), b"".join(texts)[:returned], offset)
    if name in ("ftruncate", "truncate", "fallocate", "fsync", "fdatasync", "sync_file_range"):
        path = descriptors[0][1] if descriptors else Path(os.fsdecode(texts[0])).absolute()
        numbers = [int(part) for part in arguments.split(", ")[1:] if part.lstrip("-").isdigit()]
        flags = arguments.split(", ")[1] if name == "fallocate" else ""
        return Call(
            name.replace("fdatasync", "fsync"), (path,), number=sum(numbers[-2:]), flags=flags
        )
    if name == "lseek":
        return Call(name, (descriptors[0][1],), number=returned)
    if name == "mmap":
        return Call("mmap", tuple(path for _, path in descriptors))
    folders = [path for _, path in descriptors] or [Path()]
    paths = []
    for index, text in enumerate(texts):
        link = _OF_PROCESS.fullmatch(os.fsdecode(text))
        if link and "AT_SYMLINK_FOLLOW" in arguments:
            paths.append(open_as[process, link[1]])
        else:
            paths.append(folders[min(index, len(folders) - 1)] / os.fsdecode(text))
    plain = name.removesuffix("2").removesuffix("at") if name != "unlinkat" else "unlink"
    if name == "unlinkat" and "AT_REMOVEDIR" in arguments:
        plain = "rmdir"
    return Call(plain, tuple(paths), flags=arguments.rsplit(", ", 1)[-1])


def _plain(text: str) -> str:
    return os.fsdecode(bytes.fromhex(text.replace("\\x", "")))
