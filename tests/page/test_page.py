"""The page in a browser, against the real pair and the simulator: what a person sees and does.

What goes over the wire is tested in `tests/it/page.rs`.
"""

import base64
import json
import os
import re
import signal
import urllib.request

import pytest
from conftest import sign_in
from playwright.sync_api import expect
from world import LABEL, OPENER, ROOT, TOKEN

AXE = (ROOT / "target/test-tools/axe-core/axe.min.js").read_text()
MARKUP = "<img src=x onerror=\"alert(1)\"><script>alert(2)</script>"


def section(page, name):
    return page.get_by_role("region", name=name, exact=True)


def shard_rows(page):
    return section(page, "Shards").locator("tbody tr")


def letters(page):
    return section(page, "Dead letters").locator("li.letter")


def tile(page, name):
    return page.locator(".tile", has=page.locator("dt", has_text=re.compile(f"^{name}$"))).locator("dd")


def confirm(page, action):
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=action, exact=True).click()
    expect(dialog).to_have_count(0)


def no_letters(world, page):
    """Deletes what an earlier test has left."""
    world.heal()
    everything = section(page, "Dead letters").get_by_role("button", name=re.compile("^Delete (all|these)"))
    expect(section(page, "Dead letters")).not_to_contain_text("Being read")
    if everything.count():
        everything.click()
        confirm(page, "Delete")
    expect(section(page, "Dead letters")).to_contain_text("There are none.")


def keep_letter(world, number, record, error="no", consumer="orders"):
    """Keeps a dead letter as a consumer does."""
    payload = base64.b64encode(json.dumps({"Records": [record]}).encode()).decode()
    letter = {"id": f"shardId-00000000000000000001-00000000:{number}-{number}:0000000000000000", "reason": "retries",
              "records": 1, "attempts": 1, "first_error": None, "last_error": error,
              "given_up_at": 1_700_000_000_000, "bytes": len(payload)}
    url = f"http://{world.private}/v1/progress/people/{consumer}@{LABEL}/write-letter"
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    body = json.dumps({"letter": letter, "payload": payload, "whole": True}).encode()
    with OPENER.open(urllib.request.Request(url, body, headers), timeout=10) as answer:
        assert answer.status == 200


def judge(page):
    """What axe-core finds wrong. It is put in past the page's policy, as an extension is."""
    session = page.context.new_cdp_session(page)
    run = "axe.run({resultTypes: ['violations']}).then(found => JSON.stringify(found.violations.map(" \
        "one => [one.id, one.nodes.map(node => node.html + ' ' + node.failureSummary)])))"
    for expression in (AXE + "; true", run):
        answer = session.send("Runtime.evaluate", {"expression": expression, "awaitPromise": True})
        assert "exceptionDetails" not in answer, answer
    session.detach()
    found = json.loads(answer["result"]["value"])
    assert found == [], json.dumps(found, indent=1)


