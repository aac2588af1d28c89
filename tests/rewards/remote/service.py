"""A real reward model in OpenRLHF's protocol, of the simplest kind: a reward is the number of letters of a query."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[dict[str, Any]]

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(asked)
        rewards = [float(len(query)) for query in asked["query"]]
        logs = {"letters": rewards, "host": "a text", "load": 0.5}
        content = json.dumps({"rewards": rewards, "scores": rewards, "extra_logs": logs}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def service(port: int = 0) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its URL, without a path, and what it was asked."""

    class Own(Handler):
        seen: list[dict[str, Any]] = []  # noqa: RUF012

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", port), Own)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", Own.seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
