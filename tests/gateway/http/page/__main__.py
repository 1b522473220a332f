"""`python -m tests.gateway.http.page`: take the pictures of the status page in docs/ anew."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.e2e.harness import ROOT
from tests.gateway.http.page.site import TOKEN, page_of, served, server, status
from tests.gateway.http.page.test_browser import browse

PICTURES = {"en": "status-page.png", "zh-CN": "status-page.zh-CN.png"}
SIX_HOURS = 720

SERVERS = (
    server("time", pid=31021, rss_bytes=41 << 20, calls=1204, errors=0),
    server("weather", pid=31044, processes=3, rss_bytes=88 << 20, calls=311, p50_ms=81.0, p99_ms=412.0),
    server("browser", pid=31102, processes=6, rss_bytes=214 << 20, restarts=1, p50_ms=640.0, p99_ms=2210.0),
)

for language, name in PICTURES.items():
    with (
        tempfile.TemporaryDirectory(prefix="page-", ignore_cleanup_errors=True) as profile,
        served(page_of(status(*SERVERS), samples=SIX_HOURS)) as url,
    ):
        picture = f"--screenshot={ROOT / 'docs' / name}"
        browse(Path(profile), f"{url}#token={TOKEN}", picture, "--window-size=1100,580", language=language)
