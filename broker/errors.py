"""What goes wrong with a broker, said so that a person can act."""

from __future__ import annotations

from edge.errors import AnyecgError


class BrokerError(AnyecgError):
    """A broker is not installed, did not start or did not stop."""
