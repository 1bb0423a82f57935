"""A proxy between a client and a real server, that does what networks and busy servers do."""

from __future__ import annotations

import http.client
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
NOT_FORWARDED = {"transfer-encoding", "connection", "content-length", "date", "server"}


class Between(ThreadingHTTPServer):
    """Forwards to `endpoint`, but for the next `faults[method]`: one of

    `busy`: 503 SlowDown; `deaf`: it is done, and no answer comes; `cut`: half of the answer comes;
    `short`: half of it comes and is said to be all; `403 Code`: that status, and that code of S3's.
    """

    daemon_threads = True

    def __init__(self, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = urlsplit(endpoint).netloc
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.asked: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Between

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked[self.command] += 1
        waiting = self.server.faults[self.command]
        fault = waiting.pop(0) if waiting else ""
        if fault == "busy":
            self._answer(503, {}, SLOW_DOWN, len(SLOW_DOWN))
            return
        if fault[:3].isdecimal():
            told = f"<Error><Code>{fault[4:]}</Code><Message>No.</Message></Error>".encode()
            self._answer(int(fault[:3]), {}, told, len(told))
            return
        status, headers, data = self._forwarded(body)
        if fault == "deaf":
            self.close_connection = True
            return
        length = int(headers.get("Content-Length", len(data))) if self.command == "HEAD" else len(data)
        sent = data[: len(data) // 2] if fault in ("cut", "short") else data
        self._answer(status, headers, sent, len(sent) if fault == "short" else length)
        self.close_connection |= bool(fault)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve  # noqa: N815

    def _forwarded(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.server.endpoint, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():  # as they are: they are signed
            if name.lower() != "expect":
                connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), data

    def _answer(self, status: int, headers: dict[str, str], data: bytes, length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in NOT_FORWARDED:
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def between(endpoint: str) -> Iterator[Between]:
    """Such a proxy while the block runs."""
    server = Between(endpoint)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def silence() -> Iterator[int]:
    """The port of a server on loopback that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield listening.getsockname()[1]
