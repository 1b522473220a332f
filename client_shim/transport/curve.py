"""Makes CURVE key pairs, as libzmq does."""

from __future__ import annotations

import zmq


def new_pair() -> tuple[str, str]:
    """Return a public key and its secret key, in Z85."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def public_of(secret: str) -> str:
    """Return the public key of a secret key."""
    return zmq.curve_public(secret.encode()).decode()
