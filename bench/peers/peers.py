"""The peers of bench/peers/run: how each is installed below target/peers, started, and named.

Owns their settings: what a peer is given beyond its defaults stands in its row here, and is printed.
Versions are those of kcl/pom.xml and requirements.txt.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from measure import Failed

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = ROOT / "target/peers"


def command(what, *arguments):
    """Runs an installer; what it says is kept for when it fails."""
    try:
        done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=900, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise Failed(f"{what}: {failure}") from failure
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        said = next((line for line in lines if "ERROR" in line), lines[-1] if lines else "")
        raise Failed(f"{what}: {said.strip()}")
    return done.stdout + done.stderr


@dataclass
class Peer:
    """Something that reads a stream, with settings of its own."""

    name: str
    settings: str
    environment: dict = field(default_factory=dict)
    # Whether it has metrics; otherwise it answers a line on stdin with its counts.
    has_metrics = False

    def install(self, binary):
        """Makes it ready, or says why it cannot be."""


@dataclass
class Streamgate(Peer):
    has_metrics = True

    def install(self, binary):
        self.binary = binary

    def version(self):
        return command("streamgate", self.binary, "--version").strip()

    def command(self):
        return [self.binary, "consumer"]


@dataclass
class Kcl(Peer):
    java: tuple = ()

    def install(self, binary):
        for program in ("java", "mvn"):
            if not shutil.which(program):
                raise Failed(f"{program} is not there; the KCL needs a JDK and Maven")
        classpath = TARGET / "kcl/classpath"
        command("Maven could not build the KCL's peer", "mvn", "-q", "-B", "-f", HERE / "kcl/pom.xml",
                f"-Dmaven.repo.local={TARGET / 'm2'}", "compile", "dependency:build-classpath", f"-Dmdep.outputFile={classpath}")
        self.classpath = f"{TARGET / 'kcl/classes'}:{classpath.read_text().strip()}"

    def version(self):
        versions = dict(re.findall(r"<(adapter|kcl)\.version>(.+?)<", (HERE / "kcl/pom.xml").read_text()))
        java = re.search(r'version "(.+?)"', command("java", "java", "-version")).group(1)
        return f"KCL {versions['kcl']}, DynamoDB Streams adapter {versions['adapter']}, Java {java}"

    def command(self):
        return ["java", *self.java, "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", self.classpath, "Counting"]


@dataclass
class Boto3(Peer):
    def install(self, binary):
        venv, pins = TARGET / "venv", (HERE / "requirements.txt").read_text()
        self.python, installed = venv / "bin/python", venv / "installed.txt"
        if not (installed.exists() and installed.read_text() == pins):
            shutil.rmtree(venv, ignore_errors=True)
            command("no venv can be made (apt-get install python3-venv)", sys.executable, "-m", "venv", venv)
            command("pip could not install boto3", self.python, "-m", "pip", "install", "--quiet", "--no-deps",
                    "-r", HERE / "requirements.txt")
            # Written last: a run that was cut off is begun again.
            installed.write_text(pins)

    def version(self):
        boto3 = re.search(r"^boto3==(.+)$", (HERE / "requirements.txt").read_text(), re.MULTILINE).group(1)
        return f"boto3 {boto3}, Python {command('python', self.python, '-V').split()[-1]}"

    def command(self):
        return [self.python, HERE / "loop.py"]


ALL = [
    Streamgate("streamgate", "HANDLER=discard, else its defaults", {
        "HANDLER": "discard", "LISTEN": "127.0.0.1:0", "LOG_FORMAT": "json"}),
    Kcl("kcl", "its defaults but for shardSyncIntervalMillis 0"),
    Kcl("kcl-tuned", "maxRecords 1000, idle 500 ms, shardSyncIntervalMillis 0, -Xmx512m", {"MAX_RECORDS": "1000", "IDLE_MILLIS": "500"}, ("-Xmx512m",)),
    Boto3("boto3", "one thread, Limit 1000, a second's wait after a pass that brought nothing"),
]
