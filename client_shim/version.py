"""The version of the shim, which is the broker's."""

__version__ = "0.1.0"
