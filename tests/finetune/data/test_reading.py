"""Files as people write them: every text as it stands there, or one message that names the file and the line."""

import decimal
import json
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.data.repeats import first_places
from finetune.data.task import read_examples
from finetune.errors import FinetuneError, SplitError
from finetune.settings import TaskSettings

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
WORDS = ["null", "NA", "None", "1900", "007", "1e5", "true", "2001-02-03", "nan", " a ", 'long" end', "café"]


def examples(path, **options):
    return read_examples(TaskSettings(**{"data": str(path), "kind": "classification", **options})).train


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", ["data.csv", "data.tsv", "data.jsonl", "semicolons.csv"])
def test_texts_are_as_they_are_written(tmp_path, name):
    between = {"data.csv": ",", "data.tsv": "\t", "semicolons.csv": ";"}.get(name)
    rows = [(text, i % 2) for i, text in enumerate(WORDS)]
    if between:
        content = f"text{between}label\n" + "".join(f"{text}{between}{label}\n" for text, label in rows)
    else:
        content = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    pool = examples(written(tmp_path, name, content))
    assert pool.texts == WORDS
    assert pool.labels.tolist() == [label for _, label in rows]


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("a.csv", b"\xef\xbb\xbftext,label\r\n\r\na,0\r\nb,1\r\n\r\n", ["a", "b"]),
        ("a.csv", 'text,label\n"a, ""b""\nc",0\nd,1\n', ['a, "b"\nc', "d"]),
        ("a.csv", "text,label\na,0,\nb,1,,\n", ["a", "b"]),
        ("a.csv", "text,label,\na,0,\nb,1,\n", ["a", "b"]),
        ("a.csv", "text,label\na,0\nb,1\n".encode("utf-16"), ["a", "b"]),
        ("a.tsv", 'text\tlabel\n"a\t0\nb\t1\nc"\t0\n', ['"a', "b", 'c"']),
        ("a.tsv", 'text\tlabel\n"a ""b"""\t0\n"c"\t1\n', ['a "b"', "c"]),
        ("a.tsv", 'text\tlabel\n"a\nb"\t0\n"c"\t1\n', ["a\nb", "c"]),
        ("a.jsonl", b'\xef\xbb\xbf{"text": "a", "label": 0, "x": NaN}\n\n{"label": 1, "text": "b"}\n', ["a", "b"]),
        ("a.json", '[{"text": "a", "label": 0},\n {"text": "b", "label": 1}]', ["a", "b"]),
    ],
)
def test_what_spreadsheets_and_libraries_write(tmp_path, name, content, texts):
    assert examples(written(tmp_path, name, content)).texts == texts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\na,0\ncafé,1\n".encode("latin-1"), "line 3: byte 0xe9 at position 4 .* be 'café"),
        ("a.jsonl", b'{"text": "a", "label": 0}\n{"text": "\xff\xfe", "label": 1}\n', "line 2: byte 0xff"),
        ("a.csv", 'text,label\n"a,0\nb,1\nc" d,1\n', "line 2: a field that begins with a quotation mark is not closed"),
        ("a.csv", 'text,label\ne,1\n"a,0\nb,1\nc",1\n', "line 3: a quotation mark opens a field that ends on line 5"),
        ("a.csv", 'text,label\n"a,0\nb,1\n', "line 2: a field that begins"),
        ("a.csv", "text,label\na,0\nb, c,1\n", "line 3 has 3 fields, but the first line names 2"),
        ("a.tsv", "text\tlabel\na\t0\nb\n", "line 3 has 1 field, but"),
        ("a.csv", "text,label,text\na,0,b\n", "has the column 'text' twice"),
        ("a.jsonl", '{"text": "a", "text": "b", "label": 0}\n', "line 1 has the column 'text' twice"),
        ("a.jsonl", '{"text": "a", "label": 0}\n["b", 1]\n', "line 2 is a list, not an object"),
        ("a.jsonl", '{"text": "a", "label": 0}\n{"text": \n', r"line 2 is not JSON \(column 10: a value is missing"),
        ("a.jsonl", '{"text": "a", "label": 0}\r\n{"text": "b\r\n', r"2 .*column 10: the text that begins .* closed"),
        ("a.jsonl", '{"text": "a\tb", "label": 0}\n', r"\(column 12: a text holds a tab or a line break"),
        ("a.jsonl", '{"text": null, "label": 0}\n', r"no text in column 'text' \(it holds nothing\)"),
        ("a.csv", "texts,lable,id\na,0,1\n", r"'text' .* 'texts'\?\) and no column 'label' \(did you mean 'lab"),
        ("a.jsonl", "[" * 100_000 + "\n", "line 1: lists or objects are nested too deeply"),
        ("a.jsonl", '{"text": "\\ud800", "label": 0}\n', "line 1: row 0 of split train has half of a surrogate pair"),
        ("a.jsonl", '{"text": 1900, "label": 0}\n', "holds 1900.*write it as a text"),
        ("a.csv", "t\u0435xt,label\na,0\n", r"'t.u0435xt' may look like 'text', but has other char.* columns are: "),
        ("a.csv", "te\u200bxt,label\na,0\n", r"'te.u200bxt' may look like 'text'"),
        ("a.csv", "text,label\na,0\n".encode("utf-16-le"), r"begins like UTF-16LE, .*-f UTF-16LE -t UTF-8 a\.csv"),
        ("a.csv", "text,label\na,0\n".encode("utf-16-be"), "begins like UTF-16BE"),
        ("a.json", '{"text": ["a", "b"], "label": [0, 1]}', "line 1 is one object with a list for each column; write"),
        ("a.json", '{"rows": [{"text": "a", "label": 0}]}', "with the examples in a list under 'rows'; write"),
        ("a.jsonl", '{"text": "a", "label": ' + "9" * 5000 + "}\n", "line 1 holds a number with thousands of digits"),
        ("a.jsonl", '{"text": "a", "label": 1' + "0" * 400 + "}\n", "has label 10000"),
        ("a.csv", "text,label\na,good\nb,0\n", "line 2: row 0 .*'good', where 1 of 2 labels are numbers"),
        ("a.csv", "text,label\na,1\nb,2\nc,2\n", "no example of class 0; .*as in task.labels: {1: 0, 2: 1}"),
        ("a.csv", "text,label\na,0\nb,1000000\n", "which makes 1000001 classes, but there are 2 rows"),
        ("a.csv", "text,label\n", "has no rows"),
        ("a.csv", "", "names no column: it may be empty; give data with examples"),
        ("a.jsonl", "", "names no column: it may be empty"),
        ("a.csv", "text,label\n" + "".join(f"a {n},{n}\n" for n in range(30)), "30 different labels in 30 rows: is"),
        ("a.parquet", "text,label\na,1\n", "cannot be read as Parquet"),
        ("a.jsonl", b"PAR1\xff\xff", "looks like Parquet"),
        ("a.jsonl", b"\x28\xb5\x2f\xfd\x04\x58", "looks like a Zstandard archive"),
        ("a.csv", POINTER, "is a pointer of Git LFS and not the data; run `git lfs pull`"),
        ("a.parquet", POINTER, "is a pointer of Git LFS"),
        ("a.jsonl", "\n<!DOCTYPE HTML>\n<title>404</title>\n", "is a web page and not data"),
        ("a.csv", "text,label\na,\u00e9t\u00e9\nb,e\u0301te\u0301\nc,no\n", "differ in characters that look alike"),
        ("a.csv", "text,label\na,yes\nb,yes\u200b\nc,no\nd,no\n", r"'yes' and 'yes\\u200b' differ in characters"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_with_its_place(tmp_path, name, content, message):
    path = written(tmp_path, name, content)
    with pytest.raises(FinetuneError, match=message) as raised:
        examples(path)
    assert str(path) in str(raised.value)


def test_typed_columns(tmp_path):
    columns = {
        "text": pa.array(["a", "b"], pa.large_string()).dictionary_encode(),
        "label": pa.array([True, False]),
        "rating": pa.array([decimal.Decimal("3.5"), decimal.Decimal("-1.25")]),
        "none": pa.nulls(2),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert examples(tmp_path / "a.parquet").labels.tolist() == [1, 0]
    rated = examples(tmp_path / "a.parquet", kind="regression", label="rating")
    assert rated.labels.tolist() == [3.5, -1.25]
    with pytest.raises(FinetuneError, match="has no text in column 'none'"):
        examples(tmp_path / "a.parquet", text="none")


@pytest.mark.parametrize(("yes", "no"), [("true", "false"), ("True", "False"), ("TRUE", "FALSE")])
def test_true_and_false_in_text_files_are_the_classes_one_and_zero(tmp_path, yes, no):
    path = written(tmp_path, "a.csv", f"text,label\na,{yes}\nb,{no}\n".encode())
    assert examples(path).labels.tolist() == [1, 0]


def test_a_split_of_a_folder_is_the_file_of_its_name(tmp_path):
    for number, name in enumerate(["train", "validation", "validation_in_domain", "validation_out_of_domain"]):
        written(tmp_path, f"{name}.tsv", f"text\tlabel\n{name}\t0\nb\t1\n" + "c\t1\n" * number)
    task = TaskSettings(str(tmp_path), "classification", eval_split="validation")
    assert read_examples(task).evaluation.texts == ["validation", "b", "c"]
    with pytest.raises(SplitError, match=r"no split 'dev'; its files are: train.tsv, validation.tsv"):
        examples(tmp_path, train_split="dev")
    written(tmp_path, "train.csv", "text,label\na,0\nb,1\n")
    with pytest.raises(SplitError, match=r"several files for the split 'train': train.csv, train.tsv"):
        examples(tmp_path)
    assert examples(tmp_path, train_split="train.csv").texts == ["a", "b"]


def test_parts_of_a_split_are_all_there(tmp_path):
    (tmp_path / "data").mkdir()
    for number in range(2):
        written(tmp_path / "data", f"train-{number:05d}-of-00002.csv", f"text,label\n{number},{number}\n")
    assert examples(tmp_path).texts == ["0", "1"]
    (tmp_path / "data" / "train-00001-of-00002.csv").unlink()
    with pytest.raises(FinetuneError, match=r"1 of 2 parts; train-00001-of-00002.csv is missing"):
        examples(tmp_path)


@pytest.mark.parametrize("name", ["[exp1] a", "a*", "a?", "{a,b}", "~a", "a%20 ü", "hf:__a"])
def test_a_path_is_no_pattern(tmp_path, name):
    (tmp_path / name).mkdir()
    path = written(tmp_path / name, "train[v2].csv", "text,label\na,0\nb,1\n")
    assert examples(path).texts == ["a", "b"]
    assert examples(tmp_path / name).texts == ["a", "b"]


def test_each_text_is_kept_once_where_that_is_asked_for(tmp_path):
    written(tmp_path, "train.csv", "text,label\na,0\nb,1\na ,1\nc,0\nd,1\n")
    written(tmp_path, "validation.csv", "text,label\nc,0\ne,1\ne,1\n")
    asked = {"kind": "classification", "distinct_texts": True}
    held_out = read_examples(TaskSettings(str(tmp_path), **asked))
    assert held_out.train.texts == held_out.evaluation.texts == ["a", "b", "c", "d"]
    apart = read_examples(TaskSettings(str(tmp_path), eval_split="validation", **asked))
    assert (apart.train.texts, apart.evaluation.texts) == (["a", "b", "d"], ["c", "e"])
    assert apart.train.rows.tolist() == [0, 1, 4]
    plain = read_examples(TaskSettings(str(tmp_path), "classification", eval_split="validation"))
    assert np.array_equal(first_places(plain.train, plain.evaluation), [3, -1, -1])


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet"])
def test_reading_a_file_leaves_nothing_anywhere(tmp_path, monkeypatch, name):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for variable in ("TMPDIR", "HF_HOME", "HF_DATASETS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(elsewhere))
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    monkeypatch.setattr(tempfile, "mkdtemp", None)  # a killed process would leave it behind
    rows = {"text": ["a", "b"], "label": [0, 1]}
    path = tmp_path / name
    if path.suffix == ".parquet":
        pq.write_table(pa.table(rows), path)
    elif path.suffix in (".jsonl", ".json"):
        lines = [json.dumps({"text": text, "label": label}) for text, label in zip(*rows.values(), strict=True)]
        path.write_text("\n".join(lines) if path.suffix == ".jsonl" else f"[{','.join(lines)}]")
    else:
        between = "," if path.suffix == ".csv" else "\t"
        path.write_text(f"text{between}label\na{between}0\nb{between}1\n")
    before = set(tmp_path.rglob("*"))
    assert examples(path).texts == rows["text"]
    assert set(tmp_path.rglob("*")) == before
