"""The page when something goes wrong: lost answers and connections, nobody who works, too much of
something; and where the focus is after what was clicked on is gone.
"""

import http.client
import json
import re
import signal
import urllib.parse

import pytest
from conftest import sign_in
from playwright.sync_api import expect
from test_page import confirm, keep_letter, letters, no_letters, section, shard_rows, tile
from world import LABEL, TOKEN, until


def test_the_focus_is_where_one_goes_on(open_page, world):
    page = open_page()
    no_letters(world, page)
    for number in (1, 2):
        keep_letter(world, number, {"eventName": "MODIFY", "dynamodb": {"NewImage": {"a": {"S": "seen"}}}})
    page.reload()
    expect(letters(page)).to_have_count(2)
    button = letters(page).first.get_by_role("button", name=re.compile("contents"))
    button.focus()
    page.keyboard.press("Enter")
    expect(letters(page).first).to_contain_text("seen")
    expect(button).to_be_focused()
    expect(button).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Enter")
    expect(letters(page).first).not_to_contain_text("seen")
    expect(button).to_be_focused()
    expect(button).to_have_attribute("aria-expanded", "false")
    for left in (1, 0):
        letters(page).first.get_by_role("button", name="Delete").click()
        confirm(page, "Delete")
        expect(letters(page)).to_have_count(left)
        expect(page.get_by_role("heading", name="Dead letters")).to_be_focused()
    # A question that is open goes with the session.
    shard_rows(page).first.get_by_role("button", name="Seek").click()
    page.context.clear_cookies()
    page.evaluate("new BroadcastChannel('streamgate').postMessage('signed out')")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_label("Your name")).to_be_focused()


def test_contents_without_end_are_shown_in_parts(open_page, world):
    page = open_page()
    no_letters(world, page)
    image = {f"a{n:04}": {"N": f"{n}.50"} for n in range(1000)}
    keep_letter(world, 1, {"eventName": "MODIFY", "dynamodb": {"NewImage": image}})
    page.reload()
    letters(page).first.get_by_role("button", name="Show contents").click()
    values = letters(page).first.locator(".value")
    expect(letters(page).first).to_contain_text("0.50")
    shown = values.count()
    assert 100 < shown < 1000
    letters(page).first.get_by_role("button", name="Show more").click()
    expect(values).to_have_count(1000)
    expect(letters(page).first.get_by_role("button", name="Show more")).to_have_count(0)
    no_letters(world, page)


# What is no item of DynamoDB is text, and never too much of it.
ODD = [
    ({"Records": [{"dynamodb": {"NewImage": {"a": {"S": "x" * 1000}}}}]}, 100, False),
    ({"Records": [{"dynamodb": {"NewImage": {"a": {"M": None}, "b": {"SS": 7}, "c": 1}}}]}, 1000, True),
    ([{"specversion": "1.0", "data": {"eventName": "INSERT", "dynamodb": {"Keys": {"PK": {"S": "x"}}}}}], 1000, True),
    ({"Records": "none"}, 1000, True), (None, 1000, True), ({"Records": [None, 1]}, 1000, True),
]


def test_what_is_odd_in_a_payload_is_shown_and_bounded(open_page, world):
    page = open_page()
    unfold = """async ([payload, room]) => {
        const { unfold } = await import("/page/js/contents.js");
        return unfold(payload, room);
    }"""
    for payload, room, is_whole in ODD:
        unfolded = page.evaluate(unfold, [payload, room])
        assert unfolded["isWhole"] == is_whole, payload
        assert len(json.dumps(unfolded)) < 3 * room
    assert page.evaluate("""async () => {
        const { unfold } = await import("/page/js/contents.js");
        const deep = JSON.parse('{"L":['.repeat(50000) + '{"S":"x"}' + ']}'.repeat(50000));
        return JSON.stringify(unfold({ Records: [{ dynamodb: { NewImage: { deep } } }] }, 10000));
    }""").count("nested too deep") == 1


def test_nobody_who_works_is_not_at_the_tip(open_page, world):
    page = open_page(consumer="audit")
    expect(tile(page, "Behind")).not_to_have_text("–")
    keep_letter(world, 1, {"eventName": "MODIFY"}, consumer="audit")
    page.reload()
    expect(letters(page)).to_have_count(1)
    consumer = world.consumers[1].process
    consumer.send_signal(signal.SIGSTOP)
    try:
        expect(tile(page, "Workers")).to_have_text("0")
        expect(tile(page, "Behind")).to_have_text("–")
        expect(page.locator(".tile.bad", has_text="Behind")).to_have_count(1)
        letters(page).first.get_by_role("button", name="Redrive").click()
        confirm(page, "Redrive")
        expect(section(page, "Dead letters")).to_contain_text("as ann asked: nobody leads")
        # Nothing waits for it.
        expect(letters(page).first.get_by_role("button", name="Delete")).to_be_enabled()
        letters(page).first.get_by_role("button", name="Delete").click()
        confirm(page, "Delete")
        expect(letters(page)).to_have_count(0)
    finally:
        consumer.send_signal(signal.SIGCONT)
    expect(tile(page, "Behind")).not_to_have_text("–")
    expect(section(page, "Orders")).to_contain_text("0 taken, 0 left")


