"""`tinyo login` and `tinyo logout`."""

import argparse
import getpass
import sys

from tinyo.node.v1 import node_pb2 as api

from tinyo_ctl.failures import UsageError
from tinyo_ctl.render import succeed
from tinyo_ctl.services import node
from tinyo_ctl.tell import safe

#: Bytes of standard input: no password is as long.
LIMIT = 1 << 14


def login(options: argparse.Namespace) -> int:
    """`tinyo login`."""
    user, password = ask(options)
    with node(options.host) as calls:
        request = api.LoginRequest(registry=options.registry, username=user, password=password)
        registry = calls.Login(request).registry
    succeed(safe(registry), f"logged in as {safe(user)}")
    return 0


def logout(options: argparse.Namespace) -> int:
    """`tinyo logout`; no login is no error."""
    with node(options.host) as calls:
        answer = calls.Logout(api.LogoutRequest(registry=options.registry))
    succeed(safe(answer.registry), "logged out" if answer.was_logged_in else "was not logged in")
    return 0


def ask(options: argparse.Namespace) -> tuple[str, str]:
    """User and password: as the command line says, or from whoever sits at the terminal. Raises UsageError."""
    user: str = options.username
    if options.password_stdin:
        if not user:
            raise UsageError("--password-stdin needs a user: add -u USER")
        data = sys.stdin.buffer.read(LIMIT + 1)
        if len(data) > LIMIT:
            raise UsageError(f"the password on standard input has more than {LIMIT} bytes")
        try:
            password = data.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise UsageError("the password on standard input is not UTF-8") from None
    elif not sys.stdin.isatty():
        raise UsageError("nobody can be asked for a password here: use -u USER --password-stdin")
    else:
        try:
            user = user or input("user: ").strip()
            password = getpass.getpass("password: ")
        except EOFError:
            raise UsageError("no password was given") from None
    if not user or not password:
        raise UsageError(f"the {'password' if user else 'user'} is empty")
    return user, password
