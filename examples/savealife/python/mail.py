"""One mail to one recipient, over a connection that is kept for the next.

Owns what can be known of a mail's fate. Invariant: NotSent means that the server certainly does
not have it, for it said no or never got the end of it; NoAnswer, that it got all of it and did not
say in words that can be read. Neither names an address. Standard library only.
"""

import re
import smtplib
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from urllib.parse import unquote, urlsplit

# Seven bits, for whatever server there is; lines end as on the wire.
POLICY = SMTP.clone(cte_type="7bit")
# What an SMTP_URL asks for by its scheme and its query; there are no others.
SECURED = {("smtp", ""): None, ("smtp", "tls=required"): "starttls", ("smtps", ""): "tls"}
# What an answer's words begin with (RFC 3463); some servers put a # before it.
ENHANCED = re.compile(rb"#*(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?!\S)")
LIKE = (
    "smtp://host:25, smtp://user:password@host:587?tls=required or smtps://user:password@host,"
    " percent-encoded"
)


class NotSent(Exception):
    """The mail was not sent; it may be another time."""


class Refused(NotSent):
    """Nor will it be: the server has said for good that there is no such mailbox."""


class Left(NotSent):
    """Nor was it looked at: the server has left a connection that was kept, after so many mails
    for instance."""


class NoAnswer(Exception):
    """The mail may have been sent."""


class Unusable(Exception):
    """This is no address that a mail can be sent to."""


@dataclass
class Server:
    """Where mail is handed over."""

    host: str
    port: int
    # None, "starttls" or "tls" from the first byte.
    secured: str | None
    user: str | None
    password: str | None = field(repr=False)
    timeout: float

    @classmethod
    def of(cls, url, timeout):
        """smtp://host:port in plain text, with ?tls=required after STARTTLS, or smtps://, where it
        begins with TLS. user:password@ stand before the host, percent-encoded."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
            secured = SECURED[parts.scheme, parts.query]
        except (ValueError, KeyError):
            host = None
        if not host or parts.path not in ("", "/"):
            # Not urlsplit's words: it repeats what it takes for a port, which may be of a password.
            raise ValueError(f"SMTP_URL is not an address like {LIKE}")
        if parts.password and not secured:
            raise ValueError("SMTP_URL has a password and no TLS: use smtps:// or ?tls=required")
        user, password = (unquote(one) if one else None for one in (parts.username, parts.password))
        if (user is None) != (password is None):
            raise ValueError("SMTP_URL has only one of user and password; give both, or neither")
        port = port or {None: 25, "starttls": 587, "tls": 465}[secured]
        return cls(host, port, secured, user, password, timeout)

    def connect(self):
        if self.secured == "tls":
            context = ssl.create_default_context()
            smtp = smtplib.SMTP_SSL(self.host, self.port, timeout=self.timeout, context=context)
        else:
            smtp = smtplib.SMTP(self.host, self.port, timeout=self.timeout)
        if self.secured == "starttls":
            smtp.starttls(context=ssl.create_default_context())
        smtp.ehlo_or_helo_if_needed()
        if self.user is not None:
            smtp.login(self.user, self.password)
        return smtp


class Mailer:
    """Hands mails over one after the other. Not for two threads at a time."""

    def __init__(self, server, sender):
        self.server, self.sender, self.smtp, self.is_kept = server, sender, None, False

    def ready(self):
        """Before a mail is claimed: where no server answers, nothing is."""
        self.is_kept = self.smtp is not None
        if not self.is_kept:
            try:
                self.smtp = self.server.connect()
            except OSError as error:
                raise NotSent(plainly(error)) from error

    def send(self, mail):
        """Returns when the server has taken it, within twice the timeout."""
        del mail["From"]
        mail["From"] = self.sender
        with hung_up_after(2 * self.server.timeout, self.smtp.sock):
            self.hand_over(mail)

    def hand_over(self, mail):
        body = re.sub(rb"(?m)^\.", b"..", mail.as_bytes(policy=POLICY))
        try:
            self.offer(mail["To"].addresses[0].addr_spec)
            # What breaks off here has not got to the dot, without which there is no mail.
            self.smtp.send(body + b".\r\n")
        except NotSent:
            self.drop()
            raise
        except OSError as error:
            self.drop()
            is_left = self.is_kept and isinstance(error, smtplib.SMTPServerDisconnected)
            raise (Left if is_left else NotSent)(plainly(error)) from error
        try:
            code, _ = self.smtp.getreply()
        except OSError as error:
            self.drop()
            raise NoAnswer(plainly(error)) from error
        if code // 100 == 2:
            return
        self.drop()
        if code // 100 in (4, 5):
            raise NotSent(f"the server answered the mail with {code}")
        # smtplib has -1 for a line that it cannot read.
        raise NoAnswer("the server's answer to the mail cannot be read")

    def offer(self, recipient):
        """All that comes before the mail itself."""
        self.expect(2, "MAIL", f"FROM:{smtplib.quoteaddr(self.sender)}")
        self.expect(2, "RCPT", f"TO:{smtplib.quoteaddr(recipient)}")
        self.expect(3, "DATA")

    def expect(self, wanted, verb, argument=""):
        """An answer of this class. The server's words are left out: often they repeat the address."""
        code, words = self.smtp.docmd(verb, argument)
        if code == 421:
            raise smtplib.SMTPServerDisconnected(f"the server answered {verb} with {code}")
        if code // 100 != wanted:
            enhanced = ENHANCED.match(words)
            why = f"the server answered {verb} with {code}"
            if enhanced:
                why += " " + ".".join(part.decode() for part in enhanced.groups())
            # Elsewhere a 5xx is about the sender or the server, who may be put right.
            is_for_good = verb == "RCPT" and code // 100 == 5 and means_the_mailbox(code, enhanced)
            raise (Refused if is_for_good else NotSent)(why)

    def drop(self):
        """After a failure nothing is known of the connection."""
        if self.smtp is not None:
            self.smtp.close()
        self.smtp = None

    def close(self):
        if self.smtp is not None:
            try:
                self.smtp.quit()
            except OSError:
                self.drop()
        self.smtp = None


