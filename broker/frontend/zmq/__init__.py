"""The ROUTER socket; the only room of the broker that imports zmq."""
