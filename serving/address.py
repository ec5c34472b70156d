"""Where the service listens, tried before BentoML's supervisor does: what it meets ends in a traceback."""

import socket

import click
from bentoml._internal.configuration.containers import BentoMLContainer

from dbp_mae.errors import UserError


def check_address() -> None:
    """Refuse a host and port that cannot be listened on.

    Raises:
        UserError: the port is in use or out of range, or the host is none of this machine's.
    """
    context = click.get_current_context(silent=True)  # of `bentoml serve`, with its options
    given = context.params if context else {}
    host = given.get("host") or BentoMLContainer.http.host.get()
    port = given.get("port") or BentoMLContainer.http.port.get()
    try:
        family, *_, (address, _, *rest) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the supervisor does
            probe.bind((address, port, *rest))  # getaddrinfo wraps ports above 65535
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"The service cannot listen on {host}, port {port} ({reason}): end what uses it, or name "
            "another in BENTOML_PORT, or in BENTOML_HOST."
        ) from None