def test_a_person_signs_in_with_the_token_and_with_nothing_else(open_page, world):
    page = open_page(name=None)
    expect(page.get_by_role("heading", name="Dead letters")).to_have_count(0)
    sign_in(page, token="another-token-altogether")
    expect(page.get_by_role("alert")).to_contain_text("not the API_TOKEN of this api")
    sign_in(page, token=TOKEN)
    expect(page.get_by_text("ann, table people")).to_be_visible()
    assert TOKEN not in page.url and TOKEN not in page.content()
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], page.evaluate("document.cookie")) == (True, "Strict", "")
    address = page.url

    # Who has the address has nothing.
    stranger = open_page(name=None)
    stranger.goto(address)
    expect(stranger.get_by_role("button", name="Sign in")).to_be_visible()
    expect(stranger.get_by_text("shard")).to_have_count(0)

    # The session outlives the page, and ends with a click.
    page.reload()
    expect(page.get_by_text("ann, table people")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert TOKEN not in world.api.output()


def test_a_reshard_is_seen_as_it_happens(open_page, world):
    page = open_page()
    expect(page.locator(".connection")).to_have_text("Live")
    for item in range(20):
        world.put(f"item-{item}")
    before = {row.split()[0] for row in shard_rows(page).all_inner_texts()}
    open_before = len(before)
    world.simulator("split", {})
    for item in range(20):
        world.put(f"item-{item}")
    # The parent is read to its end and its two children are read.
    expect(tile(page, "Open shards")).to_have_text(str(open_before + 1))
    expect(shard_rows(page)).to_have_count(open_before + 1)
    texts = [row.inner_text() for row in shard_rows(page).all() if row.inner_text().split()[0] not in before]
    assert len(texts) == 2
    parent = next(id for id in before if all(id in text for text in texts))
    expect(page.locator(".picture .node.ended", has_text=parent)).to_have_count(1)
    assert page.locator(".picture .edge").count() >= 2
    # The ended one is listed on request.
    page.get_by_label("Show the shards that are read to their end").check()
    expect(shard_rows(page).filter(has_text="ended").first).to_be_visible()


def test_a_poison_record_is_found_looked_at_redriven_and_gone(open_page, world):
    page = open_page()
    no_letters(world, page)
    inside = {"M": {"sizes": {"L": [{"N": "1.50"}, {"BOOL": True}, {"NULL": True}]}, "tags": {"SS": ["x", "y"]}}}
    number = world.put_poison("poisoned", remark={"S": MARKUP}, inside=inside)
    expect(letters(page)).to_have_count(1)
    letter = letters(page).first
    expect(letter).to_contain_text("1 record of shard")
    expect(letter).to_contain_text("500")
    # Nothing of the item is there before it is asked for.
    assert MARKUP not in page.content() and "poisoned" not in letter.inner_text()
    assert world.api.lines("the contents of a dead letter are shown") == []
    letter.get_by_role("button", name="Show contents").click()
    expect(letter).to_contain_text(MARKUP)
    for text in ("poisoned", "1.50", "true", "null", "MODIFY", "New image"):
        expect(letter).to_contain_text(text)
    assert page.locator("img, script[src^=x]").count() == 0
    [line] = world.api.lines("the contents of a dead letter are shown")
    assert line["by"] == "ann" and "poisoned" not in json.dumps(line)

    # It is refused once more, and stays.
    letter.get_by_role("button", name="Redrive").click()
    confirm(page, "Redrive")
    expect(page.locator(".said")).to_contain_text("0 dead letters taken, 1 left")
    expect(letters(page)).to_have_count(1)
    world.heal()
    letters(page).first.get_by_role("button", name="Redrive").click()
    confirm(page, "Redrive")
    expect(page.locator(".said")).to_contain_text("1 dead letter taken, 0 left")
    expect(letters(page)).to_have_count(0)
    assert number in world.handler.got
    expect(section(page, "Orders")).to_contain_text("redrive a dead letter: 1 taken, 0 left")


def test_many_are_deleted_after_a_question_with_a_bar(open_page, world):
    page = open_page()
    no_letters(world, page)
    for number in range(1, 26):
        keep_letter(world, number, {"eventName": "MODIFY"})
    page.reload()
    expect(letters(page)).to_have_count(25)
    page.get_by_role("button", name="Delete all").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(letters(page)).to_have_count(25)
    page.evaluate("""window.bars = []; new MutationObserver(() => {
        const bar = document.querySelector('progress'); if (bar) window.bars.push([bar.value, bar.max]);
    }).observe(document.body, {subtree: true, childList: true, attributes: true, characterData: true})""")
    page.get_by_role("button", name="Delete all").click()
    confirm(page, "Delete")
    expect(page.locator(".said")).to_have_text("25 dead letters deleted.")
    expect(letters(page)).to_have_count(0)
    bars = page.evaluate("window.bars")
    assert [0, 25] in bars and [20, 25] in bars, "the bar goes on"
    assert len(world.api.lines("a dead letter is deleted on the page")) >= 25
    assert all(line["by"] == "ann" for line in world.api.lines("a dead letter is deleted on the page"))


def test_all_are_redriven_with_a_bar_and_what_is_paused_waits(open_page, world):
    page = open_page()
    no_letters(world, page)
    numbers = range(900_001, 900_007)
    for number in numbers:
        image = {"NewImage": {"n": {"N": str(number)}}, "SequenceNumber": str(number)}
        keep_letter(world, number, {"eventName": "MODIFY", "dynamodb": image})
    page.reload()
    expect(letters(page)).to_have_count(6)
    section(page, "Orders").get_by_role("button", name="Pause the stream").click()
    confirm(page, "Pause")
    expect(section(page, "Orders")).to_contain_text("the stream is paused, as ann asked")
    page.get_by_role("button", name="Redrive all").click()
    confirm(page, "Redrive")
    bar = page.locator("progress")
    expect(bar).to_have_attribute("value", "0")
    expect(section(page, "Dead letters")).to_contain_text("letters of paused shards wait until they are resumed")
    judge(page)
    section(page, "Orders").get_by_role("button", name="Resume all").click()
    confirm(page, "Resume")
    expect(letters(page)).to_have_count(0)
    expect(bar).to_have_count(0)
    expect(page.locator(".said")).to_contain_text("6 dead letters taken, 0 left")
    assert set(numbers) <= set(world.handler.got)


def test_who_signs_in_in_another_tab_is_who_acts_in_all(open_page, world):
    first = open_page("ann")
    second = open_page(name=None, context=first.context)
    expect(second.get_by_role("heading", name="Dead letters")).to_be_visible()
    # The form of a tab that was left at it, as after a restart of the browser.
    second.evaluate("""([name, token]) => fetch("session", {
        method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify({name, token}),
    }).then(() => new BroadcastChannel("streamgate").postMessage("signed in"))""", ["bob", TOKEN])
    for page in (first, second):
        expect(page.get_by_text("bob, table people")).to_be_visible()
        expect(page.locator(".said")).to_contain_text("what is done here is done as bob")


def test_an_api_of_another_version_asks_for_a_reload(open_page, world):
    page = open_page()

    def newer(route):
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "version": "99.0.0"})

    page.route("**/page/session", newer)
    page.evaluate("new BroadcastChannel('streamgate').postMessage('signed in')")
    expect(page.get_by_role("alert")).to_contain_text("of another version now, 99.0.0")
    page.unroute("**/page/session")
    page.get_by_role("button", name="Reload the page").click()
    expect(page.locator(".connection")).to_have_text("Live")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_shard_is_paused_in_one_tab_and_resumed_in_another(open_page, world):
    first = open_page("ann")
    second = open_page(name=None, context=first.context)
    expect(second.get_by_role("heading", name="Dead letters")).to_be_visible()
    shard = shard_rows(first).first.inner_text().split()[0]
    shard_rows(first).first.get_by_role("button", name="Pause").click()
    confirm(first, "Pause")
    for page in (first, second):
        row = shard_rows(page).filter(has_text=shard).first
        expect(row.locator(".word")).to_have_text("paused")
        expect(section(page, "Orders")).to_contain_text("is paused, as ann asked")
        expect(page.locator(".node.paused", has_text=shard)).to_have_count(1)
    # How old what waits has become, nobody says.
    expect(tile(first, "Behind")).to_have_text("–")
    judge(first)
    shard_rows(second).filter(has_text=shard).first.get_by_role("button", name="Resume").click()
    confirm(second, "Resume")
    for page in (first, second):
        expect(shard_rows(page).filter(has_text=shard).first.locator(".word")).to_have_text("read")
        rows = section(page, "Orders").locator("tbody tr")
        expect(rows.first).to_contain_text(f"resume shard {shard}")
        expect(rows.first).to_contain_text("ann")
    asked = [line["order"] for line in world.api.lines("asked for on the page")]
    assert any("pause shard" in order for order in asked) and any("resume shard" in order for order in asked)


