"""Copies that have to be: a chart cannot read files outside of it.

STREAMGATE_BLESS=1 makes them anew.
"""

import os

import pytest

COPIES = {
    "helm/files/alerts.yaml": "prometheus/alerts.yaml",
    "helm/files/dashboard.json": "grafana/streamgate.json",
}


@pytest.mark.parametrize("copy", COPIES)
def test_the_chart_has_what_stands_beside_it(root, copy):
    text = (root / COPIES[copy]).read_text()
    if os.environ.get("STREAMGATE_BLESS"):
        (root / copy).parent.mkdir(exist_ok=True)
        (root / copy).write_text(text)
    assert (root / copy).exists() and (root / copy).read_text() == text, (
        f"{copy} is not {COPIES[copy]}; STREAMGATE_BLESS=1 makes it anew"
    )
