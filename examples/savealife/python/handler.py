"""The stream's handler as it is written for Lambda: `handle_stream(event, context)`.

Owns who of a donation's city gets a mail. Knows neither the table nor AWS: the donors, and who has
had his mail already, it asks the API container. Standard library only; it does not know whether
Lambda, its emulator or serve.py calls it. Invariant: a mail is claimed before it is sent, and a
claim is given back only when that mail certainly was not sent; so nobody gets one twice.
"""

import json
import logging
import os
import queue
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urljoin, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from mail import Mailer, NoAnswer, Refused, Server, Unusable, mail

MAILS_AT_ONCE = 8
API_TIMEOUT = 10.0
# An attempt cannot be at one mail for longer. Whoever finds an older claim knows that its owner
# died between claiming and saying how it went.
CLAIM_LASTS_MS = 120_000
# Kept of the time that is left, for the mails that are under way and what is noted of them.
RESERVE_MS = 15_000

log = logging.getLogger("savealife")
log.setLevel(logging.INFO)


def handle_stream(event, context):
    """Mails the donors of every new donation; names the records that have to come again."""
    settings = Settings.read(os.environ)
    has_time = time_left(context)
    mailers = [Mailer(settings.smtp, settings.sender) for _ in range(MAILS_AT_ONCE)]
    free = queue.SimpleQueue()
    for mailer in mailers:
        free.put(mailer)
    failures = []
    try:
        with ThreadPoolExecutor(MAILS_AT_ONCE) as workers:
            for record in event["Records"]:
                work = Donation(record, Api(settings), free, has_time)
                if work.is_new and not work.done(workers):
                    number = record["dynamodb"]["SequenceNumber"]
                    failures.append({"itemIdentifier": number})
    finally:
        for mailer in mailers:
            mailer.close()
    return {"batchItemFailures": failures}


class Donation:
    """A donation's record, and the mails that it is about."""

    def __init__(self, record, api, free, has_time):
        image = record["dynamodb"].get("NewImage", {})
        kind, _, self.id = text(image, "PK").partition("#")
        # FILTER_CRITERIA lets nothing else through. Without it nobody shall be mailed for less.
        self.is_new = record["eventName"] == "INSERT" and kind == "DONATION"
        self.city, self.when, self.where = (text(image, name) for name in ("city", "datetime", "address"))
        self.api, self.free, self.has_time = api, free, has_time

    def done(self, workers):
        """Whether every donor of the city was seen to."""
        counts = Counter()
        if not self.city:
            say(logging.WARNING, "a donation without a city", donation=self.id)
            return True
        try:
            for page in self.api.donors(self.city):
                if not self.has_time():
                    counts["later"] += len(page)
                    break
                counts.update(workers.map(self.see_to, page))
        except ApiError as error:
            say(logging.WARNING, "the donors are not known", donation=self.id, why=str(error))
            counts["later"] += 1
        say(logging.INFO, "a donation's mails", donation=self.id, **counts)
        return not counts["later"]

    def see_to(self, donor):
        """One donor; a word for what came of it."""
        try:
            letter = self.letter(donor)
        except Unusable:
            say(logging.WARNING, "no address to mail to", donation=self.id, donor=donor["id"])
            return "skipped"
        if not self.has_time():
            return "later"
        try:
            claim = self.api.claim(self.id, donor["id"])
            return self.send(donor, letter) if claim["claimed"] else self.found(donor, claim)
        except ApiError as error:
            # What was claimed stays so. Its mail may have been sent, so it is not sent again.
            say(logging.WARNING, "not noted", donation=self.id, donor=donor["id"], why=str(error))
            return "later"

    def found(self, donor, claim):
        """What an earlier attempt has left."""
        if claim["state"] != "sending":
            return "had"
        if time.time() * 1000 - claim["at"] < CLAIM_LASTS_MS:
            return "later"
        return self.unknown(donor, "the attempt that claimed it has died")

    def send(self, donor, letter):
        """A mail that is claimed."""
        mailer = self.free.get()
        try:
            mailer.send(letter)
        except Refused as why:
            say(logging.WARNING, "refused", donation=self.id, donor=donor["id"], why=str(why))
            self.api.give_back(self.id, donor["id"])
            return "later"
        except NoAnswer as why:
            return self.unknown(donor, str(why))
        finally:
            self.free.put(mailer)
        self.api.note(self.id, donor["id"], "sent")
        return "sent"

    def unknown(self, donor, why):
        """It may have been sent: it is not sent again, and that can be seen."""
        say(logging.WARNING, "may be missing", donation=self.id, donor=donor["id"], why=why)
        self.api.note(self.id, donor["id"], "unknown")
        return "unknown"

    def letter(self, donor):
        """For him alone: nobody sees another's address."""
        city, when, where = (escape(one) for one in (self.city, self.when, self.where))
        body = (
            f"<p>Dear donor,</p><p>a blood donation event takes place in {city}: "
            f"{when.replace('T', ' ')}, {where}.</p><p>Please come and help!</p>"
        )
        subject = f"New blood donation event in {self.city}"
        return mail(donor["email"], subject, body, f"<{self.id}.{donor['id']}@savealife>")


