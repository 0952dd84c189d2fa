"""A proxy between a store and its server, which does to requests what a bad day does."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from attrs import define, field, frozen

Fate: TypeAlias = Literal["", "refused", "lost", "cut", "held", "unavailable", "conflict"]
"""What becomes of a request: it goes through; its connection is closed before it is passed on;
passed on, but the connection closed before the answer, or in the middle of it; or the answer kept
back for ever; or it is answered by 503, or 409, and not passed on."""

_ANSWERS = {"unavailable": (503, b"SlowDown"), "conflict": (409, b"ConditionalRequestConflict")}


@frozen
class Request:
    """A request that passes: which it is, counted from 1, and what it says."""

    number: int
    method: str
    path: str
    query: str
    headers: dict[str, str]

    def is_part(self) -> bool:
        return self.method == "PUT" and "partNumber=" in self.query

    def is_completion(self) -> bool:
        return self.method == "POST" and "uploadId=" in self.query

    def is_commit_object(self) -> bool:
        """Whether it creates the commit object of a checkpoint."""
        return self.method == "PUT" and "/heads/" in self.path


@define(eq=False)
class Proxy:
    """What passes it, and what it does to that: `fate`, asked for each request in turn."""

    address: str
    fate: Callable[[Request], str] = lambda request: ""
    strips: str = ""
    """A header that it takes away."""
    passed: Callable[[Request], object] = lambda request: None
    """Told when the server has answered, and before the store hears of it."""
    requests: list[Request] = field(factory=list)
    received: int = 0
    """Bytes of bodies that the store was given."""
    _guard: threading.Lock = field(factory=threading.Lock)
    _released: threading.Event = field(factory=threading.Event)

    def reset(self) -> None:
        """Forget what has passed."""
        self.requests, self.received = [], 0

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let nothing pass meanwhile."""
        with self._guard:
            yield

    def request(self, method: str, target: str, headers: dict[str, str]) -> tuple[Request, str]:
        path, _, query = target.partition("?")
        with self._guard:
            request = Request(len(self.requests) + 1, method, path, query, headers)
            self.requests.append(request)
            return request, self.fate(request)


def once(which: Callable[[Request], bool], fate: Fate) -> Callable[[Request], str]:
    """The first of such requests."""
    left = [fate]
    return lambda request: left.pop() if which(request) and left else ""


def always(which: Callable[[Request], bool], fate: Fate) -> Callable[[Request], str]:
    """Each such request, and each time that it is tried again."""
    return lambda request: fate if which(request) else ""


@contextmanager
def proxied(server: str) -> Iterator[Proxy]:
    """Run a proxy of a server."""
    host = urlsplit(server).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def handle_one_request(self) -> None:
            with suppress(OSError):  # the store has given it up
                super().handle_one_request()

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request, fate = proxy.request(self.command, self.path, dict(self.headers))
            if fate == "refused":
                return self._close()
            if fate in _ANSWERS:
                status, code = _ANSWERS[fate]
                return self._answer(status, [], b"<Error><Code>" + code + b"</Code></Error>")
            connection = HTTPConnection(host, timeout=60)
            try:
                connection.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    if name.lower() != proxy.strips.lower():
                        connection.putheader(name, value)
                connection.endheaders(body)
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, HTTPException):  # the server is ending
                return self._close()
            finally:
                connection.close()
            proxy.passed(request)
            if fate == "held":
                proxy._released.wait()
            if fate in ("lost", "held"):
                return self._close()
            self._answer(answer.status, answer.getheaders(), content, cut=fate == "cut")

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on

        def _answer(
            self, status: int, headers: list[tuple[str, str]], body: bytes, cut: bool = False
        ) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            length = len(body)
            if self.command == "HEAD":
                length = int({n.lower(): v for n, v in headers}.get("content-length", 0))
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                proxy.received += len(body)
                self.wfile.write(body[: len(body) // 2] if cut else body)
            if cut:
                self._close()

        def _close(self) -> None:
            self.close_connection = True

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as listening:
        proxy = Proxy(f"http://127.0.0.1:{listening.server_port}")
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield proxy
        finally:
            proxy._released.set()
            listening.shutdown()
            thread.join()
