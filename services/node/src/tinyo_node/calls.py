"""The calls of NodeService that bring nothing up and take nothing away."""

from tinyo_node.archiverelay import ArchiveRelay
from tinyo_node.attachrelay import AttachRelay
from tinyo_node.copyrelay import CopyRelay
from tinyo_node.doctorrelay import DoctorRelay
from tinyo_node.following import Following
from tinyo_node.imagerelay import ImageRelay
from tinyo_node.inspectrelay import InspectRelay
from tinyo_node.lifecycle import Lifecycle
from tinyo_node.limiting import Limiting
from tinyo_node.relay import Relay
from tinyo_node.statsrelay import StatsRelay
from tinyo_node.verbs import Verbs
from tinyo_node.volumerelay import VolumeRelay


class Calls(
    Following,
    Lifecycle,
    Limiting,
    Relay,
    StatsRelay,
    InspectRelay,
    ImageRelay,
    ArchiveRelay,
    VolumeRelay,
    CopyRelay,
    AttachRelay,
    Verbs,
    DoctorRelay,
):
    """Looking at what is, stopping and starting, and what is passed on to the runtime."""
