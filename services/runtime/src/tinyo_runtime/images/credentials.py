"""Who we are to a registry: what `tinyo login` kept, else what podman or docker have (containers-auth.json(5)).

All of them write the same kind of file: `auths` by registry, or by registry and the beginning of a repository;
`credHelpers` by registry, and `credsStore`, name programs that know more.
"""

import base64
import binascii
import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinyo_runtime.images import failures, helpers
from tinyo_runtime.images.reference import Reference

#: Bytes of such a file.
MAX_FILE = 1 << 20
#: What Docker Hub is called in files and by helpers, as it was in its first version.
HUB, HUB_SERVER = "index.docker.io", "https://index.docker.io/v1/"
#: The user of what is no password but a token, which a token service exchanges.
TOKEN_USER = "<token>"


@dataclass(frozen=True)
class Credential:
    """A user and a password; or an identity token (OAuth 2.0 calls it a refresh token)."""

    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    def basic(self) -> str:
        """The value of Authorization (RFC 7617)."""
        return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"


async def find(own: Path, reference: Reference) -> Credential | None:
    """The first that suits; `own` is the file of `tinyo login`. Raises TinyoError REGISTRY_MISCONFIGURED."""
    for path in (own, *_podman(), _docker()):
        if (document := read(path)) and (credential := await _in(path, document, reference)):
            return credential
    return None


def read(path: Path) -> dict[str, Any]:
    """What is in a file; nothing when there is none. Raises TinyoError REGISTRY_MISCONFIGURED."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise failures.misconfigured(str(path), f"it cannot be read: {error.strerror}") from error
    document = None
    with contextlib.suppress(ValueError, RecursionError):  # which would carry the text along
        document = json.loads(data) if len(data) <= MAX_FILE else None
    if not isinstance(document, dict):
        raise failures.misconfigured(str(path), f"it is no JSON object of at most {MAX_FILE} bytes")
    return document


def normal(key: str) -> str:
    """A key as older programs wrote it ("https://host/v1/"), without what they added."""
    stripped = key.removeprefix("http://").removeprefix("https://")
    if stripped != key:
        stripped = stripped.partition("/")[0]
    return HUB if stripped in ("docker.io", "registry-1.docker.io") else stripped


def _podman() -> Iterator[Path]:
    if folder := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(folder, "containers/auth.json")
    else:
        yield Path(f"/run/containers/{os.geteuid()}/auth.json")
    yield Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "containers/auth.json")


def _docker() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"), "config.json")


async def _in(path: Path, document: dict[str, Any], reference: Reference) -> Credential | None:
    """What one file says about a repository, the longest beginning first."""
    name = normal(reference.registry)
    stored = {normal(key): value for key, value in member(path, document, "credHelpers").items()}
    if helper := stored.get(name) or document.get("credsStore"):
        if not isinstance(helper, str):
            raise failures.misconfigured(str(path), "the name of a credential helper is no text")
        server = HUB_SERVER if name == HUB else reference.registry
        try:
            found = await helpers.get(helper, server)
        except helpers.HelperError as error:
            raise failures.misconfigured(str(path), str(error)) from error
        if found:
            user, secret = found
            return Credential(token=secret) if user == TOKEN_USER else Credential(user, secret)
    auths = member(path, document, "auths")
    same = [key for key in auths if normal(key) == name]
    for key in (*_beginnings(reference), *same):
        if key in auths and (credential := _entry(path, key, auths[key])):
            return credential
    return None


def _beginnings(reference: Reference) -> Iterator[str]:
    key = f"{reference.registry}/{reference.repository}"
    while key:
        yield key
        key = key.rpartition("/")[0]


def member(path: Path, document: dict[str, Any], key: str) -> dict[str, Any]:
    """An object in a file; empty when it is missing. Raises TinyoError REGISTRY_MISCONFIGURED."""
    value = document.get(key) or {}
    if not isinstance(value, dict):
        raise failures.misconfigured(str(path), f"{key!r} is no JSON object")
    return value


def _entry(path: Path, key: str, entry: Any) -> Credential | None:
    """One of `auths`; None when it is empty, as docker leaves it beside a helper."""
    values: dict[str, Any] = entry if isinstance(entry, dict) else {}
    texts = [values.get(name) or "" for name in ("auth", "username", "password", "identitytoken")]
    if not isinstance(entry, dict) or not all(isinstance(text, str) for text in texts):
        raise failures.misconfigured(str(path), f"what it has for {key!r} is not understood")
    auth, user, password, token = map(str, texts)
    if token:
        return Credential(token=token)
    if auth:
        try:
            user, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            why = f"'auth' of {key!r} is not base64 of user:password"
            raise failures.misconfigured(str(path), why)
        password = password.rstrip("\0")  # older versions of docker fill up
    return Credential(user, password) if user and password else None