def test_a_shard_is_unblocked_by_a_skip(open_page, world):
    page = open_page(consumer="audit")
    world.put_poison("blocks")
    retried = section(page, "Batches that are tried again")
    # A retry limit of -1: it comes again until somebody does something.
    expect(retried.locator("tbody tr")).to_have_count(1)
    expect(retried.locator("tbody tr").first).to_contain_text("500")
    expect(tile(page, "Retrying")).to_have_text("1")
    judge(page)
    shard = retried.locator("tbody th").first.inner_text()
    expect(shard_rows(page).filter(has_text=shard).first.locator(".word")).to_have_text("retrying")
    shard_rows(page).filter(has_text=shard).first.get_by_role("button", name="Skip").click()
    page.get_by_role("spinbutton", name="Records").fill("1")
    confirm(page, "Skip")
    expect(section(page, "Orders")).to_contain_text(f"skip 1 record of shard {shard}")
    expect(retried).to_contain_text("There are none.")
    world.heal()


def test_a_child_waits_for_its_parent_and_is_drawn_so(open_page, world):
    page = open_page(consumer="audit")
    section(page, "Orders").get_by_role("button", name="Pause the stream").click()
    confirm(page, "Pause")
    expect(section(page, "Orders")).to_contain_text("the stream is paused, as ann asked")
    world.consumers[1].until_reads_nothing()
    for item in range(20):
        world.put(f"item-{item}")
    world.simulator("split", {})
    # Who begins to lead lists the stream, and finds children of what nobody may read.
    world.consumers[1].stop()
    world.consumers[1] = world.start_consumer("audit", "-1")
    waits = section(page, "Shards").get_by_text("waits until")
    expect(waits).to_have_count(2)
    expect(page.locator(".node.waiting")).to_have_count(2)
    expect(page.locator(".edge.waiting")).to_have_count(2)
    judge(page)
    section(page, "Orders").get_by_role("button", name="Resume all").click()
    confirm(page, "Resume")
    expect(waits).to_have_count(0)
    expect(page.locator(".node.waiting")).to_have_count(0)


