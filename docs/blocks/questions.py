"""Why a question of a server reaches no client, from `broker.core.calls.questions`."""

from __future__ import annotations

from broker.core.calls.questions import Unanswered
from docs.blocks.markdown import TEXTS, Language, code, table


def refusals(language: Language) -> str:
    """Return the reasons, in the order of the source."""
    head = {"en": ("`reason`", "when", "what to do"), "zh": ("`reason`", "情形", "处理办法")}
    rows = []
    for why in Unanswered:
        text = TEXTS["unanswered"][why.value]
        rows.append([code(why.value), text[language], text[f"{language}_do"]])
    return table(head[language], rows)
