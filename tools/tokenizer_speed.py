"""Times Hugging Face's tokenizers beside metallic's, on the same texts and one thread, and compares the number of tokens.

    pip install tokenizers==0.23.3 gguf==0.19.0
    cargo build --release -p metallic --example tokenizer_speed
    RAYON_NUM_THREADS=1 python tools/tokenizer_speed.py TEXT... -- MODEL.gguf...

Prints a row of a table for each vocabulary and text: MB/s of both, the best of several runs that take turns.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

from gguf import GGUFReader
from pre_tokenizers import normalizer, publishers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

EXAMPLE = Path(__file__).parent.parent / "target/release/examples/tokenizer_speed"
ROUNDS = 3
USER_DEFINED = 4
# Of each, a name that means the same and is in `publishers`.
ALIASES = {"smollm": "starcoder", "refact": "starcoder", None: "default"}


def read(path):
    """The tokenizer of a file, rebuilt from its lists."""
    fields = GGUFReader(path).fields
    value = lambda key: fields["tokenizer.ggml." + key].contents() if "tokenizer.ggml." + key in fields else None
    kind, tokens = value("model"), value("tokens")
    ids = {token: id for id, token in enumerate(tokens)}
    # A piece may start with a space in vocabularies of text.
    merges = [re.fullmatch("(?s)(.[^ ]*) (.*)", merge).groups() for merge in value("merges") or []]
    if kind == "gpt2":
        pre = value("pre")
        steps = publishers()[ALIASES.get(pre, pre)]
        tokenizer = Tokenizer(models.BPE(ids, merges, ignore_merges=pre == "llama-bpe"))
        tokenizer.normalizer = normalizer(pre)
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, byte_level])
        whole = [token for token, kind in zip(tokens, value("token_type")) if kind == USER_DEFINED]
        tokenizer.add_tokens([AddedToken(token, normalized=False) for token in whole])
    elif kind == "gemma4":
        tokenizer = Tokenizer(models.BPE(ids, merges, fuse_unk=True, byte_fallback=True, unk_token="<unk>"))
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    elif kind == "llama":
        # Every way to make a piece of two, the best pieces first.
        scores = value("scores")
        ways = [
            (-scores[id], id, token[:at], token[at:])
            for token, id in ids.items()
            for at in range(1, len(token))
            if token[:at] in ids and token[at:] in ids
        ]
        merges = [(left, right) for _, _, left, right in sorted(ways)]
        tokenizer = Tokenizer(models.BPE(ids, merges, fuse_unk=True, byte_fallback=True, unk_token=tokens[0]))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif kind == "bert":
        pieces = {token[1:] if token[0] == "▁" else token if token[0] == "[" else "##" + token: id for token, id in ids.items()}
        tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]", max_input_chars_per_word=100))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    elif kind == "t5":
        tokenizer = Tokenizer(models.Unigram(list(zip(tokens, value("scores"))), value("unknown_token_id"), False))
        charsmap = normalizers.Precompiled(bytes(byte % 256 for byte in value("precompiled_charsmap")))
        tokenizer.normalizer = normalizers.Sequence([charsmap, normalizers.Replace(Regex(" {2,}"), " ")])
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def theirs(tokenizer, text):
    start = time.perf_counter()
    n_tokens = len(tokenizer.encode(text, add_special_tokens=False).ids)
    return n_tokens, len(text.encode()) / 1e6 / (time.perf_counter() - start)


def ours(model, path):
    printed = subprocess.run([EXAMPLE, model, path], check=True, capture_output=True, text=True).stdout
    n_tokens, rate = re.search(r"(\d+) tokens\t([\d.]+) MB/s", printed).groups()
    return int(n_tokens), float(rate)


def main():
    texts, models = (list(part) for part in split_at(sys.argv[1:], "--"))
    print("| vocabulary | text | tokens | `tokenizers`' | metallic, MB/s | `tokenizers`, MB/s |\n|---|---|---|---|---|---|")
    for model in models:
        tokenizer = read(model)
        for path in texts:
            text = Path(path).read_text()
            rounds = [(ours(model, path), theirs(tokenizer, text)) for _ in range(ROUNDS)]
            best = lambda side: max(round[side][1] for round in rounds)
            counts = [rounds[0][side][0] for side in (0, 1)]
            name = Path(model).stem.removeprefix("ggml-vocab-")
            print(f"| {name} | {Path(path).stem} | {counts[0]} | {counts[1]} | {best(0):.1f} | {best(1):.1f} |", flush=True)


def split_at(arguments, mark):
    at = arguments.index(mark)
    return arguments[:at], arguments[at + 1 :]


main()