def test_a_gap_is_shown(open_page, world):
    page = open_page(consumer="audit")
    section(page, "Orders").get_by_role("button", name="Pause the stream").click()
    confirm(page, "Pause")
    expect(section(page, "Orders")).to_contain_text("the stream is paused, as ann asked")
    # Its worker looks twice a second; the page has to see what that looked at.
    world.consumers[1].until_reads_nothing()
    for item in range(20):
        world.put(f"item-{item}")
    world.simulator("trim", {"older_than_ms": 0})
    world.simulator("expire-iterators", {})
    section(page, "Orders").get_by_role("button", name="Resume all").click()
    confirm(page, "Resume")
    expect(section(page, "Gaps").locator("tbody tr").first).to_be_visible()
    judge(page)
    expect(tile(page, "Gaps")).not_to_have_text("0")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_api_that_starts_anew_under_an_open_page_is_found_again(open_page, world, how):
    page = open_page()
    since = section(page, "The last hours").locator(".note").inner_text()
    world.api.stop(how)
    expect(page.get_by_text("The connection to the api is lost")).to_be_visible()
    world.api = world.start_api()
    expect(page.locator(".connection")).to_have_text("Live")
    expect(page.get_by_text("ann, table people")).to_be_visible()
    # Its history is in memory: the plot says since when.
    expect(section(page, "The last hours").locator(".note")).not_to_have_text(since)
    expect(page.locator("#plot-age")).to_have_attribute("aria-label", re.compile("when it was started"))
    expect(tile(page, "Workers")).to_have_text("1")


