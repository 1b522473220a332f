"""The requests by which a client subscribes to resources and lists, in the way of its era."""

from __future__ import annotations

from broker.gateway.conversation import eras, faults, subscriptions
from broker.gateway.conversation.effects import BrokerFault, Effect, Outcome, SendMessage, ServerResult
from broker.gateway.conversation.jsonrpc import notification_message
from broker.gateway.conversation.requests import OpenRequest, OpenRequests, discovered
from broker.gateway.conversation.subscriptions import Interests


class Subscriber:
    """Takes such requests in, and answers them once the broker has.

    Args:
        requests: the open requests of the client.
        interests: what it wants to hear.
    """

    def __init__(self, requests: OpenRequests, interests: Interests) -> None:
        self._requests = requests
        self._interests = interests

    def legacy(self, entry: OpenRequest) -> list[Effect]:
        """Take `resources/subscribe` or `resources/unsubscribe` in.

        Raises:
            ValueError: it names no resource.
        """
        uri = subscriptions.uri_of(entry.request.params)
        if entry.request.method == "resources/unsubscribe":
            self._interests.uris -= {uri}
            return [*self._requests.answer(entry, b"{}"), *self._requests.listen()]
        if len(self._interests.uris) >= subscriptions.MAX_URIS:
            why = f"more than {subscriptions.MAX_URIS} resources are subscribed to; unsubscribe from some"
            return self._requests.refuse(entry, why)
        self._interests.uris |= {uri}
        return self._requests.listen_for(entry, self._subscribed_legacy)

    def _subscribed_legacy(self, entry: OpenRequest, outcome: Outcome) -> list[Effect]:
        if isinstance(outcome, ServerResult):
            return self._requests.answer(entry, b"{}")
        self._interests.uris -= {subscriptions.uri_of(entry.request.params)}
        return [*self._requests.fail(entry, outcome), *self._requests.listen()]

    def modern(self, entry: OpenRequest) -> list[Effect]:
        """Take `subscriptions/listen` in.

        Raises:
            ValueError: its params cannot be read.
        """
        wanted = subscriptions.filter_of(entry.request.params)
        self._interests.add(entry.id, wanted)
        if not wanted.has_lists:
            return self._requests.listen_for(entry, self._subscribed_modern)
        return self._requests.discover(entry, self._found_lists)

    def _found_lists(self, entry: OpenRequest, outcome: Outcome) -> list[Effect]:
        """Leave out of a subscription the lists that the server does not have, and listen for the rest."""
        found = discovered(outcome)
        if found is None:
            return self._requests.fail(entry, outcome)
        self._interests.narrow(entry.id, found.capabilities.keys())
        return self._requests.listen_for(entry, self._subscribed_modern)

    def _subscribed_modern(self, entry: OpenRequest, outcome: Outcome) -> list[Effect]:
        """Acknowledge a subscription, without its resources where the server does not tell of those."""
        tells = isinstance(outcome, ServerResult)
        if not tells and not (isinstance(outcome, BrokerFault) and outcome.code == "method-refused"):
            return self._requests.fail(entry, outcome)
        return [SendMessage(self._interests.acknowledge(entry.id, tells), entry.id), *self._requests.listen()]

    def ended(self, call: int, outcome: Outcome, takes_log: bool) -> list[Effect]:
        """A call that no request waits for has ended: a cancelled one, or a `ListenTo` after a change.

        Args:
            takes_log: whether the client is sent log messages.
        """
        if not isinstance(outcome, BrokerFault):
            return []
        told = self.refused(call, outcome, takes_log)
        if self._requests.is_last_listen(call):
            self._interests.unheard()
        return told

    def refused(self, call: int, fault: BrokerFault, takes_log: bool) -> list[Effect]:
        """Tell the client by a log message if the broker refuses to tell of what is wanted now."""
        if not (takes_log and self._interests.has_stream and self._requests.is_last_listen(call)):
            return []
        said = f"changes of lists and resources are not told of: {faults.message_of(fault)}"
        return [SendMessage(notification_message("notifications/message", eras.warning(said)))]
