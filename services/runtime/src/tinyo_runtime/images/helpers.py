"""Programs that keep credentials for others: docker-credential-NAME (docker/docker-credential-helpers).

They are called with the word `get`, read the registry from standard input, and answer with JSON. What they
write is never shown to anybody: it could be a secret.
"""

import asyncio
import json
import os
import re
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE

from tinyo_runtime.images import child

#: Seconds until a helper has answered.
LIMIT = 10.0
#: Bytes of an answer.
MAX_ANSWER = 1 << 16
#: What a helper says when it works, and knows nothing of a registry.
_NOT_FOUND = b"credentials not found"


class HelperError(Exception):
    """A helper cannot be asked; the text says which, and why."""


async def get(name: str, server: str) -> tuple[str, str] | None:
    """User and secret for a registry; None when the helper has none. Raises HelperError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise HelperError(f"{name[:64]!r} is no name of a credential helper")
    program = f"docker-credential-{name}"
    if not (path := shutil.which(program)):
        raise HelperError(f"there is no program {program} on the PATH of tinyo-runtime")
    try:
        # Of a session of its own, so that whatever it starts ends with it.
        process = await asyncio.create_subprocess_exec(
            path, "get", stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
        )
    except OSError as error:
        raise HelperError(f"{program} cannot be started: {error.strerror}") from error
    try:
        async with asyncio.timeout(LIMIT):
            answer = await _converse(process, server)
            status = await process.wait()
    except TimeoutError as error:
        raise HelperError(f"{program} did not answer within {LIMIT:g} seconds") from error
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            child.silence(process)
            await process.wait()
    if status != 0:
        if answer.lower().startswith(_NOT_FOUND):
            return None
        raise HelperError(f"{program} failed with status {status}")
    return _understood(program, answer)


async def _converse(process: asyncio.subprocess.Process, server: str) -> bytes:
    assert process.stdin and process.stdout
    process.stdin.write(server.encode())
    process.stdin.close()
    answer = b""
    while chunk := await process.stdout.read(MAX_ANSWER):
        answer += chunk
        if len(answer) > MAX_ANSWER:
            raise HelperError(f"a credential helper answers with more than {MAX_ANSWER} bytes")
    return answer


def _understood(program: str, answer: bytes) -> tuple[str, str] | None:
    try:
        document = json.loads(answer)
    except (ValueError, RecursionError):
        document = None
    # Without `from`: the cause would carry the answer.
    if not isinstance(document, dict):
        raise HelperError(f"{program} does not answer with a JSON object")
    user, secret = document.get("Username"), document.get("Secret")
    if not isinstance(user, str) or not isinstance(secret, str):
        raise HelperError(f"{program} answers without a Username and a Secret")
    return (user, secret) if secret else None
