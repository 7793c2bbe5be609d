"""The API container, as the handler asks it: who the donors are, and whose mail is whose to send.

Owns what is tried again. Invariant: a call that is made twice does no more than once. Standard
library only.
"""

import json
import time
import uuid
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urljoin, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

API_TIMEOUT = 10.0
# A claim that took longer is not used, and its end is noted in this time or not at all: whoever
# finds it adds them to what a mail may take, and knows then that nobody is at it any more.
CLAIM_WITHIN = 10.0
NOTE_WITHIN = 20.0
# A mail whose fate is known shall not become one of which nothing is known, because the API
# container was away for a moment: what is noted is tried again after these seconds.
PAUSES = (0.2, 0.5, 1.0, 2.0)


class ApiError(Exception):
    """The API container did not do what it was asked. `status`: what it answered, if it did."""

    def __init__(self, why, status=None):
        super().__init__(why)
        self.status = status
        self.may_pass = status is None or status >= 500


class Api:
    """What the handler may ask of the API container."""

    def __init__(self, url, token):
        self.url, self.token = url, token
        # Inside the network: a proxy of the environment leads elsewhere.
        self.opener = build_opener(ProxyHandler({}))

    def donors(self, city):
        """The donors of a city, page by page; a page may be empty and not the last."""
        path = "/mail/donors?" + urlencode({"city": city})
        while path:
            answer = self.ask("GET", path)
            yield answer["return_value"]
            path = answer.get("next")

    def ask_within(self, limit, method, path, body=None):
        """What can be asked twice without doing more than once."""
        ends = time.monotonic() + limit
        for pause in (*PAUSES, None):
            left = ends - time.monotonic()
            try:
                return self.ask(method, path, body, min(left, API_TIMEOUT))
            except ApiError as error:
                if not error.may_pass or pause is None or time.monotonic() + pause >= ends:
                    raise
                time.sleep(pause)

    def ask(self, method, path, body=None, timeout=API_TIMEOUT):
        """One call, on a connection of its own: no worker waits for another's."""
        request = Request(urljoin(self.url, path), method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        what = f"{method} {urlsplit(path).path}"
        try:
            with self.opener.open(request, timeout=timeout) as answer:
                return json.load(answer)
        except HTTPError as error:
            raise ApiError(f"{what}: status {error.code}", error.code) from error
        except (OSError, HTTPException, ValueError) as error:
            raise ApiError(f"{what}: {error}") from error


class Claim:
    """This attempt's right to send one mail; the API container gives it once."""

    def __init__(self, api, donation, donor):
        self.api, self.donation, self.donor = api, donation, donor
        self.path = f"/mail/{quote(donation, safe='')}/{quote(donor, safe='')}"
        self.attempt = uuid.uuid4().hex

    def names(self):
        return {"donation": self.donation, "donor": self.donor}

    def make(self):
        body = {"state": "sending", "attempt": self.attempt}
        began = time.monotonic()
        found = self.api.ask_within(CLAIM_WITHIN, "PUT", self.path, body)["return_value"]
        if found["claimed"] and time.monotonic() - began > CLAIM_WITHIN:
            self.give_back()
            raise ApiError("a claim took too long to be used")
        return found

    def note(self, state):
        """Says whether this attempt's claim stood until now."""
        body = {"state": state, **({"attempt": self.attempt} if self.attempt else {})}
        return self.end("PUT", self.path, body)

    def give_back(self):
        return self.end("DELETE", f"{self.path}?attempt={self.attempt}")

    def end(self, *call):
        try:
            self.api.ask_within(NOTE_WITHIN, *call)
        except ApiError as error:
            # Another attempt has taken this one for dead, and said so.
            if error.status != 409:
                raise
            return False
        return True
