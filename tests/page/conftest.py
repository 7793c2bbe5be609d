"""A browser and the world around the page, once for all tests."""

import os
import pathlib

import pytest
from playwright.sync_api import expect, sync_playwright
from world import ROOT, TOKEN, World

CHROMIUM = pathlib.Path(os.environ.get("STREAMGATE_TEST_CHROMIUM", ROOT / "target/test-tools/chromium"))
expect.set_options(timeout=30_000)


@pytest.fixture(scope="session")
def world():
    world = World()
    yield world
    world.stop()


@pytest.fixture(scope="session")
def browser():
    libraries, fonts = CHROMIUM / "al2023/lib", CHROMIUM / "fonts.conf"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM / "chromium",
            # A container has no user namespaces; the pages are our own.
            args=["--no-sandbox", "--no-zygote", "--disable-gpu"],
            env={"LD_LIBRARY_PATH": str(libraries), "FONTCONFIG_FILE": str(fonts), "HOME": str(CHROMIUM),
                 "LANG": "en_GB.UTF-8", "XDG_CACHE_HOME": str(CHROMIUM / "cache"), "PATH": os.environ["PATH"]},
        )
        yield browser
        browser.close()


class Errors(list):
    """What a page complained of; a test that expects something takes it out."""


@pytest.fixture
def open_page(browser, world):
    """Opens pages of one person, who is signed in unless `name` is none. At the end nothing may have
    been refused by the page's policy, and no script have failed."""
    contexts, errors = [], Errors()

    def open_page(name="ann", consumer="orders", context=None, **options):
        if context is None:
            context = browser.new_context(locale="en-GB", **options)
            context.set_default_timeout(30_000)
            contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if "Content Security Policy" in line.text else None)
        page.on("dialog", lambda dialog: (errors.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(f"{world.url}?consumer={consumer}&label=2026-01-02T03:04:05.678")
        if name:
            sign_in(page, name)
            expect(page.get_by_role("heading", name="Dead letters")).to_be_visible()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


def sign_in(page, name="ann", token=TOKEN):
    page.get_by_label("Your name").fill(name)
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
