"""Writes crates/metallic/tests/text/golden.json: what other tokenizers make of texts.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3
    pip install --no-deps rwkv
    python tools/golden_tokens.py

Small vocabularies are made here, of random words, and laid out as a GGUF file has them. The ids are those of
the publishers' own programs: `tokenizers` for WordPiece, `sentencepiece` for the unigram model, and the tokenizer
of the `rwkv` package.
"""

import importlib.util
import io
import json
import random
import tempfile
from pathlib import Path

import sentencepiece
import tokenizers

OUT = Path(__file__).parent.parent / "crates/metallic/tests/text/golden.json"
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
PIECE_TYPES = {"IsUnknown": UNKNOWN, "IsControl": CONTROL, "IsByte": BYTE}

random.seed(20)
SYLLABLES = ["ka", "lo", "mi", "ten", "ra", "su", "vi", "po", "ner", "dé", "ß", "世", "界", "ö"]
WORDS = ["".join(random.choices(SYLLABLES, k=random.randint(1, 4))) for _ in range(300)]
SENTENCES = [" ".join(random.choices(WORDS, weights=range(300, 0, -1), k=8)) for _ in range(400)]

ODD = [
    "",
    " ",
    "   ",
    "\n",
    " \t kalo \r\n  mi  ",
    "KALO Miten DÉLO DE\u0301lo ÖRA ß",
    "kalo,mi.ten!(ra)$su+vi^po`ner~|<=>",
    "世界kalo世界,界",
    "ΑΣ ΟΔΟΣ İstanbul ǅ ﬁne ½ ² Ⅳ ｋａｌｏ",
    "a\u0000b\u0001c\ufffdd\u00ade\u200bf\u0085g\u000bh",
    "no\u00a0break\u2003em\u3000wide\u2028line",
    "\u0915\u094d\u0937\u093f \u0e01\u0e47 \u05e9\u05c1 가각 \U0001f469\u200d\U0001f692 \U0002b820\U0002b920 \U0002ceb0",
    "☃☃ ☃ka☃ q☃",
    "▁kalo ▁ ▁▁mi",
    "k" * 100,
    "k" * 101,
    "ka" * 50,
    "\U0010ffff\ue000",
]
TEXTS = ODD + random.sample(SENTENCES, 6)
TEXTS += ["".join(random.choices(SYLLABLES + [" ", "  ", "q", "½", "☃", ",", "\n", "A", "ﬁ"], k=20)) for _ in range(40)]


def wordpiece(lowercase):
    normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
    splitter = tokenizers.pre_tokenizers.BertPreTokenizer()
    words = lambda text: [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]
    known = sorted({word for text in SENTENCES + ODD[5:13] for word in words(text)})
    starts = {word[0] for word in known} | {word[: random.randint(1, 6)] for word in known}
    rest = {letter for word in known for letter in word} | {word[random.randint(1, 4) :][:4] for word in known}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    pieces = special + sorted(starts) + ["##" + piece for piece in sorted(rest - {""})]
    model = tokenizers.models.WordPiece(
        {piece: id for id, piece in enumerate(pieces)}, unk_token="[UNK]", max_input_chars_per_word=100
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    mark = lambda piece: piece if piece in special else piece[2:] if piece.startswith("##") else "▁" + piece
    return {
        "name": "WordPiece, " + ("lowercase" if lowercase else "as it is"),
        "model": "bert",
        "tokens": [mark(piece) for piece in pieces],
        "types": [CONTROL if piece in special else NORMAL for piece in pieces],
        "ids": {"unknown": 1, "cls": 2, "seperator": 3},
        "flags": {"normalizer.lowercase": lowercase},
        "cases": [(text, tokenizer.encode(text).ids) for text in TEXTS],
    }


def unigram(name, **options):
    # A table of replacements of its own, so that it is small: code points, and what becomes of them.
    rules = {"ﬁ": "fi", "½": "1⁄2", "²": "2", "ｋ": "k", "ａ": "a", "\u00a0": " ", "\u3000": " ", "\t": " ", "\n": " "}
    rules |= {"e\u0301": "é", "É": "é", "E\u0301": "é", "\u0001": "", "\ufffd": " ", "ｋａ": "KA"}
    code = lambda text: " ".join(f"{ord(character):X}" for character in text)
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as table:
        table.write("".join(f"{code(of)}\t{code(to)}\n" for of, to in rules.items()))
        table.flush()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES),
            model_writer=model,
            model_type="unigram",
            character_coverage=1.0,
            normalization_rule_tsv=table.name,
            num_threads=1,
            minloglevel=2,
            **options,
        )
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(tokenizer.get_piece_size())
    spec = fields(fields(model.getvalue())[3])
    kind = lambda id: next((of for name, of in PIECE_TYPES.items() if getattr(tokenizer, name)(id)), NORMAL)
    return {
        "name": "unigram, " + name,
        "model": "t5",
        "tokens": [tokenizer.id_to_piece(id) for id in ids],
        "types": [kind(id) for id in ids],
        "scores": [tokenizer.get_score(id) for id in ids],
        "charsmap": list(spec[2]),
        "ids": {"unknown": tokenizer.unk_id(), "eos": tokenizer.eos_id()},
        "flags": {
            "add_space_prefix": options.get("add_dummy_prefix", True),
            "remove_extra_whitespaces": options.get("remove_extra_whitespaces", True),
        },
        "cases": [(text, tokenizer.encode(text)) for text in TEXTS if "\0" not in text],
    }


def fields(message):
    """The last value of each field of a protocol buffer."""
    found, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        size = {0: 0, 1: 8, 5: 4}.get(key & 7)
        if size == 0:
            found[key >> 3] = varint()
            continue
        size = varint() if size is None else size
        found[key >> 3] = message[at : at + size]
        at += size
    return found


def rwkv():
    spec = importlib.util.find_spec("rwkv")
    path = Path(spec.submodule_search_locations[0]) / "rwkv_tokenizer.py"
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("rwkv_tokenizer", path))
    module.__spec__.loader.exec_module(module)
    words = sorted(set(WORDS[:60]) | {" " + word for word in WORDS[:40]} | {"  ", "\n\n", "☃\\", "'\"", "''"})
    tokens = [bytes([byte]) for byte in range(256)] + [word.encode() for word in words if len(word.encode()) > 1]
    tokens += ["世".encode()[:2], "\t'\"\\x".encode()]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"{id} {token!r} {len(token)}\n" for id, token in enumerate(tokens, 1)))
        file.flush()
        tokenizer = module.TRIE_TOKENIZER(file.name)
    return {
        "name": "RWKV",
        "model": "rwkv",
        "tokens": ["<s>"] + [repr(token)[2:-1] for token in tokens],
        "types": [CONTROL] + [NORMAL] * len(tokens),
        "cases": [(text, tokenizer.encode(text)) for text in TEXTS + ["''\"'\"\\x☃\\ \t'\"\\x"]],
    }


vocabularies = [
    wordpiece(True),
    wordpiece(False),
    unigram("as trained by default", vocab_size=150),
    unigram("spaces as they are", vocab_size=150, add_dummy_prefix=False, remove_extra_whitespaces=False),
    unigram("bytes for unknown characters", vocab_size=400, byte_fallback=True),
    rwkv(),
]
for of in vocabularies:
    # A vocabulary on one line, each of its texts on another.
    of["cases"] = [{"text": text, "ids": ids} for text, ids in of["cases"]]
dump = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
OUT.write_text("[\n" + ",\n".join(dump(of).replace('{"text"', '\n{"text"') for of in vocabularies) + "\n]\n")
