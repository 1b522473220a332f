"""The DEALER socket and the search for a broker, for any event loop or none.

It imports `protocol`.
"""
