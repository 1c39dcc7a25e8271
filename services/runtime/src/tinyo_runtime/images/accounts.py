"""Who we are to registries: logging in and out, and showing it to a registry that asks.

A password goes to the registry that it is for, or to the token service that this registry names; see `guard`.
"""

import asyncio
import json
import os
from contextlib import aclosing
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import credentials, disk, failures, pace, registries
from tinyo_runtime.images.credentials import Credential
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    import httpx

    from tinyo_runtime.images.guard import Guard
    from tinyo_runtime.images.store import Images as Base
else:
    Base = object

#: What is tried out, and not kept yet.
_trying: ContextVar[Credential | None] = ContextVar("trying", default=None)
#: Characters of a user or a password, together.
MAX_LENGTH = 1 << 14


class Accounts(Base):
    """Logs in to registries."""

    #: By registry and repository, those that are open; see `patience`.
    clients: "dict[tuple[str, str], httpx.AsyncClient]"

    @property
    def _logins(self) -> Path:
        return self.root / "auth.json"

    async def login(self, text: str, user: str, password: str) -> str:
        """Keeps what a registry accepts, in place of what was kept for it; gives its name. Raises TinyoError."""
        registry = registries.name(text)
        if not user or not password or ":" in user or len(user) + len(password) > MAX_LENGTH:
            why = f"a user without ':' and a password are needed, of at most {MAX_LENGTH} characters"
            raise failures.login_invalid(registry, why)
        credential = Credential(user, password)
        with failures.explained(Reference(registry, "")):
            trying = _trying.set(credential)
            try:
                async with asyncio.timeout(pace.WINDOW):
                    await self._try(registry, credential)
            except TimeoutError:
                why = f"it did not answer within {pace.WINDOW:g} seconds"
                raise failures.unreachable(Reference(registry, ""), why) from None
            finally:
                _trying.reset(trying)
        document = credentials.read(self._logins)
        auths = credentials.member(self._logins, document, "auths")
        auths[registry] = {"auth": credential.basic().removeprefix("Basic ")}
        self._keep(registry, document | {"auths": auths})
        return registry

    def logout(self, text: str) -> tuple[str, bool]:
        """Forgets what `login` kept; the registry's name, and whether there was anything. Raises TinyoError."""
        registry = registries.name(text)
        document = credentials.read(self._logins)
        was = credentials.member(self._logins, document, "auths").pop(registry, None) is not None
        if was:
            self._keep(registry, document)
        return registry, was

    async def authorize(self, client: "httpx.AsyncClient", refusal: "httpx.Response") -> None:
        """Shows a registry what it wants to see, once for all whom it refused together. Raises TinyoError.

        When a token ends, the registry says: our clock may be another than its own.
        """
        guard = refusal.extensions["guard"]
        async with guard.lock:
            shown = refusal.request.headers.get("Authorization")
            if shown != client.headers.get("Authorization"):  # somebody else was refused as well, and quicker
                await refusal.aclose()
            else:
                await self._show(client, refusal, guard)

    async def _show(self, client: "httpx.AsyncClient", refusal: "httpx.Response", guard: "Guard") -> None:
        guard.credential = credential = _trying.get() or await credentials.find(self._logins, guard.reference)
        if guard.realm is None:
            await refusal.aclose()
            if credential is None or credential.token:
                raise failures.denied(guard.reference)
            client.headers["Authorization"] = credential.basic()
        elif credential and credential.token:
            await refusal.aclose()
            await self._exchange(client, guard.realm, credential)
        else:
            await super().authorize(client, refusal)

    async def _exchange(
        self, client: "httpx.AsyncClient", realm: "httpx.URL", credential: Credential
    ) -> None:
        """Fetches a token for an identity token (distribution's OAuth 2.0 token authentication)."""
        form = {
            "grant_type": "refresh_token",
            "client_id": "tinyo",
            "refresh_token": credential.token,
            **{key: " ".join(realm.params.get_list(key)) for key in realm.params},
        }
        # A redirect would take the form along, to whomever.
        answer = (await client.post(realm, data=form, follow_redirects=False)).json()
        client.headers["Authorization"] = f"Bearer {answer.get('token') or answer['access_token']}"

    async def _try(self, registry: str, credential: Credential) -> None:
        """Raises TinyoError unless the registry lets us in (OCI distribution, "determining support")."""
        reference = Reference(registry, "")
        async with super().client(reference) as client:
            request = ("GET", client.base_url.join("/v2/"))

            async def ask() -> "httpx.Response":
                asked = client.build_request(*request, headers={"Accept": "application/json"})
                return await client.send(asked, stream=True, follow_redirects=False)

            response = await ask()
            async with aclosing(response):
                if response.status_code == 401:
                    try:
                        await self.authorize(client, response)
                    except TinyoError as error:
                        raise (failures.login_denied(registry) if _denied(error) else error) from None
                else:  # it lets anybody in, but perhaps not with this
                    client.headers["Authorization"] = credential.basic()
            async with aclosing(await ask()) as response:
                if response.status_code in (401, 403):
                    raise failures.login_denied(registry)
                if response.status_code != 200:
                    why = f"it answers with status {response.status_code}"
                    raise failures.unreachable(reference, why)

    def _keep(self, registry: str, document: dict[str, object]) -> None:
        """Writes the file, whole or not at all, for root alone; tokens of the registry are not shown any more."""
        unfinished = self.root / "pulling" / self._logins.name
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w") as file:
            json.dump(document, file, indent=1)
        disk.flush(unfinished)
        unfinished.rename(self._logins)
        disk.flush(self.root)
        for (name, _), client in self.clients.items():
            if name == registry:
                client.headers.pop("Authorization", None)


def _denied(error: TinyoError) -> bool:
    return error.reason == "REGISTRY_DENIED"
