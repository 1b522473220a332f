"""The files of examples/kubernetes: valid, restricted, in agreement with each other and with the image."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import tomli
import yaml
from click.testing import CliRunner

from broker.command.cli import cli
from broker.config.loading import load
from broker.gateway.settings import parse
from tests.docker import dockerfile

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "examples/kubernetes").glob("*.yaml"))
VERSIONS = ("1.29", "1.33", kubernetes_validate.latest_version())
"""The first version with native sidecars by default, that in which they are stable, and the newest."""

STAGE = dockerfile.read(ROOT / "Dockerfile")[-1]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]

every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def documents(file: Path) -> dict[str, dict[str, Any]]:
    """Return the documents of a file by their kinds."""
    return {one["kind"]: one for one in yaml.safe_load_all(file.read_text(encoding="utf-8"))}


def spec_of(file: Path) -> dict[str, Any]:
    """Return the pod of the Deployment."""
    spec: dict[str, Any] = documents(file)["Deployment"]["spec"]["template"]["spec"]
    return spec


def containers(file: Path) -> dict[str, dict[str, Any]]:
    """Return all containers of the pod by their names."""
    spec = spec_of(file)
    return {one["name"]: one for one in spec["initContainers"] + spec["containers"]}


@every_file
@pytest.mark.parametrize("version", VERSIONS)
def test_every_document_is_valid(file: Path, version: str) -> None:
    """By the schemas of Kubernetes, in which no unknown key is allowed."""
    for document in documents(file).values():
        kubernetes_validate.validate(document, version, strict=True)


def test_a_mistake_is_found() -> None:
    """The validator bites: a misspelt key, and a value of another type."""
    good = documents(FILES[0])["Deployment"]
    for key, value in (("restartPolicie", "Always"), ("livenessProbe", {"periodSeconds": "often"})):
        broken = copy.deepcopy(good)
        broken["spec"]["template"]["spec"]["initContainers"][1][key] = value
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


@every_file
def test_the_pod_is_restricted(file: Path) -> None:
    """The Pod Security Standard `restricted`, a root that cannot be written to, and limits of memory."""
    spec = spec_of(file)
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert {key for volume in spec["volumes"] for key in volume} <= {
        "name",
        "emptyDir",
        "configMap",
        "secret",
    }
    for container in containers(file).values():
        context = {**spec["securityContext"], **container["securityContext"]}
        assert context["runAsUser"] > 0
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert "memory" in container["resources"]["limits"]


@every_file
def test_the_broker_is_a_native_sidecar(file: Path) -> None:
    """It is up before what uses it, healthy by the broker alone, restarted, and has time for its end."""
    spec = spec_of(file)
    assert [one["name"] for one in spec["initContainers"]] == ["folders", "mcp-broker"]
    broker = containers(file)["mcp-broker"]
    assert broker["restartPolicy"] == "Always"
    check = dockerfile.only(STAGE, "HEALTHCHECK").command
    for probe in (broker["startupProbe"], broker["livenessProbe"]):
        assert probe["exec"]["command"] == check
        assert probe["timeoutSeconds"] <= probe["failureThreshold"] * probe["periodSeconds"]
    assert CliRunner().invoke(cli, [*check[1:], "--help"]).exit_code == 0
    config = load(tomli.loads(documents(file)["ConfigMap"]["data"]["broker.toml"]), {})
    stop_s = max(server.timeout_stop_sec for server in config.servers.values())
    assert spec["terminationGracePeriodSeconds"] > config.limits.drain_sec + 2 * stop_s + 5


@every_file
def test_it_is_the_image_with_its_user_and_its_folders(file: Path) -> None:
    """User and group of the Dockerfile; the folders that compose.yaml mounts, each made before."""
    spec, arguments = spec_of(file), dockerfile.arguments(STAGE)
    broker = containers(file)["mcp-broker"]
    context = {**spec["securityContext"], **broker["securityContext"]}
    assert [context["runAsUser"], context["runAsGroup"]] == [int(arguments["UID"]), int(arguments["GID"])]
    assert broker["image"] == COMPOSE["mcp-broker"]["image"]
    mounts = {one["mountPath"]: one for one in broker["volumeMounts"]}
    composed = {volume.split(":")[1] for volume in COMPOSE["mcp-broker"]["volumes"]}
    assert mounts.keys() - {"/tmp"} == composed - {"/srv/mcp"}
    assert mounts["/etc/mcp-broker"]["readOnly"]
    assert all("subPath" in one for path, one in mounts.items() if path != "/etc/mcp-broker")
    names = {volume["name"] for volume in spec["volumes"]}
    used = {mount["name"] for one in containers(file).values() for mount in one["volumeMounts"]}
    assert used == names
    (made,) = containers(file)["folders"]["args"]
    assert all(f"/volume/{one['subPath']}" in made for one in mounts.values() if "subPath" in one)


def test_the_backend_has_what_it_needs() -> None:
    """Another user, in the group of the socket; the folder, read-only; the address of the image."""
    spec, backend = spec_of(ROOT / "examples/kubernetes/backend.yaml"), None
    (backend,) = spec["containers"]
    assert str(backend["securityContext"]["runAsUser"]) != dockerfile.arguments(STAGE)["UID"]
    assert spec["securityContext"]["supplementalGroups"] == [int(dockerfile.arguments(STAGE)["GID"])]
    (mount,) = backend["volumeMounts"]
    assert (mount["mountPath"], mount["readOnly"]) == ("/run/mcp-broker", True)
    assert backend["env"] == [
        {"name": "MCP_BROKER_ENDPOINT", "value": dockerfile.variables(STAGE)["MCP_BROKER_ENDPOINT"]}
    ]
    assert backend["image"] == COMPOSE["backend"]["image"]


def test_the_gateway_is_reached_by_its_service_and_has_its_secrets() -> None:
    """The Service finds the pod and its port; the settings know its names; no token is in the file."""
    file = ROOT / "examples/kubernetes/gateway.yaml"
    found = documents(file)
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert (
        found["Service"]["spec"]["selector"]
        == labels
        == found["Deployment"]["spec"]["selector"]["matchLabels"]
    )
    gateway = containers(file)["gateway"]
    settings = parse(found["ConfigMap"]["data"]["gateway.toml"])
    ((port,), (exposed,)) = gateway["ports"], found["Service"]["spec"]["ports"]
    assert exposed["targetPort"] == port["name"]
    assert settings.gateway.listen == (f"0.0.0.0:{port['containerPort']}",)
    assert settings.gateway.token
    name = found["Service"]["metadata"]["name"]
    assert {name, f"{name}.default.svc.cluster.local"} <= {*settings.gateway.hosts}
    assert gateway["args"][-1] == "/etc/mcp-broker/gateway.toml"
    assert "Secret" not in found, "the token of an example would be that of everybody who applies it"
    (secret,) = [volume["secret"] for volume in spec_of(file)["volumes"] if "secret" in volume]
    text = file.read_text(encoding="utf-8")
    assert f"kubectl create secret generic {secret['secretName']} --from-literal=token=" in text
    for probe in ("readinessProbe", "livenessProbe"):
        assert gateway[probe]["httpGet"]["httpHeaders"] == [{"name": "Host", "value": "localhost"}]
