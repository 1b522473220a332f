"""Plain technical English: phrases that hide the actor or the term are not written here.

Each phrase has a plainer one; the sentence that needs the phrase lacks a subject or a term of the field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli

ROOT = Path(__file__).parents[2]

READ = """
README.md CHANGELOG.md Makefile Dockerfile broker.toml compose.yaml pyproject.toml .ci
benchmarks broker client_shim docs examples systemd tests
"""
"""The files and folders that are read."""

KINDS = {".py", ".md", ".toml", ".service", ".socket", ".yaml", ".yml", ""}

ITSELF = Path(__file__)

BANNED = {
    "what becomes of": "say what happens: how it ends, which … it has",
    "is none": "is not a …",
    "none of the protocol": "malformed, unknown",
    "in vain": "will not help",
    "is to be": "must be, or name who does it",
    "of such": "of this, of these",
    "such that … not": "so that",
    "who is … is": "name the actor",
    "whose is": "which … owns, belongs to",
    "has it so": "say it",
    "come to nothing": "has no effect, fails",
    "comes to nothing": "has no effect, fails",
    "see to": "handle, make",
    "sees to": "handles, makes",
    "at the longest": "at most",
    "for good": "permanently",
    "all the same": "nevertheless, still",
    "in what way": "how",
}
"""phrase → what to write instead; `…` stands for some words of the sentence"""


def pattern_of(phrase: str) -> re.Pattern[str]:
    """Return the pattern of a phrase, which may begin a sentence, and be broken over lines of a comment."""
    words = [r"[^.]{1,60}?" if word == "…" else re.escape(word) for word in phrase.split()]
    first = f"[{words[0][0]}{words[0][0].upper()}]{words[0][1:]}"
    gap = r"(?:[^\S\n]+|[^\S\n]*\n[^\S\n]*#?[^\S\n]*)"
    return re.compile(rf"\b{gap.join([first, *words[1:]])}\b")


NUMBERED = "issue N"
"""A reader of this repository cannot look such a number up."""

PATTERNS = {phrase: pattern_of(phrase) for phrase in BANNED} | {NUMBERED: re.compile(r"\b[Ii]ssues? #?\d")}

BANNED[NUMBERED] = "say what the test or the line guards"


def found_in(text: str) -> Iterator[tuple[int, str]]:
    """Return the line and the phrase of each banned phrase in a text."""
    for phrase, pattern in PATTERNS.items():
        for match in pattern.finditer(text):
            yield text.count("\n", 0, match.start()) + 1, phrase


def files(names: list[str], kinds: set[str]) -> Iterator[Path]:
    """Return the files of these names and folders, without what is generated or installed."""
    for name in names:
        path = ROOT / name
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            parts = set(file.relative_to(ROOT).parts)
            installed = parts & {"node_modules", "__pycache__", "out"} or any(p[:5] == ".venv" for p in parts)
            if file.is_file() and not installed and file.suffix in kinds:
                yield file


def written(file: Path) -> str:
    """Return what a person wrote in a file: in the blocks of a page is what another file says."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".md":
        return text
    blank = lambda block: "\n" * block[0].count("\n")  # noqa: E731
    return re.sub(r"<!-- generated:.*?<!-- /generated -->", blank, text, flags=re.DOTALL)


FILES = [file for file in files(READ.split(), KINDS) if file != ITSELF and ".zh-CN." not in file.name]

HAN = re.compile(r"[\u4e00-\u9fff]")
GLOSSARY = ROOT / "docs/glossary.toml"

CHINESE = [
    file
    for file in files(["README.zh-CN.md", *READ.replace("tests", "").split()], {*KINDS, ".json", ".html"})
    if file != GLOSSARY and HAN.search(file.read_text(encoding="utf-8"))
]
"""The files with words in Chinese that people read: pages, texts of the commands, examples, units, make"""

TERMS = tomli.loads(GLOSSARY.read_text(encoding="utf-8"))["terms"]

UNFIT = {word: term["zh"] for term in TERMS for word in term.get("not", [])}
"""a word that Chinese text does not have → the word that it has for that thing"""


