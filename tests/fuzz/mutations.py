"""YAML files spoilt as people, editors and strangers spoil them: by bytes, by tokens, and by what stands in them."""

import copy
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import yaml
from hypothesis import strategies as st

from orchestrator.documents.writing import to_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, after in zip("abcdefg", "bcdefgh", strict=True)
)
"""Ten million values in eight lines."""

TOKENS = [
    '"', "'", ": ", "- ", "\n- ", "? ", "\t", "\n\t", "{", "}", "[", "]", ",", "#", " #", "&a ", "*a", "&a [*a]",
    "<<: *a", "\n<<: ", "<<: {", "!!int ", "!!str ", "!!float ", "!!bool ", "!!null ", "!!set ", "!!binary ",
    "!!timestamp ", "! ", "!x ", "!!map ", "!!python/object/apply:os.system [id]", "%YAML 1.1\n", "%TAG ! x\n",
    "\n---\n", "\n...\n", "|", ">", "|2\n", ">-\n  ", "@", "`", "\\", '"\\x4', '"\\u12"', '"\\UFFFFFFFF"',
    '"\\ud800"', '"\\0"', "\x00", "\x07", "\x1b[31m", "\x7f", "\x85", "\u2028", "\ufeff", "\u202e", "\u00a0",
    "\u3000", "\uff11", "\u0661", "\U0001f600", "\uffff", "\r", "\r\n", "no", "yes", "off", "~", "null", "true",
    "2001-02-30", "2001-01-01T00:00:00Z", "1:30", "190:20:30", "010", "0o8", "0x", "0b1", "1_000", "1e999",
    "-1e999", "1e-400", ".inf", "-.inf", ".nan", "-0", "-1", "+", "-", "=", "9" * 50, "9" * 5000, "-" + "9" * 30,
    "1e" + "9" * 400, "[" * 40, "[" * 2000, "{" * 2000, "- " * 500, "x" * 70_000, "\n" * 50, "  ", "    ", BOMB,
    f"\n{BOMB}seeds: *h\n", "\ngrid: *a\n", "${HOME}", "$(id)", "{text}", "{mask}", "../..", "~nosuchuser/x",
    "/dev/zero", "/" * 5000,
]  # fmt: skip

BYTES = [b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc3", b"\xff", b"\xf4\x90\x80\x80", b"\0"]

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 10**4, 10**9, 10**9 + 1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30,
    10**39, 0.5, -0.5, 1.5, 1e-320, 1e-100, 1e100, 1e308, float("inf"), float("-inf"), float("nan"), "", " ", "x",
    "0", "1", "-1", "1e3", "64GB", "0B", "1e9GB", "-5GB", "9" * 40 + "GB", "4h", "1-00:00:00", "0:0:1",
    "9" * 20 + "d", "auto", "null", "no", "none", "all_layers", "each_layer", "pairs", "ray", "cuda", "sgd",
    "ridge", "label_words", "products", "lora", "regression", "margin", "cross_entropy", "spd", "a" * 300,
    "a/" * 3000, "~nosuchuser", "\n", "\x1b[31m", "{text} {mask}", "{mask}{mask}", "\U0001f600", "é", "[a]",
    "[/INST]", [], [[]], [[[]]], {}, [None], [0], [1, 1], [1, "x"], list(range(200)), [2**63], [1e400],
    ["x"] * 5000, {"x": 1}, {"x": {"y": {"z": []}}}, {"subsets": 1000}, {"subsets": 0}, {"layers": [[0]]},
    {"layers": [[10**4]]}, {"groups": [["0.query"]]}, {"groups": []}, {"values": [1e-9]},
    {"logspace": {"start": 1e-9, "stop": 1e9, "count": 10_000}},
    {"logspace": {"start": 1, "stop": 1, "count": 10**8}}, {"movies": {}},
    {"movies": {"data": "data.parquet"}, "no": {}}, {"kind": "label_words", "words": ["a"], "in_kernel": False},
    ["sbatch", "--wrap"], ["a; rm -r ~"], "a && b", 'a "b',
]  # fmt: skip

Place = tuple[str | int, ...]


def places(tree: Any, at: Place = ()) -> Iterator[Place]:
    """Yield where something stands in a tree, the root first."""
    yield at
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield from places(value, (*at, key))


