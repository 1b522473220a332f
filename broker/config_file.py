"""Reading `broker.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tomli

from broker.core.config import Config, ConfigError, Problem, load


def read(path: Path, environ: Mapping[str, str]) -> Config:
    """The configuration in a file.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has mistakes; all of them at once.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        mend = "name another file with --config, or create it; `make run` has an example"
        raise ConfigError([Problem(str(path), error.strerror or str(error), mend)]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(str(path), f"not UTF-8: {error.reason}", "save it as UTF-8")]) from None
    try:
        return load(tomli.loads(text), environ)
    except tomli.TOMLDecodeError as error:
        raise ConfigError([Problem(str(path), f"not TOML: {error}", "correct this line first")]) from None