def text(image, name):
    """A string of an item; items of before there was a check may lack it."""
    return image.get(name, {}).get("S", "")


class ApiError(Exception):
    """The API container did not do what it was asked."""


class Api:
    """What the handler may ask of the API container."""

    def __init__(self, settings):
        self.url, self.token = settings.api_url, settings.token
        # Inside the network: a proxy of the environment leads elsewhere.
        self.opener = build_opener(ProxyHandler({}))

    def donors(self, city):
        """The donors of a city, page by page."""
        path = "/mail/donors?" + urlencode({"city": city})
        while path:
            answer = self.ask("GET", path)
            yield answer["return_value"]
            path = answer.get("next")

    def claim(self, donation, donor):
        return self.ask("PUT", mail_path(donation, donor), {"state": "sending"})["return_value"]

    def note(self, donation, donor, state):
        self.ask("PUT", mail_path(donation, donor), {"state": state}, passes=409)

    def give_back(self, donation, donor):
        self.ask("DELETE", mail_path(donation, donor), passes=409)

    def ask(self, method, path, body=None, passes=None):
        """One call, on a connection of its own: on one that was kept, whether a call that found
        it closed has been carried out could not be told. `passes`: a status that is no error,
        for another attempt has taken over what is noted here."""
        request = Request(urljoin(self.url, path), method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with self.opener.open(request, timeout=API_TIMEOUT) as answer:
                return json.load(answer)
        except HTTPError as error:
            if error.code == passes:
                return {}
            raise ApiError(f"{method} {urlsplit(path).path}: status {error.code}") from error
        except (OSError, ValueError) as error:
            raise ApiError(f"{method} {urlsplit(path).path}: {error}") from error


def mail_path(donation, donor):
    return f"/mail/{quote(donation, safe='')}/{quote(donor, safe='')}"


@dataclass
class Settings:
    """What the environment says."""

    api_url: str
    token: str
    smtp: Server
    sender: str

    @classmethod
    def read(cls, environment):
        """Names every fault at once."""
        faults = []

        def needed(name):
            if not environment.get(name):
                faults.append(f"{name} is not set")
            return environment.get(name, "")

        file = environment.get("SAVEALIFE_TOKEN_FILE")
        token = open(file).read().strip() if file else needed("SAVEALIFE_TOKEN")
        url, smtp, sender = map(needed, ("SAVEALIFE_API_URL", "SMTP_URL", "MAIL_FROM"))
        try:
            server = Server.of(smtp, seconds(environment.get("SMTP_TIMEOUT", "10s")))
        except ValueError as error:
            faults.append(str(error))
        if faults:
            raise ValueError("; ".join(faults))
        return cls(url, token, server, sender)


def seconds(text):
    """As the other containers' settings write a time: 500ms, 10s, 1m."""
    found = re.fullmatch(r"(\d+)(ms|s|m)", text)
    if not found:
        raise ValueError("SMTP_TIMEOUT is not a time like 10s")
    return int(found[1]) * {"ms": 0.001, "s": 1, "m": 60}[found[2]]


def time_left(context):
    """Whether another mail may be begun. One that is cut off would be unknown for ever, while one
    that is not begun comes with the next attempt."""
    return lambda: context is None or context.get_remaining_time_in_millis() > RESERVE_MS


def say(level, text, **fields):
    """A line of JSON, as the other containers log. Never an address."""
    log.log(level, json.dumps({"message": text, **fields}))
