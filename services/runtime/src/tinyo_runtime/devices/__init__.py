"""Devices of the host: which of them a container may use, and how they come into it."""
