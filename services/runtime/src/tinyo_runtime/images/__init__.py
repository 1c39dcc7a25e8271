"""Images: registry client, OCI layout store, unpacking."""