def test_everything_can_be_done_with_the_keyboard(open_page, world):
    page = open_page(name=None)
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.type("ann")
    page.keyboard.press("Tab")
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Dead letters")).to_be_visible()
    expect(page.get_by_role("main")).to_be_focused()
    page.reload()
    expect(page.get_by_role("heading", name="Dead letters")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    page.keyboard.press("Enter")
    label = tab_to(page, "Pause shard")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert page.evaluate(FOCUSED) == label, "the focus is back"
    press_and_confirm(page, "Pause")
    expect(page.locator(".said")).to_contain_text("Asked for")
    resume = label.replace("Pause", "Resume")
    expect(page.get_by_role("button", name=resume)).to_be_visible()
    tab_to(page, resume)
    press_and_confirm(page, "Resume")
    expect(page.get_by_role("button", name=label)).to_be_visible()
    tab_to(page, "Sign out")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()


def test_a_dead_letter_is_looked_at_and_deleted_with_the_keyboard(open_page, world):
    page = open_page()
    no_letters(world, page)
    keep_letter(world, 1, {"eventName": "MODIFY", "dynamodb": {"NewImage": {"a": {"S": "seen"}}}})
    page.reload()
    expect(letters(page)).to_have_count(1)
    tab_to(page, "Show contents")
    page.keyboard.press("Enter")
    expect(letters(page).first).to_contain_text("seen")
    tab_to(page, "Delete: ")
    press_and_confirm(page, "Delete")
    expect(letters(page)).to_have_count(0)


FOCUSED = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText"


def tab_to(page, label):
    """Goes on with the Tab key to what is called so, or begins so; behind the last comes the first."""
    for _ in range(120):
        page.keyboard.press("Tab")
        if page.evaluate(FOCUSED).startswith(label):
            return page.evaluate(FOCUSED)
    raise AssertionError(f"{label} is not reached with the keyboard")


def press_and_confirm(page, action):
    """Presses what has the focus, and says yes to the question; with the keyboard."""
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Tab")
    expect(dialog.get_by_role("button", name=action, exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)


def test_a_question_is_not_taken_away_by_the_end_of_the_one_before(open_page, world):
    page = open_page()
    page.evaluate("""() => {
        const button = document.querySelector("section[aria-labelledby=orders] button");
        button.click();
        // As Escape does; the browser says `close` later.
        document.querySelector("dialog").close();
        button.click();
        return new Promise((done) => setTimeout(done, 100));
    }""")
    expect(page.get_by_role("dialog")).to_be_visible(timeout=1)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_markup_in_names_errors_and_values_is_text(open_page, world):
    page = open_page(MARKUP)
    no_letters(world, page)
    expect(page.get_by_text(f"{MARKUP}, table people")).to_be_visible()
    record = {"eventName": MARKUP, "dynamodb": {"NewImage": {MARKUP: {"S": MARKUP}, "odd": MARKUP}}}
    keep_letter(world, 7, record, MARKUP)
    section(page, "Orders").get_by_role("button", name="Pause the stream").click()
    confirm(page, "Pause")
    expect(section(page, "Orders")).to_contain_text(f"the stream is paused, as {MARKUP} asked")
    section(page, "Orders").get_by_role("button", name="Resume all").click()
    confirm(page, "Resume")
    page.reload()
    expect(letters(page)).to_have_count(1)
    expect(letters(page).first).to_contain_text(MARKUP)
    letters(page).first.get_by_role("button", name="Show contents").click()
    expect(letters(page).first.locator(".records")).to_contain_text(MARKUP)
    assert page.locator("img").count() == 0
    no_letters(world, page)


ATTACK = """async ([url, query, body]) => {
    const tries = ['no-cors', 'cors'].map(mode => fetch(url + 'order', {method: 'POST', mode, credentials: 'include', body}));
    tries.push(fetch(`${url}letters?${query}`, {credentials: 'include'}));
    const said = (await Promise.allSettled(tries)).map(({value}) => value ? `${value.type} ${value.status}` : 'refused');
    const form = document.createElement('form');
    Object.assign(form, {method: 'post', action: url + 'order', enctype: 'text/plain', target: 'within'});
    form.append(Object.assign(document.createElement('input'), {name: body.slice(0, -1) + ',"', value: '":0}'}));
    const frame = Object.assign(document.createElement('iframe'), {name: 'within', src: url});
    document.body.append(frame, form);
    await new Promise(done => frame.onload = done);
    form.submit();
    await new Promise(done => frame.onload = done);
    return said;
}"""


@pytest.mark.parametrize("site", ["http://evil.example/", "http://localhost:9/"], ids=["another", "another-port"])
def test_another_site_does_nothing_for_who_is_signed_in(open_page, world, site):
    page = open_page()
    other = page.context.new_page()
    other.route(site, lambda route: route.fulfill(content_type="text/html", body="<body></body>"))
    other.goto(site)
    before = len(world.api.lines("asked for on the page"))
    query = f"consumer=orders&label={LABEL}"
    body = json.dumps({"consumer": "orders", "label": LABEL, "order": {"pause": None}})
    said = other.evaluate(ATTACK, [world.url, query, body])
    assert said[0] in ("opaque 0", "refused") and said[1:] == ["refused", "refused"]
    assert all("Dead letters" not in frame.content() and "Sign in" not in frame.content() for frame in other.frames)
    other.close()
    section(page, "Orders").get_by_role("button", name="Seek the stream").click()
    page.keyboard.press("Escape")
    expect(section(page, "Orders")).to_contain_text("Nothing is asked for at the moment.")
    assert len(world.api.lines("asked for on the page")) == before


PHONE = {"viewport": {"width": 390, "height": 800}}


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, PHONE], ids=["light", "dark", "phone"])
def test_it_is_accessible(open_page, world, options):
    page = open_page(name=None, **options)
    judge(page)
    sign_in(page)
    expect(page.get_by_role("heading", name="Dead letters")).to_be_visible()
    no_letters(world, page)
    world.put_poison("judged")
    expect(letters(page)).to_have_count(1)
    letters(page).first.get_by_role("button", name="Show contents").click()
    expect(letters(page).first).to_contain_text("judged")
    judge(page)
    shard_rows(page).first.get_by_role("button", name="Seek").click()
    page.get_by_label("Go on with").select_option("at")
    expect(page.get_by_label("Time")).to_be_visible()
    judge(page)
    page.keyboard.press("Escape")
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], "nothing but tables scrolls sideways"
    no_letters(world, page)


@pytest.mark.skipif("STREAMGATE_SCREENSHOTS" not in os.environ, reason="writes docs/images when it is asked to, alone")
def test_screenshots(open_page, world):
    pages = {scheme: open_page("ann", color_scheme=scheme, viewport={"width": 1180, "height": 1250})
             for scheme in ("light", "dark")}
    # Eight eventful minutes: what there is to see in a plot takes time.
    for second in range(480):
        for item in range(3 + second % 60 // 4 + 40 * (180 < second < 230)):
            world.put(f"item-{item}")
        if second in (100, 300):
            world.simulator("split", {})
        if second == 460:
            world.put_poison("order-17", city={"S": "Haarlem"}, total={"N": "12.50"})
        pages["light"].wait_for_timeout(1000)
    for scheme, page in pages.items():
        expect(letters(page)).to_have_count(1)
        letters(page).first.get_by_role("button", name="Show contents").click()
        expect(letters(page).first).to_contain_text("Haarlem")
        page.evaluate("document.activeElement.blur()")
        page.screenshot(path=ROOT / f"docs/images/page-{scheme}.png")
