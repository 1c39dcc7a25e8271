"""The command line, and the client library beneath it."""
