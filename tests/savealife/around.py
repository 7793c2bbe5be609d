"""What stands around the Python handler in its tests: a small stand-in of the API container's
routes for it, a real SMTP server that can be told to misbehave, and events as the stream has them.

Invariant: what the API says of a mail is what its routes were asked to note.
"""

import asyncio
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

TOKEN = "a-token-for-tests-only"
PAGE = 100


class Api:
    """The routes for the handler, in memory. `fails` may refuse a call: (method, path, body) to a
    status, or None. `loses` has a call carried out, and its answer lost."""

    def __init__(self):
        self.donors, self.mails, self.asked = {}, {}, []
        self.fails = lambda method, path, body: None
        self.loses = lambda method, path, body: False
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.routes())
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def states(self):
        return {key: mail["state"] for key, mail in self.mails.items()}

    def page(self, query):
        donors = self.donors.get(query["city"], [])
        begin = int(query.get("next", 0))
        answer = {"return_value": donors[begin : begin + PAGE]}
        if begin + PAGE < len(donors):
            answer["next"] = f"/mail/donors?city={query['city']}&next={begin + PAGE}"
        return 200, answer

    def note(self, key, state, attempt=None):
        """Claims, or says how it ended."""
        there = self.mails.get(key)
        if state != "sending":
            return self.end(key, state, attempt)
        if there is None:
            self.mails[key] = {"state": state, "attempt": attempt, "at": time.monotonic()}
        elif there["state"] != state or attempt is None or there["attempt"] != attempt:
            age = int((time.monotonic() - there["at"]) * 1000)
            stands = {"state": there["state"], "age": age}
            if there["attempt"]:
                stands["attempt"] = there["attempt"]
            return 200, {"return_value": {"claimed": False, **stands}}
        return 200, {"return_value": {"claimed": True}}

    def end(self, key, state, attempt):
        there = self.mails.get(key)
        if (there and there["state"]) == state:
            return 200, {"return_value": {}}
        if there is None or there["state"] != "sending" or attempt not in (None, there["attempt"]):
            return 409, {}
        if state is None:
            del self.mails[key]
        else:
            there["state"] = state
        return 200, {"return_value": {}}

    def grow_old(self, key):
        """As if a claim had stood for a long time."""
        self.mails[key]["at"] -= 3600

    def answer(self, method, url, body):
        path = urlsplit(url).path
        query = {name: one for name, [one] in parse_qs(urlsplit(url).query).items()}
        with self.lock:
            self.asked.append((method, path))
            if status := self.fails(method, path, body):
                return status, {}
            if (method, path) == ("GET", "/mail/donors"):
                return self.page(query)
            key = re.fullmatch(r"/mail/(\w+)/(\w+)", path).groups()
            return self.note(key, **body) if method == "PUT" else self.end(key, None, query["attempt"])

    def routes(api):
        class Routes(BaseHTTPRequestHandler):
            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                if self.headers["Authorization"] == f"Bearer {TOKEN}":
                    status, answer = api.answer(self.command, self.path, body)
                else:
                    status, answer = 401, {}
                if api.loses(self.command, self.path, body):
                    return self.connection.close()
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_PUT = do_DELETE = answer

            def log_message(self, *_):
                pass

        return Routes


class AnyPort(Controller):
    """It greets itself to see that it is there, for which it has to know its port."""

    def _trigger_server(self):
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


class Mailbox:
    """A server of aiosmtpd. Each of its switches is asked with a recipient's address."""

    def __init__(self, login=None):
        self.got = []
        # An answer in place of 250, or None.
        self.refuses = lambda recipient: None
        self.refuses_mail = lambda recipient: None
        # What it says when it has taken a mail.
        self.says = lambda recipient: "250 OK"
        # "drops" the connection, "hangs" or "drips" when it has all of a mail.
        self.after_mail = lambda recipient: None
        # The same before it: it goes on with an answer for ever, a byte now and then.
        self.drips = lambda recipient: False
        self.dripped = 0
        self.closes_after = None
        self.hanging = threading.Event()
        options = {}
        if login:
            check = lambda server, session, envelope, mechanism, data: AuthResult(
                success=(data.login, data.password) == tuple(part.encode() for part in login),
                handled=False,
            )
            options = {"authenticator": check, "auth_required": True, "auth_require_tls": False}
        self.controller = AnyPort(self, hostname="127.0.0.1", port=0, **options)
        self.controller.start()
        self.port = self.controller.port
        self.url = f"smtp://127.0.0.1:{self.port}"

    def stop(self):
        if self.controller:
            self.controller.stop()
        self.controller = None

    async def handle_MAIL(self, server, session, envelope, address, options):
        session.mails = getattr(session, "mails", 0) + 1
        if self.closes_after and session.mails > self.closes_after:
            return "421 too many mails for one connection"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if self.drips(address):
            await self.drip(server)
        if answer := self.refuses(address):
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        [recipient] = envelope.rcpt_tos
        if answer := self.refuses_mail(recipient):
            return answer
        self.got.append((recipient, envelope.content.decode()))
        match self.after_mail(recipient):
            case "drops":
                server.transport.abort()
            case "hangs":
                self.hanging.set()
                await asyncio.sleep(3600)
            case "drips":
                await self.drip(server)
        return self.says(recipient)

    async def drip(self, server):
        while not server.transport.is_closing():
            server.transport.write(b"x")
            self.dripped += 1
            await asyncio.sleep(0.02)

    def recipients(self):
        return sorted(recipient for recipient, _ in self.got)


def donor(number, city="Haarlem"):
    return {"id": f"{number:012x}", "email": f"donor-{number}@example.org"}


def donation(identifier="aa493a26bc8f", city="Haarlem", number="100", event="INSERT", **more):
    """A record as DynamoDB Streams hands it to a function."""
    image = {
        "PK": f"DONATION#{identifier}",
        "SK": f"CITY#{city}",
        "city": city,
        "datetime": "2026-12-06T12:00:00",
        "address": "Second street 2",
        **more,
    }
    return {
        "eventID": f"{number}-of-a-test",
        "eventName": event,
        "eventSource": "aws:dynamodb",
        "dynamodb": {
            "Keys": {name: {"S": image[name]} for name in ("PK", "SK")},
            "NewImage": {name: {"S": value} for name, value in image.items() if value is not None},
            "SequenceNumber": number,
            "StreamViewType": "NEW_IMAGE",
        },
    }


def failures(*numbers):
    return {"batchItemFailures": [{"itemIdentifier": number} for number in numbers]}
