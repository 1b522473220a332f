"""What can go wrong, from the codes of `client_shim.wire` and the classes of `client_shim.errors`."""

from __future__ import annotations

from client_shim import errors, wire
from docs.blocks.markdown import TEXTS, Language, code, table

_BLAME = {
    "caller": {"en": "caller", "zh": "调用方"},
    "server": {"en": "server", "zh": "服务器"},
    "operator": {"en": "operator", "zh": "运维"},
    "broker": {"en": "broker", "zh": "broker"},
}


_UNKNOWN = {"outcome": "unknown"}


def _raised(code: wire.Code, data: dict[str, str] | None = None) -> errors.CallError:
    return errors.from_fault(wire.Fault(0, 1, code.value, "", data or {}))


def _carried_out(code: wire.Code) -> str:
    if _raised(code).outcome_unknown:
        return "yes"
    return "where `outcome` is `unknown`" if _raised(code, _UNKNOWN).outcome_unknown else "no"


def codes(_: Language) -> str:
    """Return the codes for authors of clients."""
    rows = [
        [
            code(one.value),
            ", ".join(text["blame"]),
            _carried_out(one),
            text["en"],
        ]
        for one, text in ((one, TEXTS["codes"][one.value]) for one in wire.Code)
    ]
    return table(("code", "blame", "may have been carried out", "meaning"), rows)


def verdicts(language: Language) -> str:
    """Return the codes for readers of error messages."""
    head = {
        "en": ("code", "what it means", "whose fault", "what to do", "raised as"),
        "zh": ("错误码", "含义", "责任方", "处理办法", "异常类"),
    }
    rows = []
    for one in wire.Code:
        text = TEXTS["codes"][one.value]
        blame = {"en": ", ", "zh": "、"}[language].join(_BLAME[blame][language] for blame in text["blame"])
        kind = code(text.get("raised") or type(_raised(one)).__name__)
        rows.append([code(one.value), text[language], blame, text[f"{language}_do"], kind])
    return table(head[language], rows)


def unavailable_kinds() -> list[type[errors.Unavailable]]:
    """Return the errors that a client without a broker raises, in the order of the source."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return [kind for kind in kinds if issubclass(kind, errors.Unavailable) and kind is not errors.Unavailable]


def unavailable(language: Language) -> str:
    """Return the errors that a client raises itself."""
    head = {
        "en": ("code", "what it means", "what to do", "raised as"),
        "zh": ("错误码", "含义", "处理办法", "异常类"),
    }
    rows = []
    for kind in unavailable_kinds():
        text = TEXTS["unavailable"][kind.default_code]
        rows.append([code(kind.default_code), text[language], text[f"{language}_do"], code(kind.__name__)])
    return table(head[language], rows)
