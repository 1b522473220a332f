"""The variables of an import: one variable never stands for two secrets, whatever is there already."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from broker.base.secrets import PLACEHOLDER
from broker.command.importing.secrets import Variables, env_of, replace_secrets, variables_for

KEYS = ("API_KEY", "TOKEN")
VALUES = ("secret-one", "secret-two", "secret-three")
VARIABLES = ("API_KEY", "A_API_KEY", "TOKEN", "SHARED")

Envs = dict[str, dict[str, str]]
Tables = dict[str, dict[str, object]]
servers = st.sampled_from("abc")
secrets = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), min_size=1)
placeholders = st.dictionaries(st.sampled_from(KEYS), st.sampled_from([f"${{{name}}}" for name in VARIABLES]))


@example(
    {"a": {"API_KEY": "secret-two"}, "b": {"API_KEY": "secret-one"}},
    {"a": {"API_KEY": "${API_KEY}"}, "b": {"API_KEY": "${API_KEY}"}},
    {"API_KEY": "secret-one"},
)
@given(
    st.dictionaries(servers, secrets),
    st.dictionaries(servers, placeholders),
    st.dictionaries(st.sampled_from(VARIABLES), st.sampled_from(VALUES)),
)
def test_every_server_gets_its_secret_or_is_told(
    imported: Envs, existing: Envs, known: dict[str, str]
) -> None:
    """After the import a variable has the value that the file has for the server. Where it keeps another one,
    that is told, and no server of the config wants the old one.
    """
    tables: Tables = {name: {"command": "x", "env": env} for name, env in imported.items()}
    values = replace_secrets(tables.items(), {name: {"env": env} for name, env in existing.items()}, known)
    found = variables_for(tables, values, known)
    after = {**found.new, **known}
    chosen = {**existing, **{name: env_of(table) for name, table in tables.items()}}
    for server, env in imported.items():
        for key, secret in env.items():
            variable = env_of(tables[server])[key][2:-1]
            if after[variable] == secret:
                continue
            assert variable in found.changed
            assert {
                imported.get(user, {}).get(used)
                for user, its in chosen.items()
                for used, value in its.items()
                if variable in PLACEHOLDER.findall(value)
            } == {secret}


@given(
    st.dictionaries(servers, secrets), st.dictionaries(st.sampled_from(VARIABLES), st.sampled_from(VALUES))
)
def test_a_second_import_changes_nothing(imported: Envs, known: dict[str, str]) -> None:
    """With the config and the variables of the first one, every secret has its variable already."""

    def replaced(existing: Tables, set_already: dict[str, str]) -> tuple[Tables, Variables]:
        tables: Tables = {name: {"env": {**env}} for name, env in imported.items()}
        values = replace_secrets(tables.items(), existing, set_already)
        return tables, variables_for(tables, values, set_already)

    tables, first = replaced({}, known)
    again, second = replaced(tables, {**known, **first.new})
    assert again == tables
    assert (second.new, second.changed, second.missing) == ({}, [], [])
