"""The files for operators: nginx and systemd read them, and the container's is built where there is a builder."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
BASE = "python:3.12-slim"
IMAGE = "locas-agent-under-test"
WAIT_FOR_HEALTH = """
import time, urllib.request
for _ in range(60):
    try:
        urllib.request.urlopen("http://127.0.0.1:8321/health")
        break
    except OSError:
        time.sleep(2)
else:
    raise SystemExit(1)
"""


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Containerfile and what follows each."""
    lines = (line for line in CONTAINERFILE.splitlines() if line and not line.startswith("#"))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def following(word: str) -> list[str]:
    return [rest for name, rest in instructions() if name == word]


def test_container_serves_as_nobody_in_particular_and_says_how_it_is() -> None:
    assert following("USER") == ["locas"]
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(at for at, name in enumerate(names) if name in ("RUN", "COPY"))
    (check,) = following("HEALTHCHECK")
    assert "/health" in check
    assert following("VOLUME") == ["/data"]


def test_container_holds_what_is_pinned_and_no_cache() -> None:
    (installs,) = [rest for rest in following("RUN") if "pip" in rest]
    assert "--no-cache-dir -c constraints.txt" in installs
    assert following("ADD") == []  # nothing is fetched but by pip
    (settings,) = following("ENV")
    kept = dict(pair.split("=") for pair in settings.split())
    assert {kept["HF_HOME"], kept["XDG_CACHE_HOME"]} == {
        "/data/models",
        "/data/cache",
    }  # in the volume, not in the image


def test_builder_is_sent_what_is_copied_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    copied = {source for rest in following("COPY") for source in rest.split()[:-1]}
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)
    assert any(fnmatch("x.db", line.removeprefix("**/")) for line in lines)


@dataclass(frozen=True)
class Builder:
    """A program that builds and runs containers."""

    program: str

    def run(self, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        command = [self.program, *arguments]
        return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=seconds)

    def told(self, *arguments: str, seconds: float = 60) -> str:
        done = self.run(*arguments, seconds=seconds)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout


@pytest.fixture
def builder() -> Iterator[Builder]:
    """The builder of this machine; to have the image built, install one and pull its base image."""
    found = [Builder(program) for name in ("docker", "podman") if (program := shutil.which(name))]
    at_work = [one for one in found if one.run("info").returncode == 0]
    if not at_work:
        named = ", ".join(one.program for one in found) or "no docker, no podman"
        pytest.skip(f"no builder of containers is at work on this machine ({named}): the image was not built")
    chosen = at_work[0]
    if chosen.run("image", "inspect", BASE).returncode != 0:
        pytest.skip(f"{BASE} is not on this machine (docker pull {BASE}): the image was not built")
    yield chosen
    chosen.run("rmi", "--force", IMAGE)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_image_is_built_and_serves(builder: Builder) -> None:
    builder.told("build", "-f", "deploy/Containerfile", "-t", IMAGE, ".", seconds=1500)
    config = json.loads(builder.told("image", "inspect", IMAGE))[0]["Config"]
    assert (config["User"], config["Entrypoint"]) == ("locas", ["locas-agent"])
    look = "id -u; find / -xdev -name '*.safetensors' -o -xdev -name '*.gguf' -o -xdev -name 'pytorch_model*'"
    user, *models = builder.told("run", "--rm", "--entrypoint", "sh", IMAGE, "-c", look).splitlines()
    assert user == "10001"
    assert [Path(model).parent.name for model in models] == ["tiny"]
    container = builder.told("run", "--detach", "--rm", "--read-only", "--tmpfs", "/tmp", IMAGE).strip()
    try:
        builder.told("exec", container, "python", "-c", WAIT_FOR_HEALTH, seconds=150)
        made = builder.told(
            "exec", container, "locas-agent", "keys", "api", "new", "--store", "sqlite:////data/locas.db"
        )
        assert "locas-" in made
    finally:
        builder.run("stop", container)


def test_nginx_reads_its_part(tmp_path: Path) -> None:
    if (nginx := shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin")) is None:
        pytest.skip("no nginx on this machine: its configuration was not read")
    assert nginx_reads(nginx, tmp_path) == ""


def nginx_reads(nginx: str, folder: Path) -> str:
    """Return what nginx says against its configuration."""
    certificate, key = folder / "it.pem", folder / "it.key"
    write_certificate(certificate, key)
    part = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    part = re.sub(r"(ssl_certificate) +\S+;", rf"\1 {certificate};", part)
    part = re.sub(r"(ssl_certificate_key) +\S+;", rf"\1 {key};", part)
    whole = folder / "whole.conf"
    paths = "".join(
        f"{name}_temp_path {folder / name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole.write_text(f"pid {folder / 'pid'}; events {{}} http {{ access_log off; {paths}\n{part}\n}}", encoding="utf-8")
    done = subprocess.run(
        [nginx, "-t", "-q", "-e", "stderr", "-p", str(folder), "-c", str(whole)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stderr if done.returncode else ""


def write_certificate(certificate: Path, key: Path) -> None:
    """Write a certificate that vouches for itself."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "memory.example.org")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, secret.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
