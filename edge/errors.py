"""The exceptions a caller is meant to handle; anything else is a bug."""

from __future__ import annotations


class AnyecgError(Exception):
    """Something failed that a person can act on; the message says what, where and how to fix it."""


class BadInputError(AnyecgError):
    """The input or the usage is wrong (exit code 2): malformed chunk, unreadable file, bad option."""
