"""RuntimeService: Diagnose, by a process of its own, which may try what a process with threads must not."""

import asyncio
import sys
from collections.abc import AsyncIterator

import grpc
from google.protobuf.json_format import Parse
from tinyo.runtime.v1 import runtime_pb2 as pb
from tinyo.v1.diagnosis_pb2 import Finding

from tinyo_runtime.errors import Context, TinyoError

#: Without -P, whoever owns the working directory could have it run something else.
PROGRAM = (sys.executable, "-P", "-m", "tinyo_runtime.doctor")


class DoctorCalls:
    """A part of RuntimeService; see calls.py."""

    async def Diagnose(
        self, request: pb.DiagnoseRequest, context: Context
    ) -> AsyncIterator[pb.DiagnoseResponse]:
        known = ["--ids", ",".join(request.ids)] if request.complete else []
        looking = asyncio.ensure_future(_looked(*known, "--", *sys.argv[1:]))
        # It goes on to its end when nobody waits any more: what it tries with is taken away then.
        for line in await asyncio.shield(looking):
            yield pb.DiagnoseResponse(finding=Parse(line, Finding()))


async def _looked(*arguments: str) -> list[bytes]:
    """The findings, an object of JSON each. Raises TinyoError."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )
    found, errors = await process.communicate()
    if process.returncode:
        said = errors.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        message = f"the process that looks ended with {process.returncode}: {said[-1]}"
        raise TinyoError(grpc.StatusCode.INTERNAL, "START_FAILED", message)
    return found.splitlines()
