"""Writes the generated blocks of the documentation, and the Chinese twin of the dashboard.

    python docs/generate.py            rewrite every stale block or file, and print which
    python docs/generate.py --check    only print them; exit status 1 if there are any

A block stands between `<!-- generated:NAME -->` and `<!-- /generated -->`; `BLOCKS` has the names. What the
code does not know (translations, who sends what, how an event is meant) is in `docs/texts.toml`;
what to do about an error, which the command says too, in `broker/command/texts/codes.toml`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# Run as a script, Python looks for modules in docs/ only.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from docs.blocks import (
    config,
    docker,
    events,
    faults,
    gateway,
    glossary,
    house,
    messages,
    metrics,
    monitoring,
    paths,
    performance,
    protocol,
    questions,
    security,
    servers,
    service,
    soak,
)
from docs.blocks.markdown import DOCS, Block, Language, numbers

ROOT = DOCS.parent
CHINESE = ".zh-CN.md"
_BLOCK = re.compile(r"(<!-- generated:([\w-]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)

BLOCKS: dict[str, Block] = {
    "config-broker": config.keys("broker"),
    "config-limits": config.keys("limits"),
    "config-keys": config.keys("keys"),
    "config-servers": config.keys("servers"),
    "config-doctor": config.keys("doctor"),
    "config-filters": config.keys("filters"),
    "gateway-door": gateway.keys("gateway"),
    "gateway-limits": gateway.keys("limits"),
    "gateway-audit": gateway.keys("audit"),
    "gateway-tokens": gateway.keys("tokens"),
    "reloads": config.reloads,
    "inherited": config.inherited,
    "kinds": protocol.kinds,
    "fields": protocol.fields,
    "flags": numbers("flags"),
    "examples": protocol.examples,
    "management": protocol.management,
    "numbers-protocol": numbers("protocol"),
    "codes": messages.codes,
    "verdicts": messages.verdicts,
    "unavailable": messages.unavailable,
    "events-grave": events.rows(grave=True),
    "events": events.rows(grave=False),
    "metrics": metrics.families,
    "alerts": monitoring.alerts,
    "map": paths.rooms_map,
    "paths": paths.overview,
    "owners": paths.owners,
    "call": paths.sequence,
    "path-request": paths.steps("request"),
    "path-reply": paths.steps("reply"),
    "path-cancel": paths.steps("cancel"),
    "path-death": paths.steps("death"),
    "path-restart": paths.steps("restart"),
    "path-reload": paths.steps("reload"),
    "path-notification": paths.steps("notification"),
    "path-gateway": paths.steps("gateway"),
    "terms": glossary.terms,
    "rooms": house.rooms,
    "files-core": house.files("broker/core"),
    "files-shell": house.files("broker", "broker/core/", "broker/command/"),
    "files-command": house.files("broker/command"),
    "files-shim": house.files("client_shim"),
    "methods": house.methods,
    "lifecycle": house.lifecycle,
    "lifecycle-table": house.lifecycle_table,
    "control": house.control,
    "states": servers.states,
    "fates": servers.fates,
    "tolerated": servers.tolerated,
    "unit": service.unit,
    "hardening": service.hardening,
    "hardening-left-out": service.not_used,
    "numbers-lifecycle": numbers("lifecycle"),
    "run": performance.run,
    "targets": performance.targets,
    "parts": performance.parts,
    "steps": performance.steps,
    "faults-around": faults.around,
    "faults-means": faults.means,
    "faults-idle": faults.seen("idle"),
    "faults-calls": faults.seen("calls in flight"),
    "faults-start": faults.seen("during start"),
    "faults-restart": faults.seen("during restart"),
    "threats-client": security.threats("client"),
    "threats-server": security.threats("server"),
    "threats-user": security.threats("user"),
    "threats-network": security.threats("network"),
    "threats-text": security.threats("text"),
    "threats-http": security.threats("http"),
    "refused-questions": questions.refusals,
    "laws": soak.laws,
    "soak-machine": soak.machine,
    "soak-parts": soak.parts,
    "soak-lines": soak.lines,
    "docker-about": docker.about,
    "docker-checks": docker.checks,
}
"""name → the function that makes the block"""


FILES = {ROOT / "examples" / "grafana" / "mcp-broker.zh-CN.json": monitoring.chinese_dashboard}
"""file → the function that makes all of it"""


def pages() -> list[Path]:
    """Return every page of the documentation, and those of the examples."""
    return sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *ROOT.glob("examples/*/*.md")])


def language_of(page: Path) -> Language:
    """Return the language of a page, by its name."""
    return "zh" if page.name.endswith(CHINESE) else "en"


def blocks_in(text: str) -> list[str]:
    """Return the names of the blocks in a page."""
    return [match[2] for match in _BLOCK.finditer(text)]


def renewed(page: Path) -> str:
    """Return the text of a page with every block up to date, or of a file that is made."""
    if page in FILES:
        return FILES[page]()
    language = language_of(page)
    return _BLOCK.sub(
        lambda match: f"{match[1]}{BLOCKS[match[2]](language)}\n{match[3]}", page.read_text(encoding="utf-8")
    )


def stale() -> list[Path]:
    """Return the pages with a stale block, and the stale files."""
    return [
        page for page in (*pages(), *FILES) if not page.exists() or renewed(page) != page.read_text("utf-8")
    ]


def main(arguments: list[str]) -> int:
    """Rewrite stale blocks and files, or only print which; return the exit status."""
    found = stale()
    for page in found:
        print(page.relative_to(ROOT))
        if "--check" not in arguments:
            page.write_text(renewed(page), encoding="utf-8")
    return int("--check" in arguments and bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
