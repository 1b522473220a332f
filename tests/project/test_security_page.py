"""docs/security.md: every line of its threat tables has a test, and that test exists."""

from __future__ import annotations

import ast

import pytest

from docs.blocks.markdown import TEXTS
from tests.e2e.harness import ROOT

THREATS = [(who, name) for who, threats in TEXTS["security"].items() for name in threats]


@pytest.mark.parametrize(("who", "name"), THREATS)
def test_the_test_behind_a_threat_exists(who: str, name: str) -> None:
    """A renamed test would else leave a threat without one, and the page would not say so."""
    file, _, inside = TEXTS["security"][who][name]["test"].partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    asynchronous = {node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef)}
    assert inside in defined | asynchronous
