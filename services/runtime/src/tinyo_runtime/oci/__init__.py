"""`tinyo-oci`: containers of OCI bundles (runtime specification 1.2), with the spawner that the runtime has.

There is no service: each command does its part and ends, and what it has to remember is a folder of its own for each
container (docs/oci.md). Nothing here may import grpc or asyncio, which take longer than a container's start.
"""
