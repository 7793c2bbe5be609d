"""The Dockerfiles, as a linter of them reads them, and what the image promises.

The images themselves are built and run by scripts/test-image, where there is an engine.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FILES = [
    "Dockerfile",
    "tests/image/Dockerfile",
    "examples/savealife/Dockerfile",
    "examples/savealife/python/Dockerfile",
]
# Words of the linter that do not hold here, with the reason.
NOT_HERE = {
    "DL3006": "the bases are arguments, with their tags",
    "DL3057": "what stands around the pair in a test needs no health check",
}


def findings(text):
    hadolint = Path(sys.executable).with_name("hadolint")
    ignored = [part for rule in NOT_HERE for part in ("--ignore", rule)]
    run = subprocess.run([hadolint, *ignored, "-"], input=text, text=True, capture_output=True)
    return run.stdout + run.stderr


@pytest.mark.parametrize("file", FILES)
def test_a_linter_finds_nothing(root, file):
    assert findings((root / file).read_text()) == ""


def test_the_linter_finds_what_is_wrong(root):
    """So that its silence above means something."""
    wrong = (root / "Dockerfile").read_text().replace("WORKDIR /build", "WORKDIR build")
    assert "DL3000" in findings(wrong)


@pytest.mark.parametrize(
    ("file", "program"),
    [("Dockerfile", "/streamgate"), ("examples/savealife/Dockerfile", "/savealife")],
)
def test_the_image_runs_as_nobody_and_without_a_shell(root, file, program):
    last = (root / file).read_text().split("\nFROM ")[-1]
    assert re.search(r"^USER 65532:65532$", last, re.M)
    # Forms that need no shell.
    assert f'\nENTRYPOINT ["{program}"]\n' in last
    assert 'CMD ["/streamgate", "health"]' in last
    for run in re.findall(r"^RUN .*", last, re.M):
        assert run.startswith('RUN ["'), run


def test_a_build_gets_the_sources_that_it_compiles(root):
    """.dockerignore lets nothing through that it does not name."""
    named = {line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {"src", "examples", "Cargo.toml", "Cargo.lock"} <= named
    # Cargo reads the manifest's paths, whatever it builds.
    paths = re.findall(r'^path = "(.+?)"', (root / "Cargo.toml").read_text(), re.M)
    for path in paths:
        assert any(path == one or path.startswith(f"{one}/") for one in named), path


def test_versions_agree(root):
    """Cargo.toml's is the one; the others follow it."""
    version = re.search(r'^version = "(.+)"', (root / "Cargo.toml").read_text(), re.M)[1]
    dockerfile = (root / "Dockerfile").read_text()
    example = (root / "examples" / "savealife" / "Dockerfile").read_text()
    for text in dockerfile, example:
        assert f'org.opencontainers.image.version="{version}"' in text
    assert re.findall("^ARG (?:BUILDER|RUNTIME)=.*", example, re.M) == re.findall(
        "^ARG (?:BUILDER|RUNTIME)=.*", dockerfile, re.M
    )
    chart = (root / "helm" / "Chart.yaml").read_text()
    assert re.search(rf'^appVersion: "?{re.escape(version)}"?$', chart, re.M)
    rust = re.search(r'^rust-version = "(\d+\.\d+)', (root / "Cargo.toml").read_text(), re.M)[1]
    built_with = re.search(r"ARG BUILDER=rust:(\d+\.\d+)", dockerfile)[1]
    assert tuple(map(int, built_with.split("."))) >= tuple(map(int, rust.split(".")))
