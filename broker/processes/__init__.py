"""Process trees and containers: how they are started, found and ended.

It imports the core, the config and `service`; it knows no client and no call.
"""
