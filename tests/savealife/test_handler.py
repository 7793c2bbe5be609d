"""The Python handler: who gets a mail, and that nobody gets two, whatever the API container and
the mail server do. The mail server is a real one, the API a stand-in; the handler with the real
API, behind `exec:` and `lambda+http`, is tested by tests/it/savealife/python.rs.
"""

import dataclasses
import email
import email.policy
import json
import logging
import os
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import pytest

from around import TOKEN, Api, Mailbox, donation, donor, failures

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "savealife" / "python"
sys.path.insert(0, str(FOLDER))
sys.dont_write_bytecode = True

import api as api_module  # noqa: E402
import handler  # noqa: E402
import mail  # noqa: E402


@pytest.fixture
def api():
    api = Api()
    api.donors = {"Haarlem": [donor(1), donor(2)], "Amsterdam": [donor(3)]}
    yield api
    api.stop()


@pytest.fixture
def mailbox():
    mailbox = Mailbox()
    yield mailbox
    mailbox.stop()


@pytest.fixture
def environment(api, mailbox):
    return {
        "TABLE_NAME": "savealife",
        "SAVEALIFE_API_URL": api.url,
        "SAVEALIFE_TOKEN": TOKEN,
        "SMTP_URL": mailbox.url,
        # What is not about a time-out meets none on a busy machine.
        "SMTP_TIMEOUT": "30s",
        "MAIL_FROM": "Savealife <savealife@example.org>",
    }


@pytest.fixture
def handle(environment, monkeypatch, caplog):
    """The function, as Lambda calls it. Whatever it logs, there is no address in it."""
    caplog.set_level(logging.INFO, "savealife")
    monkeypatch.setattr(api_module, "PAUSES", (0, 0))

    def handle(*records, context=None, **changes):
        for name, value in {**environment, **changes}.items():
            monkeypatch.setenv(name, value)
        return handler.handle_stream({"Records": list(records)}, context)

    yield handle
    for line in caplog.messages:
        assert json.loads(line)["message"] and "@" not in line, line


def said(caplog, message):
    lines = [json.loads(line) for line in caplog.messages]
    return [line for line in lines if line["message"] == message]


ONE, TWO = donor(1), donor(2)
DONATION = "aa493a26bc8f"


# Who gets what.


def test_the_donors_of_the_city_get_a_mail_each(handle, api, mailbox, caplog):
    assert handle(donation()) == failures()
    assert mailbox.recipients() == [ONE["email"], TWO["email"]]
    assert set(api.states().values()) == {"sent"}
    [counted] = said(caplog, "a donation's mails")
    assert counted.pop("level") == "INFO"
    assert counted == {"message": "a donation's mails", "donation": DONATION, "sent": 2}


def test_a_mail_is_for_one_and_names_nobody_else(handle, mailbox):
    handle(donation(address="<b>Main</b> & Second", city="Haarlem"))
    for recipient, text in mailbox.got:
        sent = email.message_from_string(text, policy=email.policy.default)
        assert sent["To"] == recipient and not sent["Cc"] and not sent["Bcc"]
        assert sent["From"] == "Savealife <savealife@example.org>"
        assert sent["Subject"] == "New blood donation event in Haarlem"
        number = int(recipient.split("-")[1].split("@")[0])
        assert sent["Message-ID"] == f"<{DONATION}.{number:012x}@savealife>"
        assert sent.get_content_type() == "text/html"
        body = sent.get_content()
        assert "Dear donor" in body and "Haarlem" in body and "2026-12-06 12:00:00" in body
        assert "&lt;b&gt;Main&lt;/b&gt; &amp; Second" in body
        assert sum(one["email"] in text for one in (ONE, TWO)) == 1


def test_a_city_of_other_letters_is_in_subject_and_text(handle, api, mailbox):
    city = "Zürich\r\nBcc: all@example.org"
    api.donors[city] = [ONE]
    assert handle(donation(city=city, address=".\n..\nŁódź")) == failures()
    [(_, text)] = mailbox.got
    sent = email.message_from_string(text, policy=email.policy.default)
    assert sent["Subject"] == "New blood donation event in Zürich Bcc: all@example.org"
    assert sent["Bcc"] is None and text.isascii()
    assert ".\n..\nŁódź" in sent.get_content().replace("\r\n", "\n")


