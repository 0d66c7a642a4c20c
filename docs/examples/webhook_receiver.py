"""A receiver of Headwater's webhooks that takes nothing it cannot verify, and nothing twice. Standard library alone.

Run it: export WEBHOOK_SECRET=$(headwater webhook secret)      (the daemon needs the same variable)
        python webhook_receiver.py 9000
        headwater webhook add http://127.0.0.1:9000/ --alerts '*' --allow-private --name mine && headwater webhook test mine

The signature is that of Standard Webhooks: HMAC-SHA256 over id, time and body.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGEST, OLDEST_S = 1 << 20, 300


def is_genuine(secret: str, headers: Mapping[str, str], body: bytes, now_s: float) -> bool:
    """Whether the body was signed with the secret, and not long ago. There may be several, with blanks between."""
    id, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not id or not at.isdigit() or abs(now_s - int(at)) > OLDEST_S:
        return False
    given = [part[3:].encode() for part in headers.get("webhook-signature", "").split() if part.startswith("v1,")]
    for one in secret.split():
        key = base64.b64decode(one.removeprefix("whsec_"))
        wanted = base64.b64encode(hmac.new(key, f"{id}.{at}.".encode() + body, hashlib.sha256).digest())
        if any(hmac.compare_digest(wanted, signature) for signature in given):
            return True
    return False


class Receiver(BaseHTTPRequestHandler):
    seen: dict[str, None] = {}  # noqa: RUF012  # ids in order; keep them in a database where a restart must not forget them

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        if length > LARGEST:
            return self.answer(413)
        body, headers = self.rfile.read(length), {name.lower(): value for name, value in self.headers.items()}
        if not is_genuine(os.environ["WEBHOOK_SECRET"], headers, body, time.time()):
            return self.answer(401)
        id = self.headers["webhook-id"]
        if id not in self.seen:  # a call may come again: its answer may have been lost
            self.act(json.loads(body))
            self.seen[id] = None
            if len(self.seen) > 10_000:
                del self.seen[next(iter(self.seen))]
        return self.answer(204)  # anything but 2xx is sent again later

    def act(self, event: dict[str, object]) -> None:
        """What is to happen. Be quick, or hand it on: the call waits."""
        print(json.dumps(event), flush=True)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        print(self.address_string(), format % args, file=sys.stderr)


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9000), Receiver) as server:
        print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()
