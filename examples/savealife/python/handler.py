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
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html import escape

from api import CLAIM_WITHIN, NOTE_WITHIN, Api, ApiError, Claim
from mail import Left, Mailer, NoAnswer, NotSent, Refused, Server, Unusable, mail

MAILS_AT_ONCE = 8
# Kept of the time that is left, for the mails that are under way and what is noted of them.
RESERVE_MS = 15_000

# What the API makes ids of.
UID = re.compile("[0-9a-f]{12}")

log = logging.getLogger("savealife")
log.setLevel(logging.INFO)


def handle_stream(event, context):
    """Mails the donors of every new donation; names the records that have to come again."""
    settings = Settings.read(os.environ)
    mailers = [Mailer(settings.smtp, settings.sender) for _ in range(MAILS_AT_ONCE)]
    free = queue.SimpleQueue()
    for mailer in mailers:
        free.put(mailer)
    around = Around(Api(settings.api_url, settings.token), free, time_left(context), claim_lasts_ms(settings))
    failures = []
    try:
        with ThreadPoolExecutor(MAILS_AT_ONCE) as workers:
            for record in event["Records"]:
                donation = Donation(record, around)
                if donation.is_new and not donation.done(workers):
                    failures.append({"itemIdentifier": donation.number})
    finally:
        for mailer in mailers:
            mailer.close()
    return {"batchItemFailures": failures}


@dataclass
class Around:
    """What all donations of an event are handled with."""

    api: Api
    # The mailers that are at no mail.
    free: queue.SimpleQueue
    has_time: Callable[[], bool]
    claim_lasts_ms: float


class Donation:
    """A donation's record, and the mails that it is about."""

    def __init__(self, record, around):
        image = record["dynamodb"].get("NewImage", {})
        self.number = record["dynamodb"]["SequenceNumber"]
        kind, _, self.id = text(image, "PK").partition("#")
        # FILTER_CRITERIA lets nothing else through. Without it nobody shall be mailed for less.
        self.is_new = record["eventName"] == "INSERT" and kind == "DONATION"
        self.city, self.when, self.where = (text(image, name) for name in ("city", "datetime", "address"))
        self.around, self.api = around, around.api

    def done(self, workers):
        """Whether every donor of the city was seen to."""
        counts = Counter()
        if not (UID.fullmatch(self.id) and self.city and self.when and self.where):
            # An older program's. The API would never take its id, and it would come for ever.
            say(logging.WARNING, "a donation says too little; nobody is mailed", record=self.number)
            return True
        try:
            for page in self.api.donors(self.city):
                if not self.around.has_time():
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
        mailer = self.around.free.get()
        try:
            return self.mail(mailer, letter, donor["id"])
        except NotSent as why:
            say(logging.WARNING, "the mail server cannot be used", donation=self.id, why=str(why))
            return "later"
        except ApiError as error:
            # What was claimed stays so. Its mail may have been sent, so it is not sent again.
            say(logging.WARNING, "not noted", donation=self.id, donor=donor["id"], why=str(error))
            return "later"
        finally:
            self.around.free.put(mailer)

    def mail(self, mailer, letter, donor):
        """Claims a mail and sends it, where nobody has."""
        while self.around.has_time():
            mailer.ready()
            claim = Claim(self.api, self.id, donor)
            found = claim.make()
            if not found["claimed"]:
                return self.left(claim, found)
            try:
                return self.send(mailer, claim, letter)
            except Left:
                # Once: the next connection is a new one.
                claim.give_back()
        return "later"

    def left(self, claim, found):
        """What an earlier attempt has left."""
        if found["state"] != "sending":
            return "refused" if found["state"] == "refused" else "had"
        if found["age"] < self.around.claim_lasts_ms:
            return "later"
        # That claim, and no other that was made since.
        claim.attempt = found.get("attempt")
        return self.unknown(claim, "the attempt that claimed it has died")

    def send(self, mailer, claim, letter):
        """A mail that is claimed."""
        try:
            mailer.send(letter)
        except Refused as why:
            say(logging.WARNING, "refused for good", **claim.names(), why=str(why))
            claim.note("refused")
            return "refused"
        except Left:
            raise
        except NotSent as why:
            say(logging.WARNING, "not sent", **claim.names(), why=str(why))
            claim.give_back()
            return "later"
        except NoAnswer as why:
            return self.unknown(claim, str(why))
        claim.note("sent")
        return "sent"

    def unknown(self, claim, why):
        """It may have been sent: it is not sent again, and that can be seen."""
        if not claim.note("unknown"):
            # Another attempt knows more of it; the next will see.
            return "later"
        say(logging.WARNING, "may be missing", **claim.names(), why=why)
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


@dataclass
class Settings:
    """What the environment says."""

    api_url: str
    token: str = field(repr=False)
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
    found = re.fullmatch(r"(\d{1,6})(ms|s|m)", text)
    time = int(found[1]) * {"ms": 0.001, "s": 1, "m": 60}[found[2]] if found else 0
    if not 0.01 <= time <= 300:
        raise ValueError("SMTP_TIMEOUT is not a time like 10s; 10ms to 5m are allowed")
    return time


def claim_lasts_ms(settings):
    """An attempt is at one mail for no longer; whoever finds an older claim knows that its owner
    died between claiming and saying how it went. The handler in Rust says the same."""
    return (CLAIM_WITHIN + 2 * settings.smtp.timeout + NOTE_WITHIN) * 1000


def time_left(context):
    """Whether another mail may be begun. One that is cut off would be unknown for ever, while one
    that is not begun comes with the next attempt."""
    return lambda: context is None or context.get_remaining_time_in_millis() > RESERVE_MS


def say(level, text, **fields):
    """A line of JSON, as the other containers log. Never an address."""
    log.log(level, json.dumps({"level": logging.getLevelName(level), "message": text, **fields}))
