"""Names of images, as people write them and in their complete form."""

from typing import NamedTuple

from tinyo_runtime.images import grammar


class Reference(NamedTuple):
    """A complete name; `str()` gives "docker.io/library/alpine:latest". With a digest the tag is only a hint."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}{self.tag and ':' + self.tag}{self.digest and '@' + self.digest}"

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Raises TinyoError IMAGE_REFERENCE_INVALID. Short names mean Docker Hub; no tag and no digest, "latest"."""
        name, _, digest = text.removeprefix("index.docker.io/").partition("@")
        registry, slash, repository = name.partition("/")
        if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
            registry, repository = "docker.io", name
        repository, _, tag = repository.partition(":")
        if registry == "docker.io" and "/" not in repository:
            repository = f"library/{repository}"
        complete = cls(registry, repository, tag if tag or digest else "latest", digest)
        grammar.check(text, complete)
        return complete
