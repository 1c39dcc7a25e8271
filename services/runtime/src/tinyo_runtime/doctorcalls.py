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
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *PROGRAM, *known, "--", *sys.argv[1:], stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
        assert process.stdout and process.stderr
        try:
            async for line in process.stdout:
                yield pb.DiagnoseResponse(finding=Parse(line, Finding()))
            said = (await process.stderr.read()).decode(errors="replace").strip().splitlines()
            if code := await process.wait():
                message = (
                    f"the process that looks ended with {code}: {said[-1] if said else 'it said nothing'}"
                )
                raise TinyoError(grpc.StatusCode.INTERNAL, "START_FAILED", message)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