@pytest.mark.parametrize(
    "record",
    [
        donation(event="MODIFY"),
        donation(event="REMOVE"),
        {**donation(event="REMOVE"), "dynamodb": {"SequenceNumber": "1", "Keys": {}}},
        donation(PK="DONOR#000000000001"),
        donation(PK=f"MAIL#{DONATION}"),
        donation(PK="DONATIONS"),
    ],
)
def test_nothing_but_a_new_donation_is_mailed(handle, api, record):
    """Though the filter should let nothing else through."""
    assert handle(record) == failures()
    assert api.asked == []


def test_a_city_without_donors_is_done(handle, mailbox):
    assert handle(donation(city="Utrecht")) == failures()
    assert mailbox.got == []


def test_older_items_may_lack_things(handle, api, mailbox, caplog):
    api.donors["Haarlem"] = [{"id": "a", "email": None}, {"id": "b", "email": "x y@z"}, TWO]
    assert handle(donation()) == failures()
    assert mailbox.recipients() == [TWO["email"]]
    assert [line["donor"] for line in said(caplog, "no address to mail to")] == ["a", "b"]


@pytest.mark.parametrize(
    "record",
    [
        donation(city=None, SK="CITY#None"),
        donation(datetime=None),
        donation(address=""),
        *(donation(identifier=odd) for odd in ["", "b", "AA493A26BC8F", "aa493a26bc8f0", "../donors", "a b"]),
    ],
)
def test_a_donation_that_says_too_little_is_passed_over(handle, api, mailbox, caplog, record):
    """By the rule of the handler in Rust. It holds up nothing that comes after it."""
    after = donation(identifier="bb493a26bc8f", number="101")
    assert handle(record, after) == failures()
    assert len(mailbox.got) == 2
    [line] = said(caplog, "a donation says too little; nobody is mailed")
    assert line["record"] == "100"


def test_a_thousand_donors_get_one_each(handle, api, mailbox):
    api.donors["Haarlem"] = [donor(number) for number in range(1000)]
    # It lets nobody have more than a few mails on one connection.
    mailbox.closes_after = 7
    assert handle(donation()) == failures()
    assert len(mailbox.got) == 1000 == len(set(mailbox.recipients()))
    assert api.asked.count(("GET", "/mail/donors")) == 10


# At most once.


def test_the_same_event_again_mails_nobody(handle, api, mailbox, caplog):
    for _ in range(3):
        assert handle(donation()) == failures()
    assert len(mailbox.got) == 2
    assert [line.get("had") for line in said(caplog, "a donation's mails")] == [None, 2, 2]


def test_another_donation_is_another_mail(handle, mailbox):
    handle(donation(), donation(identifier="bb493a26bc8f", number="101"))
    assert mailbox.recipients() == sorted(2 * [ONE["email"], TWO["email"]])


@pytest.mark.parametrize(
    ("when", "answer"),
    [
        ("refuses", "450 later"),
        ("refuses", "what donor-1@example.org"),
        # The relay will not have us, or our sender.
        ("refuses", "550 5.7.1 relaying denied"),
        ("refuses", "554-5.7.1 donor-1@example.org\r\n554 5.7.1 is on a list"),
        ("refuses", "550 #5.7.1 no access"),
        ("refuses", "553 5.1.7 the sender's address"),
        ("refuses", "550 5.1.8 the sender's domain is not there"),
        ("refuses", "550 5.4.1 access denied"),
        ("refuses", "554 relay access denied"),
        ("refuses", "530 authenticate first"),
        ("refuses_mail", "450 later"),
        ("refuses_mail", "550 not for donor-1@example.org"),
    ],
)
def test_who_was_refused_gets_it_with_the_next_attempt(handle, api, mailbox, when, answer):
    setattr(mailbox, when, lambda recipient: answer if recipient == ONE["email"] else None)
    assert handle(donation()) == failures("100")
    assert api.states() == {(DONATION, TWO["id"]): "sent"}, "the claim was given back"
    setattr(mailbox, when, lambda recipient: None)
    assert handle(donation()) == failures()
    assert mailbox.recipients() == [ONE["email"], TWO["email"]]


