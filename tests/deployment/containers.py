"""Docker where no registry can be reached: a base image of Debian's packages, and stand-ins for others' images."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from meteo_common.settings import meteo_home

IMAGES = Path(__file__).with_name("images")
BASE = "meteo-test/base:bookworm-slim"
ANSIBLE = "ansible==12.3.0"
"""The package that brings community.docker, and the ansible-core that the platform has itself."""
STAND_INS = {
    "postgres": "postgresql-15",
    "prometheus": "prometheus",
    "alertmanager": "prometheus-alertmanager",
    "node-exporter": "prometheus-node-exporter",
    "postgres-exporter": "prometheus-postgres-exporter",
}
"""Debian's package for each image of others; Grafana's is not to be had."""
PACKAGES = ("docker.io", "debootstrap", "iptables")


def run(*command: str | Path, timeout: float = 600, cwd: Path | None = None) -> str:
    """Return what a command printed; fails with it when the command does."""
    ran = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, cwd=cwd, check=False
    )
    assert ran.returncode == 0, f"{' '.join(map(str, command))}\n{ran.stdout}"
    return ran.stdout


def docker_program() -> str:
    """Return Debian's client where it is installed: another on the PATH may be newer than the server."""
    return "/usr/bin/docker" if Path("/usr/bin/docker").exists() else shutil.which("docker") or "docker"


@contextmanager
def daemon() -> Iterator[str]:
    """Yield the client's program while a Docker daemon answers: the machine's own, or one that ends with the tests."""
    if not (shutil.which("dockerd") and shutil.which("debootstrap")):
        apt = ("apt-get", "-o", "DPkg::Lock::Timeout=300", "-q", "-y", "--no-install-recommends", "install")
        run("env", "DEBIAN_FRONTEND=noninteractive", *apt, *PACKAGES)
    program = docker_program()
    if answers(program):
        yield program
        return
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen([shutil.which("dockerd") or "dockerd"], stdout=log, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + 60
            while not answers(program):
                log.seek(0)
                assert server.poll() is None, f"dockerd ended: {log.read()[-2000:]}"
                assert time.monotonic() < end, "dockerd does not answer"
                time.sleep(0.5)
            yield program
        finally:
            server.terminate()
            server.wait(60)


def answers(program: str) -> bool:
    """Say whether a daemon answers."""
    try:
        return subprocess.run([program, "info"], capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def make_images(program: str) -> dict[str, Any]:
    """Return the variables that name the base image and the stand-ins; what is not there yet is made."""
    if not has(program, BASE):
        make_base(program)
    named = {}
    for name, package in STAND_INS.items():
        tag = named[f"docker_{name.replace('-', '_')}_image"] = f"meteo-test/{name}:bookworm"
        arguments = {"BASE": BASE, "NAME": name, "PACKAGE": package}
        given = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        file = IMAGES / f"{'postgres' if name == 'postgres' else 'monitoring'}.Dockerfile"
        # What did not change comes out of the builder's cache.
        subprocess.run(
            [program, "build", "--quiet", *given, "--tag", tag, "--file", file, IMAGES],
            env={**os.environ, "DOCKER_BUILDKIT": "1"},
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=600,
        )
    return {"docker_program": program, "docker_base_image": BASE, "grafana_enabled": False, **named}


def has(program: str, image: str) -> bool:
    """Say whether the image is there."""
    return subprocess.run([program, "image", "inspect", image], capture_output=True, check=False).returncode == 0


def make_base(program: str) -> None:
    """Make what stands in for Debian's slim image, with the certificates that this machine trusts."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "root"
        run("debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", root)
        trusted = Path("/usr/local/share/ca-certificates")
        if trusted.is_dir():
            shutil.copytree(trusted, root / "usr/local/share/ca-certificates", dirs_exist_ok=True)
        run("chroot", root, "update-ca-certificates")
        packed = Path(directory) / "root.tar"
        run("tar", "--create", "--file", packed, "--directory", root, ".")
        # Debian's own image has it too, and what is made from that inherits it.
        run(program, "import", "--change", 'CMD ["bash"]', packed, BASE)


def ansible_playbook() -> Path:
    """Return the program of an Ansible that has community.docker, in an environment of its own."""
    # Not among the stack's own, in a directory of the services' user.
    home = meteo_home() / f"test-{ANSIBLE.replace('==', '-')}"
    program = home / "bin" / "ansible-playbook"
    if not program.exists():
        uv = meteo_home() / "uv" / "bin" / "uv"
        environment = {**os.environ, "UV_CACHE_DIR": str(meteo_home() / ".cache" / "uv"), "VIRTUAL_ENV": str(home)}
        for command in (("venv", "--clear", "--python", sys.executable, home), ("pip", "install", "--quiet", ANSIBLE)):
            subprocess.run([uv, *command], env=environment, check=True, capture_output=True, timeout=600)
    return program
