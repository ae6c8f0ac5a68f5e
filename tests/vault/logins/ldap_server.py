"""A small LDAP server: serves the directory (LDIF) that it reads from its input, and prints the port."""

import sys
from io import BytesIO
from typing import Any

from ldaptor.inmemory import fromLDIFFile
from ldaptor.interfaces import IConnectedLDAPEntry
from ldaptor.protocols.ldap.ldapserver import LDAPServer
from twisted.internet import reactor
from twisted.internet.protocol import ServerFactory
from twisted.python import components


class Directory(ServerFactory):
    """A server of one tree."""

    protocol = LDAPServer

    def __init__(self, root: Any) -> None:
        self.root = root


def serve(root: Any) -> None:
    """Listen, and say where."""
    loop: Any = reactor
    port = loop.listenTCP(0, Directory(root), interface="127.0.0.1")
    sys.stdout.write(f"{port.getHost().port}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    untyped: Any = components
    untyped.registerAdapter(lambda factory: factory.root, Directory, IConnectedLDAPEntry)
    fromLDIFFile(BytesIO(sys.stdin.buffer.read())).addCallback(serve)
    loop: Any = reactor
    loop.run()