def test_a_server_that_goes_away_has_sent_nothing(handle, api, mailbox, monkeypatch):
    """With a connection that is kept, which it leaves."""
    monkeypatch.setattr(handler, "MAILS_AT_ONCE", 1)

    def goes_away(method, path, body):
        if path.endswith(TWO["id"]):
            mailbox.stop()

    api.fails = goes_away
    assert handle(donation()) == failures("100")
    assert api.states() == {(DONATION, ONE["id"]): "sent"}, "the claim was given back"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("550 no donor-1@example.org", "550"),
        ("550", "550"),
        ("551 elsewhere", "551"),
        ("553 no name of a mailbox", "553"),
        ("550 5.1.1 no donor-1@example.org", "550 5.1.1"),
        ("550-5.1.1 there is no\r\n550 5.1.1 donor-1@example.org", "550 5.1.1"),
        ("550 #5.1.0 Address rejected", "550 5.1.0"),
        ("554 5.2.1 disabled", "554 5.2.1"),
        ("552 5.2.2 full", "552 5.2.2"),
    ],
)
def test_a_mailbox_that_is_not_there_is_not_asked_for_again(handle, api, mailbox, caplog, answer, why):
    """It would keep the donation coming again, and the shard waiting, and anybody can sign one up."""
    mailbox.refuses = lambda recipient: answer if recipient == ONE["email"] else None
    assert handle(donation()) == failures(), "nothing is left to be tried again"
    ends = {(DONATION, ONE["id"]): "refused", (DONATION, TWO["id"]): "sent"}
    assert api.states() == ends
    mailbox.refuses = lambda recipient: None
    assert handle(donation()) == failures()
    assert api.states() == ends and mailbox.recipients() == [TWO["email"]]
    [refused] = said(caplog, "refused for good")
    assert refused["donor"] == ONE["id"] and refused["why"] == f"the server answered RCPT with {why}"


def test_a_relay_that_refuses_everybody_costs_nobody_their_mail(handle, api, mailbox, caplog):
    mailbox.refuses = lambda recipient: f"554 5.7.1 <{recipient}>: Relay access denied"
    assert handle(donation()) == failures("100")
    assert api.mails == {}, "nobody is refused for good"
    [one, _] = said(caplog, "not sent")
    assert one["why"] == "the server answered RCPT with 554 5.7.1"
    mailbox.refuses = lambda recipient: None
    assert handle(donation()) == failures()
    assert mailbox.recipients() == [ONE["email"], TWO["email"]]


@pytest.mark.parametrize("answer", ["250 OK", "251 taken", "200 well", "250-well\r\n250 taken"])
def test_every_yes_is_a_yes(handle, api, mailbox, answer):
    mailbox.says = lambda recipient: answer
    assert handle(donation()) == failures()
    assert set(api.states().values()) == {"sent"} and len(mailbox.got) == 2


@pytest.mark.parametrize("answer", ["OK queued as donor-1@example.org", "354 go on", "999 what"])
def test_an_answer_that_cannot_be_read_is_none(handle, api, mailbox, answer):
    """The server has the mail: a second one would be the second."""
    mailbox.says = lambda recipient: answer if recipient == ONE["email"] else "250 OK"
    for _ in range(2):
        assert handle(donation()) == failures()
    states = api.states()
    assert states == {(DONATION, ONE["id"]): "unknown", (DONATION, TWO["id"]): "sent"}
    assert len(mailbox.got) == 2


def test_a_server_that_is_not_there_has_sent_nothing(handle, api, mailbox):
    mailbox.stop()
    assert handle(donation()) == failures("100")
    assert api.mails == {}


@pytest.mark.parametrize("what", ["drops", "hangs"])
def test_what_may_have_been_sent_is_not_sent_again(handle, api, mailbox, caplog, what):
    mailbox.after_mail = lambda recipient: what if recipient == ONE["email"] else None
    for _ in range(2):
        assert handle(donation(), SMTP_TIMEOUT="2s") == failures(), "nothing is left to be tried again"
    states = api.states()
    assert states == {(DONATION, ONE["id"]): "unknown", (DONATION, TWO["id"]): "sent"}
    assert len(mailbox.got) == 2
    [missing] = said(caplog, "may be missing")
    assert missing["donor"] == ONE["id"]


