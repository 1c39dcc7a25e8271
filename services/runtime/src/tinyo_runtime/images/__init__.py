"""Images: registry client, OCI layout store, pulling. A layer is unpacked by `tinyo_runtime.unpack`."""

from tinyo_runtime.images.image import Image, ImageConfig
from tinyo_runtime.images.store import ImageStore

__all__ = ["Image", "ImageConfig", "ImageStore"]
