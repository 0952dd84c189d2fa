"""Real servers of S3's language, on this machine: SeaweedFS, and moto, which starts faster."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

KEY, SECRET = "an-access-key", "a-secret-that-nobody-sees"
BUCKET = "bucket"
_PATIENCE = 60.0  # seconds


def client(address: str) -> Any:
    """An S3 client that is not the one under test."""
    return boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1",
        aws_access_key_id=KEY, aws_secret_access_key=SECRET,
    )  # fmt: skip


def make_bucket(address: str) -> None:
    client(address).create_bucket(Bucket=BUCKET)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody has."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextmanager
def seaweedfs(folder: Path) -> Iterator[str]:
    """Run SeaweedFS with its data in a folder; gives its address."""
    users = {
        "name": "tests",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [users]}))
    names = ("s3", "master", "volume", "filer")
    options = [f"-{name}.port{grpc}" for name in names for grpc in ("", ".grpc")]
    ports = free_ports(len(options))
    command = [
        str(Path(sys.executable).with_name("weed")), "-logtostderr", "server", f"-dir={folder}",
        "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-s3.config={config}",
        "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
        *(f"{option}={port}" for option, port in zip(options, ports, strict=True)),
    ]  # fmt: skip
    try:
        with _running(
            command, f"http://127.0.0.1:{ports[0]}", "/healthz", folder / "log"
        ) as result:
            yield result
    finally:
        for port in ports:
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink()


@contextmanager
def moto(folder: Path) -> Iterator[str]:
    """Run moto's server; gives its address."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, f"http://127.0.0.1:{port}", "/moto-api/", folder / "log") as address:
        yield address


@contextmanager
def _running(command: list[str], address: str, health: str, log: Path) -> Iterator[str]:
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            _await(process, address + health, log)
            yield address
        finally:
            process.kill()  # it has nothing that anyone needs, and takes long to end in order
            process.wait()


def _await(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not answer: {log.read_text()[-2000:]}")