def test_a_claim_of_an_attempt_that_may_live_is_waited_for(handle, api, mailbox):
    api.note((DONATION, ONE["id"]), "sending")
    assert handle(donation()) == failures("100")
    assert mailbox.recipients() == [TWO["email"]]
    # Its owner says so, and all is well.
    api.note((DONATION, ONE["id"]), "sent")
    assert handle(donation()) == failures()
    assert mailbox.recipients() == [TWO["email"]]


# An API of before there were attempts names none.
@pytest.mark.parametrize("attempt", ["its-attempt", None])
def test_a_claim_of_an_attempt_that_died_is_unknown(handle, api, mailbox, attempt):
    api.note((DONATION, ONE["id"]), "sending", attempt)
    api.grow_old((DONATION, ONE["id"]))
    assert handle(donation()) == failures()
    assert api.states()[DONATION, ONE["id"]] == "unknown"
    assert mailbox.recipients() == [TWO["email"]]


def test_it_is_the_dead_claim_that_is_settled_and_no_later_one(handle, api, mailbox, caplog):
    key = DONATION, ONE["id"]
    api.note(key, "sending", "the-dead-one")
    api.grow_old(key)

    def overtakes(method, path, body):
        """Its owner was alive after all and gives it back, and another claims it."""
        if body == {"state": "unknown", "attempt": "the-dead-one"}:
            api.end(key, None, "the-dead-one")
            api.note(key, "sending", "the-next-one")

    api.fails = overtakes
    assert handle(donation()) == failures("100"), "it is waited for"
    assert api.mails[key]["attempt"] == "the-next-one" and api.states()[key] == "sending"
    assert said(caplog, "may be missing") == []


def test_a_claim_that_took_too_long_is_not_used(handle, api, mailbox, monkeypatch):
    """Others may have taken it for dead before its mail was sent."""
    monkeypatch.setattr(api_module, "CLAIM_WITHIN", 1)
    ask = api_module.Api.ask

    def slow(self, method, path, body=None, *timeout):
        answer = ask(self, method, path, body, *timeout)
        if (body or {}).get("state") == "sending":
            threading.Event().wait(1.01)
        return answer

    monkeypatch.setattr(api_module.Api, "ask", slow)
    assert handle(donation()) == failures("100")
    assert mailbox.got == [] and api.mails == {}, "it was given back"


@pytest.mark.parametrize("when", ["drips", "after_mail"])
def test_a_server_that_answers_a_byte_now_and_then_is_hung_up_on(handle, api, mailbox, when):
    """No single read takes longer than the timeout."""
    setattr(mailbox, when, lambda recipient: "drips" if recipient == ONE["email"] else None)
    found = handle(donation(), SMTP_TIMEOUT="1s")
    if when == "drips":
        assert found == failures("100") and api.states() == {(DONATION, TWO["id"]): "sent"}
    else:
        assert found == failures()
        assert api.states() == {(DONATION, ONE["id"]): "unknown", (DONATION, TWO["id"]): "sent"}
    # At 8192 smtplib gives up on a line.
    assert 0 < mailbox.dripped < 8000


def test_both_handlers_take_a_claim_for_dead_at_the_same_age(environment):
    settings = handler.Settings.read({**environment, "SMTP_TIMEOUT": "10s"})
    assert handler.claim_lasts_ms(settings) == 2 * 10_000 + 30_000


@pytest.mark.parametrize("status", [401, 500, 503])
@pytest.mark.parametrize("fails", ["donors", "sending", "sent"])
def test_what_the_api_does_not_do_comes_again_and_is_not_mailed_twice(
    handle, api, mailbox, fails, status
):
    def refuse(method, path, body):
        is_it = path == "/mail/donors" if fails == "donors" else (body or {}).get("state") == fails
        return status if is_it else None

    api.fails = refuse
    assert handle(donation()) == failures("100")
    assert len(mailbox.got) == (2 if fails == "sent" else 0)
    api.fails = lambda *_: None
    # Those that were sent and not noted so stay claimed; nobody can know.
    assert handle(donation()) == (failures("100") if fails == "sent" else failures())
    assert mailbox.recipients() == [ONE["email"], TWO["email"]]


