"""A real MLflow server that can be killed, and a proxy in front of it that injects faults."""

import contextlib
import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

from tests.mlflow_process import MlflowProcess, free_port, on_database

# refused: the connection is closed before the server gets the request; error: 500, likewise; lost:
# the server gets it, but its answer is lost; slow: the answer comes after the client gave up; late:
# the request reaches the server after the client gave up.
Fault = Literal["none", "refused", "error", "lost", "slow", "late"]
FAULTS: tuple[Fault, ...] = ("refused", "error", "lost", "slow", "late")

CLIENT_TIMEOUT_SECONDS = 2  # MLFLOW_HTTP_REQUEST_TIMEOUT of the uploaders
SLOW_SECONDS = (2.2, 3.5)  # longer than the client waits
_NOT_FORWARDED = {"connection", "transfer-encoding", "keep-alive", "content-length"}


class Server(MlflowProcess):
    """`mlflow server` on an SQLite database, which survives `kill_and_start`."""

    def __init__(self, directory: Path) -> None:
        self.artifacts = directory / "artifacts"
        self.database = f"sqlite:///{directory / 'mlflow.db'}"
        artifacts = ("--artifacts-destination", str(self.artifacts))
        super().__init__(directory, "server", *on_database(self.database), *artifacts)
        self._condition = threading.Condition()
        self._num_undisturbed = 0
        self._is_kill_due = False

    def kill_and_start(self) -> None:
        """Kill it (SIGKILL) once nobody is in `undisturbed`; restart it on the same database."""
        with self._condition:
            self._is_kill_due = True
            self._condition.wait_for(lambda: self._num_undisturbed == 0)
            self.kill()
            self.start()
            self._is_kill_due = False
            self._condition.notify_all()

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Keep the server alive inside the context."""
        with self._condition:
            self._condition.wait_for(lambda: not self._is_kill_due)
            self._num_undisturbed += 1
        try:
            yield
        finally:
            with self._condition:
                self._num_undisturbed -= 1
                self._condition.notify_all()


class Plan:
    """Draws the fault of each request: the same seed, the same sequence."""

    def __init__(self, seed: int, share: float, faults: tuple[Fault, ...] = FAULTS) -> None:
        self._random = random.Random(f"plan {seed}")
        self._share = share
        self._faults = faults
        self._lock = threading.Lock()

    def draw(self) -> tuple[Fault, float]:
        """Return a fault, and how many seconds it takes."""
        with self._lock:
            is_disturbed = self._random.random() < self._share
            fault, seconds = self._random.choice(self._faults), self._random.uniform(*SLOW_SECONDS)
        return (fault, seconds) if is_disturbed else ("none", 0.0)


NO_FAULTS = Plan(0, 0.0)


class Proxy:
    """Passes HTTP requests to a local port, with the faults of `plan`; that port may be dead.

    Passes only bodies of known length; chunked requests are answered with 411.
    """

    def __init__(self, upstream_port: int, plan: Plan = NO_FAULTS) -> None:
        self.plan = plan
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.seen: Counter[Fault] = Counter()
        self._upstream_port = upstream_port
        self._condition = threading.Condition()
        self._num_in_flight = 0
        self._connections: set[socket.socket] = set()
        self._listener: ThreadingHTTPServer | None = None

    @property
    def num_requests(self) -> int:
        """Return the number of requests that came in, whatever their fate."""
        return self.seen.total()

    def open(self) -> None:
        """Listen, unless it does already."""
        if self._listener is None:
            self._listener = _Listener(("127.0.0.1", self.port), self._handler())
            threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop listening; requests on their way to the server still arrive."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        listener.shutdown()
        listener.server_close()
        with self._condition:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def wait_for_requests(self, number: int, seconds: float) -> bool:
        """Return whether this many requests come in within some seconds."""
        with self._condition:
            return self._condition.wait_for(lambda: self.num_requests >= number, seconds)

    def drain(self) -> None:
        """Wait until every request on its way to the server has arrived."""
        with self._condition:
            assert self._condition.wait_for(lambda: self._num_in_flight == 0, 60)

    @contextlib.contextmanager
    def _in_flight(self, fault: Fault) -> Iterator[None]:
        with self._condition:
            self.seen[fault] += 1
            self._num_in_flight += 1
            self._condition.notify_all()
        try:
            yield
        finally:
            with self._condition:
                self._num_in_flight -= 1
                self._condition.notify_all()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                with proxy._condition:
                    proxy._connections.add(self.connection)

            def finish(self) -> None:
                with proxy._condition:
                    proxy._connections.discard(self.connection)
                with contextlib.suppress(OSError):
                    super().finish()

            def log_message(self, format: str, *args: object) -> None:
                pass

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:  # the client gave up, or the proxy was closed
                    self.close_connection = True

            def _pass(self) -> None:
                if "chunked" in self.headers.get("Transfer-Encoding", ""):
                    self.send_error(411)
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fault, seconds = proxy.plan.draw()
                with proxy._in_flight(fault):
                    answer = self._answer(fault, seconds, body)
                if answer is None:
                    self.close_connection = True
                    return
                if fault == "slow":
                    time.sleep(seconds)
                status, headers, content = answer
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _answer(
                self, fault: Fault, seconds: float, body: bytes
            ) -> tuple[int, list[tuple[str, str]], bytes] | None:
                if fault == "refused":
                    return None
                if fault == "error":
                    return 500, [("Content-Type", "text/html")], b"<h1>Internal Server Error</h1>"
                if fault == "late":
                    time.sleep(seconds)
                answer = self._ask(body)
                return None if fault in ("lost", "late") else answer

            def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes] | None:
                upstream = http.client.HTTPConnection("127.0.0.1", proxy._upstream_port, timeout=60)
                headers = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() != "connection"
                }
                try:
                    upstream.request(self.command, self.path, body or None, headers)
                    answer = upstream.getresponse()
                    content = answer.read()
                except (OSError, http.client.HTTPException):  # the server is dead
                    return None
                finally:
                    upstream.close()
                kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in _NOT_FORWARDED]
                return answer.status, kept, content

            # The names that http.server calls.
            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass  # noqa: N815

        return Handler


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
