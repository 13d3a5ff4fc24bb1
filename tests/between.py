"""Between us and the servers: proxies that let everything pass, but for the one fault they are told of."""

from __future__ import annotations

import http.client
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

FAULTS = ("error", "cut", "lost", "kill")
"""error: answered by an error, not done. cut: the connection ends, not done. lost: done, and the connection ends
without an answer. kill: done, and whoever asked is killed (-9) before the answer."""


@dataclass
class Plan:
    """The fault that is to happen, once, and what has passed so far."""

    matches: Callable[[str], bool] = lambda _: False
    fault: str = ""
    kill: Callable[[], None] = lambda: None
    happened: bool = False
    seen: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def expect(self, matches: Callable[[str], bool], fault: str, kill: Callable[[], None] = lambda: None) -> None:
        """Let the next step that matches meet the fault."""
        self.matches, self.fault, self.kill, self.happened = matches, fault, kill, False
        self.seen.clear()

    def meet(self, step: str) -> str:
        """Return the fault that this step meets, '' for none."""
        with self._lock:
            self.seen.append(step)
            if self.happened or not self.matches(step):
                return ""
            self.happened = bool(self.fault)
            return self.fault


class HdfsProxy(ThreadingHTTPServer):
    """WebHDFS as ever, with the DataNodes behind it; steps are `OPERATION name`, such as `RENAME weather_p0_0-9.json`.

    What the DataNode does is a step of its own: WRITE (all bytes and the close) follows CREATE, READ follows OPEN.
    """

    daemon_threads = True

    def __init__(self, namenode: str) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.namenode = namenode.removeprefix("http://")
        self.plan = Plan()

    @property
    def url(self) -> str:
        """What HDFS_URL has to be."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Whoever was killed does not take its answer."""


class _Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HdfsProxy
    DATANODE = re.compile(r"/at/([^/]+)(/.*)")

    def _relay(self) -> None:
        body = self._body()
        behind = self.DATANODE.fullmatch(self.path)
        host, path = behind.groups() if behind else (self.server.namenode, self.path)
        parts = urlsplit(path)
        operation = parse_qs(parts.query)["op"][0]
        if behind:
            operation = {"CREATE": "WRITE", "OPEN": "READ"}[operation]
        fault = self.server.plan.meet(f"{operation} {parts.path.rpartition('/')[2]}")
        if fault == "error":
            told = {"RemoteException": {"exception": "IOException", "message": "Injected by the test"}}
            self._answer(500, [("Content-Type", "application/json")], json.dumps(told).encode())
            return
        if fault != "cut":
            status, headers, content = self._pass_on(host, path, body)
        if fault == "kill":
            self.server.plan.kill()
        if fault:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._answer(status, headers, content)

    do_GET = do_PUT = do_POST = do_DELETE = _relay  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _pass_on(self, host: str, path: str, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(host, timeout=30)
        try:
            connection.request(self.command, path, body, {"Content-Type": "application/octet-stream"})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        headers = [
            (name, re.sub(r"^http://([^/]+)", rf"{self.server.url}/at/\1", value) if name == "Location" else value)
            for name, value in answer.getheaders()
            if name in {"Content-Type", "Location"}
        ]
        return answer.status, headers, content

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(content)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def hdfs_proxy(namenode: str) -> Iterator[HdfsProxy]:
    """A proxy in front of this NameNode."""
    with HdfsProxy(namenode) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        yield proxy
        proxy.shutdown()


class PostgresProxy:
    """PostgreSQL as ever; a step is a statement's first words, with N for numbers.

    A COMMIT bears those of the statement before it.

    `error` has the server itself fail: it is sent a statement that raises `disk_full` instead.
    """

    FAIL = b"DO $$ BEGIN RAISE EXCEPTION 'injected by the test' USING ERRCODE = '53100'; END $$\0"

    def __init__(self, host: str, port: int) -> None:
        self.plan = Plan()
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        session = _Session(client, socket.create_connection(self._server), self.plan)
        with suppress(OSError, EOFError):
            session.run(self.FAIL)
        session.end()


class _Session:
    """One connection: messages of a type byte, a length and a body; only the first of the client's has no type."""

    def __init__(self, client: socket.socket, server: socket.socket, plan: Plan) -> None:
        self._client, self._server, self._plan = client, server, plan
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = threading.Event()
        self._answers.set()
        self._ready = threading.Semaphore(0)
        self._before = ""

    def run(self, failing: bytes) -> None:
        (length,) = struct.unpack("!I", _exactly(self._client, 4))
        self._server.sendall(struct.pack("!I", length) + _exactly(self._client, length - 4))
        threading.Thread(target=self._answer, daemon=True).start()
        while True:
            kind, body = _message(self._client)
            fault = self._plan.meet(self._step(body)) if kind == b"Q" else ""
            if fault == "cut":
                return
            if fault == "error":
                body = failing
            if fault in {"lost", "kill"}:
                while self._ready.acquire(blocking=False):
                    pass
                self._answers.clear()
            self._server.sendall(kind + struct.pack("!I", len(body) + 4) + body)
            if fault in {"lost", "kill"}:
                self._ready.acquire(timeout=30)
                if fault == "kill":
                    self._plan.kill()
                return

    def end(self) -> None:
        for one in (self._client, self._server):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _step(self, body: bytes) -> str:
        step = re.sub(r"\d+", "N", " ".join(body.rstrip(b"\0").decode().split()))[:60]
        if step.startswith(("BEGIN", "ROLLBACK")):
            return step
        if step == "COMMIT":
            return f"COMMIT of {self._before}"
        self._before = step
        return step

    def _answer(self) -> None:
        with suppress(OSError, EOFError):
            while True:
                kind, body = _message(self._server)
                if self._answers.is_set():
                    self._client.sendall(kind + struct.pack("!I", len(body) + 4) + body)
                if kind == b"Z":
                    self._ready.release()
        self._ready.release()


def _message(connection: socket.socket) -> tuple[bytes, bytes]:
    kind = _exactly(connection, 1)
    (length,) = struct.unpack("!I", _exactly(connection, 4))
    return kind, _exactly(connection, length - 4)


def _exactly(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        if not (part := connection.recv(size - len(received))):
            raise EOFError
        received += part
    return received
