"""A chat endpoint on this machine that misbehaves as it is told by the last message: `status 500 x2`, `hang`, ...
A text to be divided into claims comes back as one claim, or tells in the same words how to misbehave.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeEndpoint:
    """What the server has seen."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.seen: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.lock = threading.Lock()
        self.released = threading.Event()


def completion(text: str | None, finish: str = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **more}
    return {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


@contextmanager
def fake_endpoint() -> Iterator[FakeEndpoint]:
    """Serves until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = request["messages"][-1]["content"]
            with fake.lock:
                fake.seen[said] += 1
                times = fake.seen[said]
                fake.requests.append(request)
                fake.headers.append(dict(self.headers))
                fake.at_once += 1
                fake.most_at_once = max(fake.most_at_once, fake.at_once)
            try:
                self.behave(said, times)
            except (BrokenPipeError, ConnectionResetError):
                pass
            finally:
                with fake.lock:
                    fake.at_once -= 1

        def behave(self, said: str, times: int) -> None:
            if said.startswith("Divide the text"):
                self.divide(said.rpartition("Text: ")[2], times)
                return
            what, _, limit = said.partition(" x")
            if limit and times > int(limit):
                what = "fine"
            kind, _, rest = what.partition(" ")
            if kind == "status":
                self.send(int(rest), b"<html>some\n  trouble</html>", {"Retry-After": "0"})
            elif kind == "hang":
                fake.released.wait(20)
            elif kind == "drip":
                self.send_response(200)
                self.send_header("Content-Length", "1000000")
                self.end_headers()
                while not fake.released.is_set():
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.01)
            elif kind == "drop":
                self.close_connection = True
                self.connection.close()
            elif kind == "slow":
                time.sleep(0.05)
                self.send_json(completion("slow"))
            elif kind == "raw":
                self.send(200, rest.encode())
            elif kind == "huge":
                self.send(200, b" " * int(rest))
            elif kind == "json":
                self.send(200, rest.encode())
            else:
                self.send_json(completion(f"answer to {said}"))

        def divide(self, text: str, times: int) -> None:
            """The text as one claim; where it names a misbehaviour, that."""
            if text.startswith(("status", "hang", "drop", "raw")):
                self.behave(text, times)
            else:
                line = json.dumps({"claim": text, "question": f"Is it true that {text}?"})
                self.send_json(completion("I see nothing." if text.startswith("malformed") else line))

        def send_json(self, data: Any) -> None:
            self.send(200, json.dumps(data).encode())

        def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake = FakeEndpoint(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