def test_an_answer_that_is_lost_makes_no_second_order(open_page, world):
    page = open_page()
    asked = []

    def lose_the_first(route):
        asked.append(json.loads(route.request.post_data)["nonce"])
        if len(asked) == 1:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    page.route("**/page/order", lose_the_first)
    shard = shard_rows(page).first.inner_text().split()[0]
    shard_rows(page).first.get_by_role("button", name="Skip").click()
    page.get_by_role("spinbutton", name="Records").fill("999999")
    confirm(page, "Skip")
    expect(page.locator(".said")).to_contain_text("Asked for")
    assert len(asked) == 2 and asked[0] == asked[1]
    orders = section(page, "Orders")
    expect(orders.locator("tbody tr", has_text="skip 999,999 records")).to_have_count(1)
    # Back to where it was.
    shard_rows(page).filter(has_text=shard).first.get_by_role("button", name="Seek").click()
    confirm(page, "Seek")
    expect(orders.locator("tbody tr", has_text=f"seek shard {shard}")).to_have_count(1)
    expect(orders).to_contain_text("Nothing is asked for")


def test_a_sign_out_that_fails_says_so_and_one_that_does_not_is_for_all_tabs(open_page, world):
    first = open_page("ann")
    second = open_page(name=None, context=first.context)
    expect(second.get_by_role("heading", name="Dead letters")).to_be_visible()
    first.route("**/page/sign-out", lambda route: route.abort())
    first.get_by_role("button", name="Sign out").click()
    expect(first.locator(".said")).to_contain_text("Not signed out")
    first.unroute("**/page/sign-out")
    first.get_by_role("button", name="Sign out").click()
    for page in (first, second):
        expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    expect(second.get_by_role("alert")).to_contain_text("Signed out in another tab")


def test_a_stream_that_nobody_reads_is_refused_with_its_reason(open_page, world):
    page = open_page()
    page.goto(f"{world.url}?consumer=orders&label=2001-01-01T00:00:00.000")
    expect(page.get_by_role("alert")).to_contain_text("has ever read a stream with the label 2001")
    options = page.get_by_label("Stream", exact=True).locator("option").all_inner_texts()
    assert not any("2001" in option for option in options)
    page.get_by_label("STREAM_ARN").fill(f"arn:aws:dynamodb:eu-central-1:123456789012:table/people/stream/{LABEL}")
    page.get_by_label("CONSUMER_NAME").select_option("orders")
    page.get_by_role("button", name="Look").click()
    expect(page.locator(".connection")).to_have_text("Live")


def test_too_many_pages_are_told_apart_from_a_connection_that_is_lost(open_page, world):
    page = open_page()
    [cookie] = page.context.cookies()
    page.goto("about:blank")
    path = f"/page/events?{urllib.parse.urlencode({'consumer': 'orders', 'label': LABEL})}"
    others = []

    def all_places_are_taken():
        """One more is; those that were open before may not have left yet."""
        other = http.client.HTTPConnection(world.private, timeout=30)
        other.request("GET", path, headers={"cookie": f"{cookie['name']}={cookie['value']}"})
        if other.getresponse().status == 200:
            others.append(other)
        else:
            other.close()
        return len(others) == 64

    try:
        until("64 open pages", all_places_are_taken)
        page.goto(f"{world.url}?consumer=orders&label={LABEL}")
        expect(page.locator(".connection")).to_contain_text("64 pages are open at this replica")
    finally:
        for other in others:
            other.close()
    expect(page.locator(".connection")).to_have_text("Live")


def test_a_connection_that_is_dead_is_not_live(open_page, world):
    page = open_page()
    expect(page.locator(".connection")).to_have_text("Live")
    world.api.process.send_signal(signal.SIGSTOP)
    try:
        expect(page.get_by_text("The connection to the api is lost")).to_be_visible(timeout=60_000)
    finally:
        world.api.process.send_signal(signal.SIGCONT)
    expect(page.locator(".connection")).to_have_text("Live", timeout=90_000)


@pytest.mark.parametrize("seconds, is_renewed", [(180, True), (1790, False)])
def test_a_session_goes_on_by_what_is_left_of_it(open_page, world, seconds, is_renewed):
    page = open_page(name=None)
    renewals = []
    page.on("request", lambda request: renewals.append(request) if request.url.endswith("/renew") else None)

    def with_so_many_left(route):
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "seconds": seconds})

    page.route("**/page/session", with_so_many_left)
    sign_in(page, token=TOKEN)
    expect(page.locator(".connection")).to_have_text("Live")
    page.keyboard.press("Shift")
    page.get_by_role("heading", name="Dead letters").click()
    if is_renewed:
        expect(page.get_by_text("ann, table people")).to_be_visible()
        page.wait_for_function("() => performance.getEntriesByType('resource').some((one) => one.name.endsWith('/renew'))")
    assert len(renewals) == int(is_renewed)
