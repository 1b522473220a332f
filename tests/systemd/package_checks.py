"""Checks of the Debian package: installed, upgraded, taken back, removed and purged.

All other checks run between them. Where it cannot be built, `make install` installs the broker for these.
"""

from __future__ import annotations

from pathlib import Path

from tests.systemd import host
from tests.systemd.host import (
    CONFIG,
    LIBRARIES,
    PREFIX,
    ROGUE,
    ROOT,
    Skipped,
    configure,
    journal,
    last_words,
    main_pid,
    processes_of,
    server_pids,
    sh,
    show,
    status,
    until,
    until_ready,
)
from tests.systemd.life_checks import while_they_call
from tests.systemd.place_checks import clients_may_not_read, give_to_clients

NAME = "mcp-shared-broker"
NEWER = Path("/opt/newer.deb")


def package() -> str:
    """Return the path of the package; skip the check where it cannot be built."""
    if not host.PACKAGE:
        raise Skipped(host.NO_PACKAGE)
    return host.PACKAGE


def apt(arguments: str, *, language: str = "en", status: int = 0) -> str:
    """What apt says; it asks nothing."""
    return sh(
        f"DEBIAN_FRONTEND=noninteractive apt-get {arguments} --yes",
        env=f"MCP_BROKER_LANG={language}",
        status=status,
    )


def version() -> str:
    """The installed version; nothing where the package is not installed."""
    return sh(
        f"dpkg-query --show --showformat='${{db:Status-Status}} ${{Version}}' {NAME}", status=None
    ).strip()


def apt_installs_it_for_who_has_no_checkout() -> None:
    """`apt install ./mcp-shared-broker_*.deb`: it runs, with no server, and says what to do next."""
    sh("rm -f /usr/sbin/policy-rc.d")  # of an image for containers: no service may start there
    if not host.PACKAGE:
        sh(f"make -C {ROOT} install WHEELS={host.WHEELS}")
    said = apt(f"install {package()}")
    assert "sudo usermod -aG mcp-broker USER" in said, said
    assert "No server runs yet" in said, said
    assert show("ActiveState") == show("ActiveState", "mcp-broker.socket") == "active"
    assert show("UnitFileState") == show("UnitFileState", "mcp-broker.socket") == "enabled"
    assert sh("command -v mcp-broker").strip() == "/usr/bin/mcp-broker"


def a_first_install_runs_no_server() -> None:
    """Nobody has asked for one: the config has one, which is not enabled."""
    package()
    assert [row["state"] for row in status()["servers"]] == ["disabled"]
    assert processes_of("mcp-broker") == [main_pid()]
    assert "time: disabled" in sh("mcp-broker check --service")


def make_install_is_refused_beside_it() -> None:
    """The files are the package manager's."""
    package()
    said = sh(f"make -C {ROOT} install WHEELS={host.WHEELS}", env="MCP_BROKER_LANG=en", status=2)
    assert f"first: apt remove {NAME}" in said, said


def a_backend_s_servers_are_imported_as_it_says() -> None:
    """The other line that it prints: the package's config is replaced; owner and mode are kept."""
    package()
    Path("/root/mcp_servers.json").write_text(
        '{"mcp_servers": {"mine": {"command": "true"}}}', encoding="utf-8"
    )
    sh("mcp-broker import /root/mcp_servers.json --service")
    assert "mine" in sh("mcp-broker check --service", status=None)
    assert sh(f"stat -c '%a %U:%G' {CONFIG}").strip() == "640 root:mcp-broker-config"


def its_examples_run_as_it_says() -> None:
    """The line that it prints at the end: six servers, and the doctor finds nothing."""
    if host.PACKAGE:
        sh(f"cp {PREFIX}/share/examples/broker.toml {CONFIG} && systemctl restart mcp-broker")
    until_ready()
    assert len(server_pids()) == 6
    assert "6" in sh("mcp-broker status")
    sh("mcp-broker doctor --cycles 2")


def it_changes_no_file_of_the_package() -> None:
    """After all that the other checks have done; `dpkg --verify` compares the sums."""
    package()
    assert sh(f"dpkg --verify {NAME}") == ""


def an_upgrade_restarts_it_once_and_fails_no_call() -> None:
    """A newer package under eight callers: the config is kept, no call fails, and none is lost."""
    make_newer(package())
    configure({"fine": ROGUE, "other": ROGUE})
    sh("systemctl restart mcp-broker")
    until_ready()
    CONFIG.write_text("# mine\n" + CONFIG.read_text(encoding="utf-8"), encoding="utf-8")
    give_to_clients()
    whole, starts = CONFIG.read_text(encoding="utf-8"), journal().count("broker.listening")
    while_they_call(lambda: apt(f"install {NEWER}", language="zh"), in_order=True)
    assert version() == "installed 9.9"
    assert journal().count("broker.listening") == starts + 1, last_words()
    assert CONFIG.read_text(encoding="utf-8") == whole
    clients_may_not_read()


