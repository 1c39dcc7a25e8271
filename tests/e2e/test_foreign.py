"""What others bring: clients that know nothing of us but gRPC, programs that are killed, and a real Debian."""

import subprocess
from pathlib import Path

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import event_pb2 as ev

from tests.support import images
from tests.support.client import Client
from tests.support.instance import PATIENCE, PROGRAMS, Instance


def test_any_client_can_look_around_and_call(instance: Instance) -> None:
    """As grpcurl does: list the services, find a call and its messages, and call it; and ask for health."""
    for program, service in (
        ("tinyo-node", "tinyo.node.v1.NodeService"),
        ("tinyo-runtime", "tinyo.runtime.v1.RuntimeService"),
    ):
        with grpc.insecure_channel(instance.socket(program)) as channel:
            health = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE
            )
            assert health.status == health_pb2.HealthCheckResponse.SERVING
            found = ProtoReflectionDescriptorDatabase(channel)
            assert {service, "grpc.health.v1.Health"} <= set(found.get_services())
            method = DescriptorPool(found).FindServiceByName(service).FindMethodByName("GetVersion")
            asking, answering = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
            call = channel.unary_unary(
                f"/{service}/GetVersion",
                request_serializer=asking.SerializeToString,
                response_deserializer=answering.FromString,
            )
            answer = json_format.MessageToDict(call(asking(), timeout=PATIENCE))
            assert answer["version"]["program"]


def test_an_apply_goes_on_without_its_client(instance: Instance, host: str, tmp_path: Path) -> None:
    """The command line is killed as soon as the node has accepted what it asked for."""
    statefile = tmp_path / "web.yml"
    statefile.write_text(f'container: "{images.busybox_image(host, "alpine")}"\n')
    with Client(instance.socket("tinyo-node")) as client:
        watch = client.node.Watch(pb.WatchRequest(follow=True), timeout=PATIENCE)
        process = subprocess.Popen([PROGRAMS / "tinyo", "+", statefile], env=instance.environment)
        assert next(iter(watch)).event.reason == ev.EVENT_REASON_APPLIED
        process.kill()
        process.wait()
        watch.cancel()
        client.until("web", ev.EVENT_REASON_RUNNING)
        assert client.get("web").status.phase == v1.PHASE_RUNNING


def test_a_whole_debian(instance: Instance, host: str, debian: Path) -> None:
    """Ten thousand files with their owners, modes, links and times: what a real distribution consists of."""
    image = images.push(
        images.image([debian.read_bytes()], {"Cmd": ["/bin/bash"]}), f"{host}/debian:bookworm"
    )
    with Client(instance.socket("tinyo-node")) as client:
        client.up(v1.ContainerSpec(name="debian", image=image))
        # Everything that Debian's own packages say of their files: sums, modes and owners.
        code, out, err = client.run("debian", "dpkg", "--verify")
        assert (code, out, err) == (0, b"", b"")
        nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups sh -c 'id -u; ls /root'"
        code, out, err = client.run("debian", "sh", "-c", f"stat -c '%a %u:%g' /var/mail /tmp; {nobody}")
        assert out.decode().splitlines() == ["2775 0:8", "1777 0:0", "65534"], err
        assert code != 0 and b"Permission denied" in err
        listing = "find / -xdev ! -path '/proc/*' ! -path '/sys/*' ! -path '/dev/*' | wc -l"
        _, out, _ = client.run("debian", "sh", "-c", listing)
        with subprocess.Popen(["tar", "-tf", debian], stdout=subprocess.PIPE) as members:
            assert members.stdout
            count = sum(1 for _ in members.stdout)
        assert abs(int(out) - count) < 100, "but for /dev and what we mount"
