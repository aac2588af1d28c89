"""A small HTTP proxy in front of a real server, which does to its answers what networks and overload do to them."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


class Injector:
    """`faults` happen to the next requests, one each; then answers pass unchanged.

    429, 429:SECONDS (Retry-After), another status, slow:SECONDS, half (of the JSON), reset (the connection, after the
    request was read), model:NAME (in the answer), as:JSON (another body).
    """

    def __init__(self, upstream: str) -> None:
        """
        Args:
            upstream: URL of the real server, without a path.
        """
        self.faults: deque[str] = deque()
        self.always: str | None = None
        self.requests = 0
        self.most_at_once = 0
        self.authorizations: set[str | None] = set()
        self._now = 0
        self._lock = threading.Lock()
        injector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with injector._lock:
                    injector.requests += 1
                    injector._now += 1
                    injector.most_at_once = max(injector.most_at_once, injector._now)
                    injector.authorizations.add(self.headers["Authorization"])
                    fault = injector.faults.popleft() if injector.faults else injector.always
                try:
                    injector._answer(self, upstream, body, fault)
                except OSError:  # the client has given up
                    self.close_connection = True
                finally:
                    with injector._lock:
                        injector._now -= 1

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @contextmanager
    def listening(self) -> Iterator[Injector]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler, upstream: str, body: bytes, fault: str | None) -> None:
        kind, _, detail = (fault or "").partition(":")
        if kind == "slow":
            time.sleep(float(detail))
        if kind == "reset":
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        if kind.isdigit():
            _reply(handler, int(kind), b'{"error": "injected"}', {"Retry-After": detail} if detail else {})
            return
        if kind == "as":
            _reply(handler, 200, detail.encode(), {})
            return
        headers = {name: value for name in ("Authorization", "Content-Type") if (value := handler.headers[name])}
        answer = httpx.post(upstream + handler.path, content=body, headers=headers, timeout=120, trust_env=False)
        content = answer.content
        if kind == "half":
            content = content[: len(content) // 2]
        if kind == "model":
            content = json.dumps({**answer.json(), "model": detail}).encode()
        _reply(handler, answer.status_code, content, {})


def _reply(handler: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(content))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)