def has(line: str, word: str) -> bool:
    """Return whether a line has a word; an English one counts between Chinese, not in an English sentence."""
    if not word.isascii():
        return word in line
    return bool(re.search(rf"(?<![A-Za-z0-9.,_-])(?<![A-Za-z0-9.,] ){word}(?! [A-Za-z(])(?![A-Za-z_])", line))


def chinese_in(text: str) -> Iterator[tuple[int, str]]:
    """Return the number and the prose of each line with Chinese, without code and links."""
    blank = lambda fence: "\n" * fence[0].count("\n")  # noqa: E731
    prose = re.sub(r"^```.*?^```", blank, text, flags=re.DOTALL | re.MULTILINE)
    for number, line in enumerate(prose.splitlines(), 1):
        if HAN.search(line):
            yield number, re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)


def test_everything_is_read() -> None:
    """A name in the list that no file has would guard nothing."""
    assert [name for name in READ.split() if not (ROOT / name).exists()] == []
    assert len(FILES) > 50
    read = {str(file.relative_to(ROOT)) for file in CHINESE}
    assert {
        "README.zh-CN.md",
        "Makefile",
        "broker.toml",
        "broker/command/texts/words.py",
        "docs/texts.toml",
    } <= read


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_banned_phrase_is_written(file: Path) -> None:
    """In docstrings, comments, messages and pages alike."""
    found = [
        f"{file.relative_to(ROOT)}:{line}: {phrase!r}: {BANNED[phrase]}"
        for line, phrase in found_in(written(file))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("停止 socket 之后", True),
        ("套接字，socket。", True),
        ("# the socket again", False),
        ("mcp-broker.socket 单元", False),
    ],
)
def test_an_english_word_in_chinese_is_seen(line: str, found: bool) -> None:
    """English on the same line, or a name, is no Chinese."""
    assert has(line, "socket") is found


@pytest.mark.parametrize("file", CHINESE, ids=lambda file: str(file.relative_to(ROOT)))
def test_chinese_text_has_one_word_for_one_thing(file: Path) -> None:
    """The words of docs/glossary.toml, and none of those that it rules out."""
    lines = chinese_in(file.read_text(encoding="utf-8"))
    found = [
        f"{file.relative_to(ROOT)}:{number}: {word}: {UNFIT[word]}"
        for number, line in lines
        for word in UNFIT
        if has(line, word)
    ]
    assert not found, "\n".join(found)


PAGES = [file for file in CHINESE if ".zh-CN." in file.name]

TYPOGRAPHY = {
    re.compile(r"[\u4e00-\u9fff]\x60*[,;:?!](?!\S)|[\u4e00-\u9fff]\(|\)[\u4e00-\u9fff]"): "full-width marks",
    re.compile(r"[\u4e00-\u9fff][A-Za-z0-9\x60]|[A-Za-z0-9\x60][\u4e00-\u9fff]"): "a space at Latin and code",
    re.compile(
        r"[\u4e00-\u9fff] [\u4e00-\u9fff]|[，。；：、！？] (?!\|)|[^|\s] [，。；：、！？]"
    ): "no space",
}
"""Pattern → what Chinese has there."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_chinese_page_is_set_as_chinese_is(page: Path) -> None:
    """Between Chinese and Latin stands a space, and Chinese has its own punctuation."""
    blank = lambda fence: "\n" * fence[0].count("\n")  # noqa: E731
    prose = re.sub(r"^```.*?^```", blank, page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = [
        f"{page.name}:{number}: {rule}: {line[max(0, match.start() - 9) : match.end() + 9]}"
        for number, text in enumerate(prose.splitlines(), 1)
        for line in [re.sub(r"`[^`]*`", "`x`", re.sub(r"\]\([^)]*\)", "]", text)).strip("| ")]
        for pattern, rule in TYPOGRAPHY.items()
        for match in pattern.finditer(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("What becomes of it.", ["what becomes of"]),
        ("# a line that\n    # is none of ours", ["is none"]),
        ('"""It sees\n    to it."""', ["sees to"]),
        ("if x is None: see_to(x)", []),
        ("a time such that the server does\n# not end", ["such that … not"]),
        ("who is refused is told", ["who is … is"]),
    ],
)
def test_a_phrase_is_seen(text: str, phrases: list[str]) -> None:
    """At the start of a sentence, over two lines; and code is no prose."""
    assert [phrase for _, phrase in found_in(text)] == phrases
