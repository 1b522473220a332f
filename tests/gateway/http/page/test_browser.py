"""The status page in a real browser: Debian's Chromium without a screen, driven by its command line.

What the page holds after its script ran is read from the DOM that Chromium prints.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from subprocess import run

import pytest

from tests.gateway.http.page.site import TOKEN, page_of, served, server, status

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="SKIPPED: no Chromium (apt-get install chromium)")

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--hide-scrollbars",
)

BUDGET_MS = 2000
"""The page's own time: Chromium runs its timers and requests, then prints at once."""

HOSTILE = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"


class Text(HTMLParser):
    """The visible text of a DOM, and the tags that it has in its body."""

    def __init__(self, dom: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(dom[dom.index("<main>") : dom.index("</main>")])

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def __str__(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def profile() -> Iterator[Path]:
    """A folder with a short path: Chromium binds a socket in it, and aborts if it is long."""
    with tempfile.TemporaryDirectory(prefix="page-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def browse(profile: Path, url: str, *more: str, language: str = "en") -> str:
    """Return the DOM of `url` after its script ran, or write what `more` asks for."""
    assert CHROMIUM is not None
    user = (f"--user-data-dir={profile}", f"--accept-lang={language}")
    done = run(
        [CHROMIUM, *FLAGS, *user, f"--virtual-time-budget={BUDGET_MS}", *(more or ["--dump-dom"]), url],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(profile), "TMPDIR": str(profile)},
    )
    return done.stdout


def test_it_shows_every_server_and_the_flat_line(profile: Path) -> None:
    told = status(server("time", pid=31), server("weather", state="broken", pid=None, last_error="it exited"))
    with served(page_of(told, samples=60)) as url:
        dom = browse(profile, f"{url}#token={TOKEN}")
    text = str(Text(dom))
    assert "1 of 2 servers are ready." in text
    assert "time ready 31 2 60 MiB 2 h 0 128 1 2.3 / 8.5" in text
    assert "weather broken" in text
    assert "it exited" in text
    curve = re.search(r'class="curve" d="([^"]+)"', dom)
    assert curve is not None
    assert len({point.split()[1] for point in re.findall(r"[ML]([\d.]+ [\d.]+)", curve.group(1))}) == 1
    assert TOKEN not in dom


def test_a_chinese_browser_gets_chinese(profile: Path) -> None:
    with served(page_of(status(server("时钟")))) as url:
        text = str(Text(browse(profile, f"{url}#token={TOKEN}", language="zh-CN")))
    assert "全部 1 个服务器均已就绪。" in text
    assert "时钟 就绪" in text


def test_without_a_token_it_asks_for_one_and_shows_nothing(profile: Path) -> None:
    with served(page_of(status(server("time")))) as url:
        text = str(Text(browse(profile, url)))
        refused = str(Text(browse(profile, f"{url}#token=wrong")))
    assert "Access token" in text
    assert "time ready" not in text
    assert "The gateway refused this token." in refused


def test_what_a_server_says_stays_text(profile: Path) -> None:
    """A name or an error that is markup runs nothing and makes no element."""
    with served(page_of(status(server(HOSTILE, last_error=HOSTILE)))) as url:
        dom = browse(profile, f"{url}#token={TOKEN}")
    text = Text(dom)
    assert "<title>mcp-broker</title>" in dom
    assert "img" not in text.tags
    assert "script" not in text.tags
    assert str(text).count("onerror=") == 2
