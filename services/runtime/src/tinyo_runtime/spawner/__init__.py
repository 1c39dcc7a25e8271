"""The spawner: one container's isolation, in order. Standard library only; see __main__.py."""
