"""docs/performance.md tells of the peers that bench/peers would run: same versions, same settings.

No peer is run or installed here; bench/peers/peers.py is only read.
"""

import re
import sys

import pytest


@pytest.fixture(scope="module")
def documented(root):
    """Version and settings by peer, as the document's table has them."""
    text = (root / "docs/performance.md").read_text()
    table = re.search(r"<!-- generated: peers -->\n(.*?)<!-- end -->", text, re.DOTALL).group(1)
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {name: (version, settings) for name, version, settings in rows}


@pytest.fixture(scope="module")
def peers(root):
    sys.path.insert(0, str(root / "bench/peers"))
    import peers

    return peers.ALL


def test_each_peer_is_documented_with_its_settings(documented, peers):
    assert {name: settings for name, (_, settings) in documented.items()} == {peer.name: peer.settings for peer in peers}


def test_the_kcl_that_was_measured_is_the_one_that_is_built(root, documented):
    pins = dict(re.findall(r"<(adapter|kcl)\.version>(.+?)<", (root / "bench/peers/kcl/pom.xml").read_text()))
    for name in ("kcl", "kcl-tuned"):
        assert documented[name][0].startswith(f"KCL {pins['kcl']}, DynamoDB Streams adapter {pins['adapter']}, ")


def test_the_boto3_that_was_measured_is_the_one_that_is_installed(root, documented):
    pins = (root / "bench/peers/requirements.txt").read_text()
    assert documented["boto3"][0].startswith(f"boto3 {re.search(r'^boto3==(.+)$', pins, re.MULTILINE).group(1)}, ")


def test_a_call_costs_what_the_costs_reckon(root, peers):
    import tables

    price, calls = re.search(r"([0-9.]+) for ([0-9,]+) GetRecords calls", " ".join((root / "docs/costs.md").read_text().split())).groups()
    assert tables.GET_RECORDS_DOLLARS == float(price) / int(calls.replace(",", ""))