@pytest.mark.parametrize("lost", ["sending", "sent"])
def test_an_answer_of_the_api_that_is_lost_changes_nothing(handle, api, mailbox, lost):
    lost_once = set()

    def loses(method, path, body):
        is_it = method == "PUT" and body["state"] == lost and path not in lost_once
        lost_once.add(path) if is_it else None
        return is_it

    api.loses = loses
    assert handle(donation()) == failures()
    assert len(lost_once) == 2 and set(api.states().values()) == {"sent"}
    assert mailbox.recipients() == [ONE["email"], TWO["email"]]


def test_what_another_attempt_has_said_of_a_mail_stands(handle, api, mailbox):
    """It took this one for dead, while it was only slow."""

    def overtakes(recipient):
        api.note((DONATION, ONE["id"]), "unknown")

    api.donors["Haarlem"] = [ONE]
    mailbox.refuses_mail = overtakes
    assert handle(donation()) == failures()
    assert api.states() == {(DONATION, ONE["id"]): "unknown"} and len(mailbox.got) == 1


def test_an_api_that_is_not_there_costs_nothing(handle, mailbox):
    assert handle(donation(), SAVEALIFE_API_URL="http://127.0.0.1:9") == failures("100")
    assert handle(donation(), SAVEALIFE_TOKEN="another") == failures("100")
    assert mailbox.got == []


def test_one_city_does_not_hold_up_another(handle, api, mailbox):
    mailbox.refuses = lambda recipient: "450 later" if recipient == ONE["email"] else None
    records = [donation(), donation(identifier="bb493a26bc8f", city="Amsterdam", number="101")]
    assert handle(*records) == failures("100")
    assert mailbox.recipients() == [TWO["email"], donor(3)["email"]]


class Context:
    """Lambda's, with so many calls until time is up."""

    def __init__(self, calls):
        self.calls = calls

    def get_remaining_time_in_millis(self):
        self.calls -= 1
        return 60_000 if self.calls >= 0 else handler.RESERVE_MS


def test_no_mail_is_begun_that_might_be_cut_off(handle, api, mailbox):
    assert handle(donation(), context=Context(2)) == failures("100")
    assert len(mailbox.got) == 1 and set(api.states().values()) == {"sent"}
    assert handle(donation(), context=Context(10)) == failures()
    assert mailbox.recipients() == [ONE["email"], TWO["email"]]


# Settings.


# Of the server: without TLS it should not ask for a login.
@pytest.mark.filterwarnings("ignore:Requiring AUTH")
def test_a_server_that_wants_a_login_gets_it():
    mailbox = Mailbox(login=("me@example.org", "s/e:c"))
    url = "smtps://me%40example.org:s%2Fe%3Ac@127.0.0.1"
    # As if it had TLS: with a certificate it is in tests/it/savealife/tls.rs.
    right = dataclasses.replace(mail.Server.of(url, 10), port=mailbox.port, secured=None)
    try:
        for server, taken in [(right, 1), (dataclasses.replace(right, password="another"), 1)]:
            mailer = mail.Mailer(server, "savealife@example.org")
            letter = mail.mail(ONE["email"], "subject", "text", "<a.b@savealife>")
            if server is right:
                mailer.ready()
                mailer.send(letter)
            else:
                with pytest.raises(mail.NotSent, match="the server answered with 535"):
                    mailer.ready()
            mailer.close()
            assert len(mailbox.got) == taken
    finally:
        mailbox.stop()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("smtp://me:secret@mail", "SMTP_URL has a password and no TLS"),
        ("smtps://me@mail", "SMTP_URL has only one of user and password"),
        ("smtps://me:@mail", "SMTP_URL has only one of user and password"),
        ("smtps://:secret@mail", "SMTP_URL has only one of user and password"),
        ("http://mail", "SMTP_URL is not an address like"),
        ("smtp://mail?tls=maybe", "SMTP_URL is not an address like"),
        ("smtps://mail?tls=required", "SMTP_URL is not an address like"),
        ("smtp://mail/path", "SMTP_URL is not an address like"),
        ("smtp://", "SMTP_URL is not an address like"),
        # A password that is not percent-encoded.
        ("smtps://me:secret/2@mail", "SMTP_URL is not an address like"),
        ("smtps://me:secret#2@mail", "SMTP_URL is not an address like"),
        ("smtps://me:secret[2@mail", "SMTP_URL is not an address like"),
    ],
)
def test_a_wrong_url_is_refused_and_no_password_shown(url, why):
    with pytest.raises(ValueError, match=why) as refused:
        mail.Server.of(url, 1)
    assert "secret" not in "".join(traceback.format_exception(refused.value))