def means_the_mailbox(code, enhanced):
    """A relay that will not have us, or our sender, says so at RCPT too, and to everybody. The
    enhanced status code tells it apart: the address (5.1) and the mailbox (5.2) are the recipient's,
    but for 5.1.7 and 5.1.8, which are the sender's address."""
    if not enhanced:
        return code in (550, 551, 553)
    kind, subject, detail = map(int, enhanced.groups())
    return kind == 5 and (subject == 2 or (subject == 1 and detail not in (7, 8)))


@contextmanager
def hung_up_after(seconds, sock):
    """A timeout is for one read, and none for a server that sends a byte now and then."""

    def hang_up():
        with suppress(OSError):
            # The socket's own, which wakes who waits for it; TLS' would forget its keys first.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def plainly(error):
    """An error's words, where they are ours or the system's; a server's may hold an address."""
    if isinstance(error, smtplib.SMTPResponseException):
        return f"the server answered with {error.smtp_code}"
    return str(error)


def mail(recipient, subject, html, identifier):
    """A mail without its sender."""
    made = EmailMessage(policy=POLICY)
    try:
        if not re.fullmatch(r"[!-~]+@[!-~]+", recipient):
            raise Unusable
        made["To"] = Address(addr_spec=recipient)
    except (TypeError, ValueError, IndexError, MessageError) as error:
        raise Unusable from error
    # Items of before there was a check may hold line breaks, which no header can.
    made["Subject"] = " ".join(subject.split())
    made["Message-ID"] = identifier
    made["Date"] = formatdate()
    made.set_content(html, subtype="html")
    return made
