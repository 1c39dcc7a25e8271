"""One process from which those that unpack are forked: the interpreter and what it loads are ready before a layer comes.

It has read nothing of any layer, has one thread, and ends with who started it, as its children do. Its standard input
is a socket (SOCK_SEQPACKET) of requests, each answered by a pidfd of the child, so that it can be killed and awaited:

    FOLDER NUL MEDIA_TYPE NUL ALGORITHM, with the child's standard input and output as SCM_RIGHTS
    ->  "\0", with the pidfd
"""

import os
import signal
import socket
import sys
from array import array

#: Bytes of a request; no path is longer.
_REQUEST = 8192


def child() -> list[str]:
    """Without arguments this process becomes the nursery: returns in each child, with the arguments of its layer."""
    if len(sys.argv) > 1:
        return sys.argv[1:]
    os.nice(5)  # other calls of the runtime come first: they are short
    requests, children = socket.socket(fileno=0), set[int]()
    while True:
        request, ancillary, _, _ = requests.recvmsg(_REQUEST, socket.CMSG_SPACE(8), socket.MSG_CMSG_CLOEXEC)
        children -= {pid for pid in children if os.waitpid(pid, os.WNOHANG)[0]}
        if not request:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            os._exit(0)
        descriptors = array("i", ancillary[0][2])
        if not (pid := os.fork()):
            for number, descriptor in enumerate(descriptors):  # what was the socket is the first of them now
                os.dup2(descriptor, number)
                os.close(descriptor)
            requests.detach()
            return request.decode().split("\0")
        children.add(pid)
        pidfd = os.pidfd_open(pid)
        requests.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [pidfd]))])
        for descriptor in (*descriptors, pidfd):
            os.close(descriptor)
