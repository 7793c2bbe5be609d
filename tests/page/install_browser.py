"""Installs what the tests of the page need from npm's registry, below the folder that is named:
Chromium, as @sparticuz/chromium packs it with the libraries and a font that it needs, so that it
runs on a machine that has none of them; and axe-core, which judges how accessible a page is.

Nothing is run of the packages but the browser itself. Does nothing twice. Invariant: what was
cut off, or is not what was pinned, is never left in place.
"""

import base64
import hashlib
import io
import pathlib
import platform
import shutil
import sys
import tarfile
import urllib.request

import brotli

REGISTRY = "https://registry.npmjs.org"
# Name, version, sha512 as the registry has it.
CHROMIUM = (
    "@sparticuz/chromium", "153.0.0",
    "jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA==",
)
AXE = (
    "axe-core", "4.14.1",
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
)
FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
<dir prefix="relative">fonts/fonts</dir><cachedir prefix="xdg">fontconfig</cachedir></fontconfig>
"""


def package(name, version, sha512):
    """Its files, by path."""
    url = f"{REGISTRY}/{name}/-/{name.split('/')[-1]}-{version}.tgz"
    with urllib.request.urlopen(url, timeout=300) as answer:
        packed = answer.read()
    found = base64.b64encode(hashlib.sha512(packed).digest()).decode()
    if found != sha512:
        sys.exit(f"{url} has sha512 {found}, and {sha512} was pinned")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        files = (member for member in archive.getmembers() if member.isfile())
        return {member.name.removeprefix("package/"): archive.extractfile(member).read() for member in files}


def chromium(folder):
    files = package(*CHROMIUM)
    (folder / "chromium").write_bytes(brotli.decompress(files["bin/chromium.br"]))
    (folder / "chromium").chmod(0o755)
    for name, into in [("al2023", "al2023"), ("fonts", "fonts"), ("swiftshader", ".")]:
        unpacked = io.BytesIO(brotli.decompress(files[f"bin/{name}.tar.br"]))
        with tarfile.open(fileobj=unpacked) as archive:
            archive.extractall(folder / into, filter="data")
    (folder / "fonts.conf").write_text(FONTS)


def axe(folder):
    (folder / "axe.min.js").write_bytes(package(*AXE)["axe.min.js"])


def install(tools, name, of, fill):
    folder, stamp = tools / name, f"{of[0]} {of[1]} {of[2]}"
    if (folder / "installed.txt").is_file() and (folder / "installed.txt").read_text() == stamp:
        return
    begun = tools / f"{name}.part"
    for old in (folder, begun):
        shutil.rmtree(old, ignore_errors=True)
    begun.mkdir(parents=True)
    fill(begun)
    (begun / "installed.txt").write_text(stamp)
    begun.rename(folder)


if __name__ == "__main__":
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.exit("the packed Chromium is for Linux on x86_64: set STREAMGATE_TEST_CHROMIUM to a folder with one, laid out as tests/page/conftest.py has it")
    tools = pathlib.Path(sys.argv[1])
    install(tools, "chromium", CHROMIUM, chromium)
    install(tools, "axe-core", AXE, axe)
