"""The environment of a server, and the secrets in it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping

from broker.base.secrets import Mask, Secrets, is_secret, is_word, secrets_among
from broker.config.schema import ServerConfig

INHERITED = (
    *("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER"),  # what the MCP SDK passes on
    *("LANG", "LANGUAGE", "LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_MESSAGES", "LC_MONETARY", "LC_NUMERIC"),
    *("LC_TIME", "TZ", "TMPDIR"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_CACHE_DIR", "PIP_CONFIG_FILE"),
    *("PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CERT"),
    *("UV_INDEX", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_CACHE_DIR", "UV_TOOL_DIR"),
    *("UV_PYTHON_INSTALL_DIR", "UV_PYTHON_INSTALL_MIRROR", "UV_PYTHON_PREFERENCE", "UV_NATIVE_TLS"),
    *("UV_OFFLINE", "UV_HTTP_TIMEOUT", "UV_CONFIG_FILE", "UV_FIND_LINKS", "UV_INDEX_STRATEGY"),
    *("UV_INSECURE_HOST", "UV_PYTHON_DOWNLOADS"),
    *("NPM_CONFIG_REGISTRY", "npm_config_registry", "NPM_CONFIG_CACHE", "npm_config_cache"),
    *("NPM_CONFIG_USERCONFIG", "npm_config_userconfig", "NPM_CONFIG_OFFLINE", "npm_config_offline"),
    *("NPM_CONFIG_CAFILE", "npm_config_cafile", "NPM_CONFIG_STRICT_SSL", "npm_config_strict_ssl"),
    *("NPM_CONFIG_PROXY", "npm_config_proxy", "NPM_CONFIG_HTTPS_PROXY", "npm_config_https_proxy"),
    *("COREPACK_NPM_REGISTRY", "YARN_NPM_REGISTRY_SERVER"),
    *("GOPROXY", "HF_ENDPOINT", "PLAYWRIGHT_BROWSERS_PATH", "PLAYWRIGHT_DOWNLOAD_HOST"),
    *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"),
    *("CONTAINER_HOST",),  # podman
)
"""Variables of the broker that every server inherits, named in `env_inherit` or not: in them `uvx`, `npx` and
`docker` find their caches, mirrors, proxies, certificates and engine."""


PR_SET_DUMPABLE = 4  # <linux/prctl.h>
DUMPABLE = "MCP_BROKER_DUMPABLE"
"""If this variable is 1, other processes of the broker's user may inspect the broker, with a debugger say."""


def hide_from_servers(environ: Mapping[str, str]) -> bool:
    """Close /proc/PID of this process to other processes of its user. Return whether that was done.

    The servers run as the same user, and the broker's environment has the secrets of all of them. This closes
    `environ`, `mem`, `fd`, `maps`, `cwd` and ptrace(2) (proc(5), "PR_SET_DUMPABLE"). The servers themselves
    are not affected: execve(2) resets the attribute.
    """
    if environ.get(DUMPABLE) == "1":
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)


def environment(config: ServerConfig, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a server: the inherited ones, those in `env_inherit`, and `env`.

    Args:
        environ: the broker's own environment.
    """
    # Shell functions are left out, as in the MCP SDK.
    plain = {name: value for name, value in common(environ).items() if not value.startswith("()")}
    named = {name: environ[name] for name in config.env_inherit if name in environ}
    return {**plain, **named, **config.env}


def common(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that every server inherits."""
    return {name: environ[name] for name in INHERITED if name in environ}


def secrets_of(config: ServerConfig, environ: Mapping[str, str]) -> list[str]:
    """Return the secrets in the environment and the arguments of a server.

    The value of a variable that `env` was filled from is a secret. Exceptions are the variables that every
    server inherits, and one plain word under a name that tells of no secret, such as ``CITY = "${CITY}"``.
    """
    mine = environment(config, environ).items()
    named = [value for name, value in mine if is_secret(name, value)]
    filled = [environ.get(name, "") for name in config.variables if name not in INHERITED]
    unnamed = [value for value in filled if not is_word(value)]
    said = [*config.args, *(value for _, value in mine)]
    return [*named, *unnamed, *secrets_among(said)]


def mask_of(configs: Iterable[ServerConfig], environ: Mapping[str, str]) -> Secrets:
    """Return the mask for the secrets of these servers."""
    mask = Secrets()
    for config in configs:
        mask.put(config.name, secrets_of(config, environ))
    return mask


def mask(config: ServerConfig, environ: Mapping[str, str]) -> Mask:
    """Return the mask for the secrets of one server."""
    return Mask(secrets_of(config, environ))
