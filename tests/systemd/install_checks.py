"""Checks of `make install`, `make uninstall` and `make purge`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.systemd import host
from tests.systemd.host import (
    CONFIG,
    ENDPOINT,
    LIBRARIES,
    PREFIX,
    ROOT,
    Skipped,
    call,
    main_pid,
    processes_of,
    server_pids,
    sh,
    show,
    until_ready,
)
from tests.systemd.place_checks import (
    clients_may_not_read,
    give_to_clients,
    the_files_are_what_they_should_be,
)


def install(language: str) -> str:
    return sh(f"make -C {ROOT} install WHEELS={host.WHEELS}", env=f"MCP_BROKER_LANG={language}")


def install_says_what_a_backend_has_to_do() -> None:
    """`make install` prints what a backend's user must do to reach the socket. There are keys of a backup."""
    sh(f"mkdir -p {CONFIG.parent}/authorized_keys && cd {CONFIG.parent} && touch server.key_secret")
    sh(f"touch {CONFIG.parent}/authorized_keys/laptop.key && chown -R 4242:4243 {CONFIG.parent}")
    said = install("en")
    assert "sudo usermod -aG mcp-broker USER" in said, said
    assert ENDPOINT in said, said


def it_has_started_and_says_how_its_servers_are() -> None:
    """Ready once clients are served; `STATUS=` follows the servers until all six are ready."""
    assert show("ActiveState") == "active"
    assert re.fullmatch(r"[0-6] of 6 servers ready.*", show("StatusText"))
    assert "servers ready" in sh("systemctl status --no-pager mcp-broker")
    assert show("ActiveState", "mcp-broker.socket") == "active"
    until_ready()
    assert show("StatusText") == "6 of 6 servers ready"


def six_servers_run_as_the_services_own_user() -> None:
    """The installed service, as its own user, runs all six servers of the default config."""
    pids = server_pids()
    assert len(pids) == 6, pids
    assert {sh(f"ps -o user= -p {pid}").strip() for pid in (main_pid(), *pids.values())} == {"mcp-broker"}
    answer = json.loads(call("time", "get_current_time", {"timezone": "Asia/Tokyo"}))
    assert answer["timezone"] == "Asia/Tokyo"


def to_install_again_is_to_upgrade() -> None:
    """`make install` again: the config is never overwritten, a running broker is started anew."""
    CONFIG.write_text("# mine\n" + CONFIG.read_text(encoding="utf-8"), encoding="utf-8")
    give_to_clients()
    before = main_pid()
    said = install("zh")
    clients_may_not_read()
    assert CONFIG.read_text(encoding="utf-8").startswith("# mine\n")
    assert "已存在，保持不变" in said, said
    assert "sudo usermod -aG mcp-broker USER" in said, said
    assert main_pid() not in (0, before)
    until_ready()


def what_was_stopped_on_purpose_stays_so_over_an_upgrade() -> None:
    """An upgrade starts nothing that somebody stopped, and enables nothing that somebody disabled."""
    sh("systemctl disable --now mcp-broker.service mcp-broker.socket")
    install("en")
    assert show("ActiveState") == "inactive"
    assert show("UnitFileState") == "disabled"
    sh("systemctl enable --now mcp-broker.socket mcp-broker.service")
    until_ready()


def the_files_of_make_install_are_roots() -> None:
    """Config, secrets, socket and program have the owner and the mode that the page says."""
    the_files_are_what_they_should_be()
    clients_may_not_read()
    about = sh(
        f"cd {CONFIG.parent} && stat -c '%a %U:%G' . server.key_secret authorized_keys authorized_keys/*"
    )
    closed = [f"{mode} root:mcp-broker-config" for mode in (640, 750, 640)]
    assert about.splitlines() == ["755 root:root", *closed]


def the_package_is_refused_beside_it() -> None:
    """Two owners of the same files: apt stops before it has changed one, and says what to do."""
    if not host.PACKAGE:
        raise Skipped(host.NO_PACKAGE)
    before, link = main_pid(), Path("/usr/local/bin/mcp-broker")
    sh("mkdir -p /srv/other/share && touch /srv/other/pyvenv.cfg /srv/other/share/install")
    for prefix in (Path("/srv/other"), PREFIX):  # as if it had been installed there
        sh(f"ln -sfn {prefix}/bin/mcp-broker {link}")
        said = sh(f"apt-get install --yes {host.PACKAGE}", status=100)
        assert f"first: sudo {prefix}/share/install uninstall" in said, said
    assert main_pid() == before
    assert "mcp-shared-broker" not in sh("dpkg-query --show", status=None)


def uninstall_keeps_what_is_yours() -> None:
    """`make uninstall`, here without the checkout: all is gone but the config, and it says so."""
    said = sh(f"{PREFIX}/share/install uninstall")
    assert "/etc/mcp-broker" in said, said
    assert CONFIG.exists()
    assert main_pid() == 0
    assert processes_of("mcp-broker") == []
    gone = [
        PREFIX,
        Path("/usr/local/bin/mcp-broker"),
        Path("/run/mcp-broker"),
        *LIBRARIES[1].glob("*/mcp-broker*"),
    ]
    gone += [*Path("/etc/systemd/system").glob("*.wants/mcp-broker*")]
    assert not [path for path in gone if path.is_symlink() or path.exists()]


def purge_leaves_nothing() -> None:
    """`make purge` removes config, state and user too, and a second one finds nothing to do."""
    sh(f"make -C {ROOT} purge")
    sh(f"make -C {ROOT} purge")
    assert not CONFIG.parent.exists()
    assert not Path("/var/lib/mcp-broker").exists()
    assert sh("getent passwd mcp-broker; getent group mcp-broker mcp-broker-config", status=2) == ""


CHECKS = (
    install_says_what_a_backend_has_to_do,
    it_has_started_and_says_how_its_servers_are,
    six_servers_run_as_the_services_own_user,
    the_files_of_make_install_are_roots,
    to_install_again_is_to_upgrade,
    what_was_stopped_on_purpose_stays_so_over_an_upgrade,
    the_package_is_refused_beside_it,
    uninstall_keeps_what_is_yours,
    purge_leaves_nothing,
)