def make_newer(package: str) -> None:
    """Make a package with the same files and a higher version."""
    folder = NEWER.with_suffix("")
    sh(f"dpkg-deb --raw-extract {package} {folder}")
    sh(f"sed -i 's/^Version: .*/Version: 9.9/' {folder}/DEBIAN/control")
    sh(f"dpkg-deb --build -Znone {folder} {NEWER} && rm -r {folder}")


def an_older_package_can_be_installed_again() -> None:
    """A rollback; and what was stopped and disabled on purpose stays so."""
    sh("systemctl disable --now mcp-broker.service mcp-broker.socket")
    apt(f"install --allow-downgrades {package()}")
    assert version() != "installed 9.9"
    assert (show("ActiveState"), show("UnitFileState")) == ("inactive", "disabled")
    assert CONFIG.read_text(encoding="utf-8").startswith("# mine\n")
    sh("systemctl enable --now mcp-broker.socket mcp-broker.service")
    until_ready()


def an_upgrade_over_a_refused_config_ends_well() -> None:
    """The package is installed and says what is wrong; the service fails, as at any restart."""
    package()
    whole = CONFIG.read_text(encoding="utf-8")
    CONFIG.write_text(whole.replace("command =", "comand =", 1), encoding="utf-8")
    said = apt(f"install {NEWER}")
    assert version() == "installed 9.9"
    assert "there is no such key; did you mean command?" in said, said
    assert show("ActiveState") == "failed"
    CONFIG.write_text(whole, encoding="utf-8")
    sh("systemctl start mcp-broker")
    until_ready()


def a_removal_keeps_what_is_yours() -> None:
    """`apt remove`: the service is stopped; config and state are kept."""
    package()
    apt(f"remove {NAME}")
    assert version().startswith("config-files"), version()
    assert processes_of("mcp-broker") == []
    gone = [PREFIX / "bin", Path("/usr/bin/mcp-broker"), Path("/run/mcp-broker")]
    assert not [path for path in gone if path.is_symlink() or path.exists()]
    assert CONFIG.read_text(encoding="utf-8").startswith("# mine\n")
    assert Path("/var/lib/mcp-broker").is_dir()


def a_purge_spares_what_make_install_has_made_since() -> None:
    """`apt purge` long after `apt remove` and `make install`: the new installation keeps all that it has."""
    package()
    unit, links = LIBRARIES[1] / "system", sorted(Path("/etc/systemd/system").glob("*.wants/mcp-broker*"))
    assert len(links) == 2
    sh(f"mkdir -p {PREFIX} {unit} && touch {PREFIX}/pyvenv.cfg {unit}/mcp-broker.service")
    said = apt(f"purge {NAME}")
    assert "installed by make install since" in said, said
    assert "config-files" not in version()
    kept = [PREFIX / "pyvenv.cfg", CONFIG, Path("/var/lib/mcp-broker"), *links]
    assert [path for path in kept if not (path.is_symlink() or path.exists())] == []
    assert sh("getent passwd mcp-broker mcp-broker-gateway").count("\n") == 2
    sh(f"rm {PREFIX}/pyvenv.cfg {unit}/mcp-broker.service")


def installed_again_it_runs_as_before() -> None:
    """The config that a removal has kept, or a backup: there with the numbers of another host's groups."""
    sh(f"chown -R 4242:4243 {CONFIG.parent}")
    apt(f"install {package()}")
    until(main_pid, last_words)
    until_ready()
    clients_may_not_read()
    assert sh(f"find {CONFIG.parent} ! -user root -o -group 4243") == ""
    assert CONFIG.read_text(encoding="utf-8").startswith("# mine\n")


def a_purge_leaves_nothing() -> None:
    """`apt purge`: config, state, users and the links in /etc are gone too."""
    package()
    apt(f"purge {NAME}")
    assert sh("pgrep -f '[/]opt/mcp-broker/bin'", status=1) == ""
    assert "installed" not in version()
    gone = [PREFIX, CONFIG.parent, *Path("/var/lib").glob("mcp-broker*"), *Path("/run").glob("mcp-broker*")]
    gone += [*Path("/etc/systemd/system").glob("*.wants/mcp-broker*")]
    gone += [*Path("/var/lib/systemd").glob("deb-systemd-helper-*/**/mcp-broker*")]
    assert not [path for path in gone if path.is_symlink() or path.exists()]
    assert (
        sh("getent passwd mcp-broker mcp-broker-gateway; getent group mcp-broker mcp-broker-config", status=2)
        == ""
    )


FIRST = (
    apt_installs_it_for_who_has_no_checkout,
    a_first_install_runs_no_server,
    make_install_is_refused_beside_it,
    a_backend_s_servers_are_imported_as_it_says,
    its_examples_run_as_it_says,
)
LAST = (
    it_changes_no_file_of_the_package,
    an_upgrade_restarts_it_once_and_fails_no_call,
    an_older_package_can_be_installed_again,
    an_upgrade_over_a_refused_config_ends_well,
    a_removal_keeps_what_is_yours,
    a_purge_spares_what_make_install_has_made_since,
    installed_again_it_runs_as_before,
    a_purge_leaves_nothing,
)