def misspelled(key: str, how: int) -> str:
    position = how % len(key)
    return [
        key[:position] + key[position + 1 :],
        key[:position] + key[position] + key[position:],
        key.upper(),
        key.replace("_", "-"),
        key + "s",
        f" {key}",
        key[::-1],
    ][how % 7]


def spoilt_tree(tree: Any, kind: str, where: int, value: Any, keys: list[str]) -> Any:
    """Return a tree with one thing changed."""
    tree = copy.deepcopy(tree)
    found = list(places(tree))
    place = found[where % len(found)]
    if not place:
        return value if kind == "set" and where % 50 == 0 else tree
    *above, key = place
    parent = tree
    for part in above:
        parent = parent[part]
    if kind == "set":
        parent[key] = value
    elif kind == "remove":
        del parent[key]
    elif kind == "wrap":
        parent[key] = [parent[key]] if where % 2 else {"x": parent[key]}
    elif kind == "swap":
        other = found[(where * 7 + 1) % len(found)]
        parent[key] = copy.deepcopy(at(tree, other))
    elif isinstance(parent, dict):
        name = misspelled(str(key), where) if kind == "misspell" else keys[where % len(keys)]
        parent[name] = parent.pop(key) if kind == "misspell" else value
    else:
        parent.extend([parent[key]] * (where % 300))
    return tree


def at(tree: Any, place: Place) -> Any:
    for part in place:
        tree = tree[part]
    return tree


def spoilt_text(content: bytes, kind: str, where: int, length: int, piece: bytes) -> bytes:
    """Return a text with one thing changed."""
    start = where % (len(content) + 1)
    stop = start + length
    if kind == "insert":
        return content[:start] + piece + content[start:]
    if kind == "replace":
        return content[:start] + piece + content[stop:]
    if kind == "remove":
        return content[:start] + content[stop:]
    if kind == "repeat":
        return content[:stop] + content[start:stop] + content[stop:]
    if kind == "cut":
        return content[:start]
    lines = content.splitlines(keepends=True)
    if not lines:
        return piece
    line = where % len(lines)
    if kind == "value":  # what stands behind a colon
        key, colon, _ = lines[line].partition(b":")
        lines[line] = key + colon + b" " + piece + b"\n"
    elif kind == "indent":
        lines[line] = b" " * (length % 5) + lines[line]
    elif kind == "twice":
        lines.insert((line + length) % len(lines), lines[line])
    else:  # lost
        del lines[line]
    return b"".join(lines)


@cache
def tree_of(text: str) -> Any:
    """Return what a text stands for, which nobody changes."""
    return yaml.safe_load(text)


def written(tree: Any, style: int) -> bytes:
    """Return a tree as YAML, in blocks or in brackets."""
    if style == 0:
        return to_yaml(tree).encode("utf-8", "surrogatepass")
    return yaml.safe_dump(tree, default_flow_style=style == 1, sort_keys=False).encode("utf-8", "surrogatepass")


_POSITION = st.integers(0, 1 << 16)
_TREE = st.tuples(
    st.sampled_from(["set", "set", "set", "remove", "wrap", "swap", "misspell", "add"]),
    _POSITION,
    st.sampled_from(VALUES),
)
_PIECES = st.sampled_from([*(token.encode("utf-8") for token in TOKENS), *BYTES]) | st.binary(min_size=1, max_size=6)
_TEXT = st.tuples(
    st.sampled_from(
        ["insert", "replace", "remove", "repeat", "cut", "value", "value", "value", "indent", "twice", "lost"]
    ),
    _POSITION, st.integers(1, 40), _PIECES,
)  # fmt: skip


@st.composite
def spoilt(draw: st.DrawFn, bases: Mapping[str, str], keys: list[str]) -> bytes:
    """Draw the content of a file: one of some texts, changed once to four times, mostly once."""
    text = bases[draw(st.sampled_from(sorted(bases)))]
    content = text.encode()
    tree_changes = draw(st.lists(_TREE, max_size=2))
    if tree_changes:
        tree = tree_of(text)
        for kind, where, value in tree_changes:
            if isinstance(tree, dict):
                tree = spoilt_tree(tree, kind, where, value, keys)
        content = written(tree, draw(st.integers(0, 2)))
    for kind, where, length, piece in draw(st.lists(_TEXT, min_size=0 if tree_changes else 1, max_size=2)):
        content = spoilt_text(content, kind, where, length, piece)
    return content
