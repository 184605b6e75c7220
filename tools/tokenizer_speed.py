"""Times Hugging Face's tokenizers beside metallic's, on the same texts and one thread, and compares the ids' number.

    pip install tokenizers==0.23.3 gguf==0.19.0
    cargo build --release -p metallic --example tokenizer_speed
    RAYON_NUM_THREADS=1 python tools/tokenizer_speed.py MODEL.gguf TEXT...

For byte-level vocabularies with one of the pre-tokenizers below.
"""

import subprocess
import sys
import time
from pathlib import Path

from gguf import GGUFReader
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

EXAMPLE = Path(__file__).parent.parent / "target/release/examples/tokenizer_speed"
RUNS = 5
LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama-bpe": LETTERS % "{1,3}",
    "qwen2": LETTERS % "",
}


def read(path):
    fields = GGUFReader(path).fields
    value = lambda key: fields["tokenizer.ggml." + key].contents()
    pieces = {piece: id for id, piece in enumerate(value("tokens"))}
    merges = [tuple(merge.split(" ", 1)) for merge in value("merges")]
    tokenizer = Tokenizer(models.BPE(pieces, merges, ignore_merges=value("pre") == "llama-bpe"))
    split = pre_tokenizers.Split(Regex(PATTERNS[value("pre")]), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    return tokenizer


model, *texts = sys.argv[1:]
tokenizer = read(model)
for path in texts:
    text = Path(path).read_text()
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        n_tokens = len(tokenizer.encode(text, add_special_tokens=False).ids)
        seconds.append(time.perf_counter() - start)
    rates = sorted(len(text.encode()) / 1e6 / each for each in seconds)
    print(f"tokenizers\t{path}\t{n_tokens} tokens\t{rates[-1]:.1f} MB/s\tmedian {rates[RUNS // 2]:.1f}", flush=True)
    subprocess.run([EXAMPLE, model, path], check=True)
