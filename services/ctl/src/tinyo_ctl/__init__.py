"""The command line, and the client library beneath it."""


class Failure(Exception):
    """Ends a command: what to tell the user, in one or more lines, and with which exit code."""

    #: 1 failed, 2 usage or Statefile, 3 the services cannot be reached.
    exit_code = 1
    #: What stands before the text.
    prefix = "tinyo: "


class UsageError(Failure):
    """The command line is wrong."""

    exit_code = 2


class ServicesError(Failure):
    """The services could not be started, or stopped."""

    exit_code = 3