def test_neither_password_nor_token_is_shown(environment):
    given = {**environment, "SMTP_URL": "smtps://me:hidden@mail"}
    shown = repr(handler.Settings.read(given))
    assert "me" in shown and "hidden" not in shown and TOKEN not in shown


def test_the_token_may_be_in_a_file(handle, mailbox, tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    found = handle(donation(), SAVEALIFE_TOKEN="", SAVEALIFE_TOKEN_FILE=str(tmp_path / "token"))
    assert found == failures() and len(mailbox.got) == 2


def test_every_fault_of_the_settings_is_told_at_once():
    with pytest.raises(ValueError) as refused:
        handler.Settings.read({"SMTP_URL": "mail:25", "MAIL_FROM": "x@example.org"})
    assert str(refused.value) == (
        "SAVEALIFE_TOKEN is not set; SAVEALIFE_API_URL is not set; "
        f"SMTP_URL is not an address like {mail.LIKE}"
    )
    for text, value in [("250ms", 0.25), ("10s", 10), ("2m", 120)]:
        assert handler.seconds(text) == value
    for wrong in ["soon", "0s", "6m", "-1s"]:
        with pytest.raises(ValueError):
            handler.seconds(wrong)


@pytest.mark.parametrize(
    ("url", "port", "secured"),
    [
        ("smtp://mail", 25, None),
        ("smtp://mail?tls=required", 587, "starttls"),
        ("smtps://mail", 465, "tls"),
        ("smtps://mail:2465/", 2465, "tls"),
    ],
)
def test_ports_are_the_usual_ones(url, port, secured):
    server = handler.Server.of(url, 1)
    assert (server.port, server.secured) == (port, secured)


def test_a_server_without_starttls_gets_nothing_where_it_is_required(handle, mailbox):
    assert handle(donation(), SMTP_URL=f"{mailbox.url}?tls=required") == failures("100")
    assert mailbox.got == []


# As a program, for `HANDLER=exec:`.


def serve(environment, *arguments):
    return subprocess.Popen(
        [sys.executable, FOLDER / "serve.py", *arguments],
        env={**environment, "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def line(*records):
    return json.dumps({"Records": list(records)}) + "\n"


def test_serve_answers_a_line_for_a_line(environment, mailbox):
    child = serve(environment)
    asked = [line(donation()), line(donation(event="MODIFY", number="101")), line()]
    out, err = child.communicate("".join(asked), timeout=60)
    assert [json.loads(answer) for answer in out.splitlines()] == 3 * [failures()]
    assert child.returncode == 0 and len(mailbox.got) == 2
    [logged] = [json.loads(text) for text in err.splitlines()]
    assert logged["sent"] == 2


def test_serve_begins_nothing_when_its_time_is_short(environment, mailbox):
    child = serve(environment, "10")
    out, _ = child.communicate(line(donation()), timeout=60)
    assert json.loads(out) == failures("100") and mailbox.got == []


def test_serve_ends_over_what_it_cannot_do_and_says_why(environment):
    child = serve({**environment, "MAIL_FROM": ""})
    out, err = child.communicate(line(donation()), timeout=60)
    assert (out, child.returncode) == ("", 1) and "MAIL_FROM is not set" in err


def test_killed_in_the_middle_of_a_mail_it_does_not_send_it_again(environment, api, mailbox):
    api.donors["Haarlem"] = [ONE]
    mailbox.after_mail = lambda recipient: "hangs"
    child = serve({**environment, "SMTP_TIMEOUT": "1m"})
    child.stdin.write(line(donation()))
    child.stdin.flush()
    assert mailbox.hanging.wait(60)
    child.kill()
    child.communicate()
    assert api.states() == {(DONATION, ONE["id"]): "sending"}
    api.grow_old((DONATION, ONE["id"]))
    mailbox.after_mail = lambda recipient: None
    out, _ = serve(environment).communicate(line(donation()), timeout=60)
    assert json.loads(out) == failures()
    assert api.states() == {(DONATION, ONE["id"]): "unknown"} and len(mailbox.got) == 1
