"""Writes what other tokenizers make of texts, to crates/metallic/tests/text: golden.json and words.json.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3
    pip install --no-deps rwkv
    python tools/golden_tokens.py

Small vocabularies are made here, of random words, and laid out as a GGUF file has them. The ids are those of
the publishers' own programs: `tokenizers` for byte pairs and WordPiece, `sentencepiece` for the unigram model, and the
tokenizer of the `rwkv` package. PLaMo 2's is in no package; `plamo` below is its definition.

`words.json` has the words that `tokenizers` normalises and splits texts into before byte-pair merges, as
`pre_tokenizers.py` has it, for each row of the table in `pre_types.rs`.
"""

import importlib.util
import io
import json
import random
import tempfile
import unicodedata
from pathlib import Path

import sentencepiece
import tokenizers
from pre_tokenizers import FORMS, normalizer, publishers

OUT = Path(__file__).parent.parent / "crates/metallic/tests/text"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
PIECE_TYPES = {"IsUnknown": UNKNOWN, "IsControl": CONTROL, "IsByte": BYTE}

random.seed(20)
SYLLABLES = ["ka", "lo", "mi", "ten", "ra", "su", "vi", "po", "ner", "dé", "ß", "世", "界", "ö"]
WORDS = ["".join(random.choices(SYLLABLES, k=random.randint(1, 4))) for _ in range(300)]
SENTENCES = [" ".join(random.choices(WORDS, weights=range(300, 0, -1), k=8)) for _ in range(400)]

# Decomposed Vietnamese, Korean, Japanese and German, marks out of order and alone, and what only NFKC changes.
DECOMPOSED = [unicodedata.normalize("NFD", text) for text in ["Tiếng Việt có dấu", "한국어 각", "ガギグ パ", "März.pdf ÅÖ"]]
DECOMPOSED += ["e\u0301\u0323 e\u0323\u0301 \u0301a  \u0338", "\u212b\u2126\u212a\uf900\u0958", "ﬁ ² ½ ｋａ ① ｶﾞ …"]

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
TEXTS += DECOMPOSED


def wordpiece(name, **flags):
    cleaner = tokenizers.normalizers.BertNormalizer(**flags)
    splitter = tokenizers.pre_tokenizers.BertPreTokenizer()
    words = lambda text: [word for word, _ in splitter.pre_tokenize_str(cleaner.normalize_str(text))]
    known = sorted({word for text in SENTENCES + ODD[5:13] for word in words(text)})
    starts = {word[0] for word in known} | {word[: random.randint(1, 6)] for word in known}
    rest = {letter for word in known for letter in word} | {word[random.randint(1, 4) :][:4] for word in known}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    pieces = special + sorted(starts) + ["##" + piece for piece in sorted(rest - {""})]
    model = tokenizers.models.WordPiece(
        {piece: id for id, piece in enumerate(pieces)}, unk_token="[UNK]", max_input_chars_per_word=100
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer = cleaner, splitter
    mark = lambda piece: piece if piece in special else piece[2:] if piece.startswith("##") else "▁" + piece
    return {
        "name": "WordPiece, " + name,
        "model": "bert",
        "tokens": [mark(piece) for piece in pieces],
        "types": [CONTROL if piece in special else NORMAL for piece in pieces],
        "ids": {"unknown": 1, "cls": 2, "seperator": 3},
        "flags": {f"normalizer.{flag}": value for flag, value in flags.items()},
        "cases": [(text, tokenizer.encode(text).ids) for text in TEXTS],
    }


def byte_pairs(name, pre, special, general=None, steps=None, user_defined=()):
    """`special` and `user_defined`: tokens, some with attributes. All of the texts' special tokens are parsed."""
    model = tokenizers.models.BPE()
    tokenizer = tokenizers.Tokenizer(model)
    if pre in FORMS:
        tokenizer.normalizer = normalizer(pre)
    last = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(publishers()[steps or pre] + [last])
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, show_progress=False, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()
    )
    composed = [unicodedata.normalize("NFC", text) for text in DECOMPOSED]
    tokenizer.train_from_iterator(SENTENCES[:50] + composed * 20, trainer)
    tokenizer.add_tokens(list(user_defined))
    tokenizer.add_special_tokens(special)
    made = json.loads(tokenizer.to_str())
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])]
    added = {token["content"]: CONTROL if token["special"] else USER_DEFINED for token in made["added_tokens"]}
    return {
        "name": name,
        "model": "gpt2",
        "pre": pre,
        "general": general or {},
        "tokens": tokens,
        "types": [added.get(token, NORMAL) for token in tokens],
        "merges": [" ".join(merge) for merge in made["model"]["merges"]],
        "special": True,
        "cases": [(text, tokenizer.encode(text).ids) for text in SPACED + [around(of, tokenizer) for of in DECOMPOSED]],
    }


def around(text, tokenizer):
    """A text between special tokens."""
    first = next(token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special)
    return f"{first}{text}{first} {text}"


def token(content, **attributes):
    return tokenizers.AddedToken(content, special=True, normalized=False, **attributes)


def phi3():
    """SentencePiece's byte pairs, as Hugging Face has them."""
    merges = [("k", "a"), ("▁", "ka"), ("l", "o"), ("▁ka", "lo"), ("m", "i"), ("▁", "mi"), ("▁", "▁")]
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + [left + right for left, right in merges] + list("▁kalomi")
    strip = [token(text, rstrip=True) for text in ["<|user|>", "<|end|>", "<|assistant|>", "</s>"]]
    added = [token("<unk>"), token("<s>"), token("<|endoftext|>")] + strip
    tokens = [of.content for of in added] + list(dict.fromkeys(pieces))
    model = tokenizers.models.BPE(
        {of: id for id, of in enumerate(tokens)}, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    tokenizer = tokenizers.Tokenizer(model)
    normalizers = tokenizers.normalizers
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.add_special_tokens(added)
    joined = [left + right for left, right in merges]
    kind = {"<unk>": UNKNOWN, "</s>": USER_DEFINED} | {of.content: CONTROL for of in added[1:-1]}
    return {
        "name": "Phi-3",
        "model": "llama",
        "general": {"architecture": "phi3"},
        "tokens": tokens,
        "types": [kind.get(of, BYTE if of.startswith("<0x") else NORMAL) for of in tokens],
        "scores": [-float(joined.index(of)) if of in joined else -1e6 for of in tokens],
        "ids": {"unknown": 0},
        "special": True,
        "cases": [(text, tokenizer.encode(text).ids) for text in SPACED],
    }


def xlm_roberta():
    """The unigram model with a special token that takes white space along, as Hugging Face has it."""
    scored = [(of, -float(len(of))) for of in ["▁", "▁ka", "ka", "lo", "▁lo", "mi", "k", "a", "l", "o", "m", "i"]]
    added = [token("<s>"), token("</s>"), token("<unk>"), token("<mask>", lstrip=True)]
    pieces = [(of.content, 0.0) for of in added] + scored
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=2))
    pre_tokenizers = tokenizers.pre_tokenizers
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.add_special_tokens(added)
    texts = ["ka  <mask> lo<mask>mi", " <mask>", "kalo <s>  ka </s>mi"]
    return {
        "name": "XLM-RoBERTa",
        "model": "t5",
        "tokens": [piece for piece, _ in pieces],
        "types": [CONTROL, CONTROL, UNKNOWN, CONTROL] + [NORMAL] * len(scored),
        "scores": [score for _, score in pieces],
        "ids": {"unknown": 2},
        "flags": {"remove_extra_whitespaces": True},
        "special": True,
        "cases": [(text, tokenizer.encode(text).ids) for text in texts],
    }


# Special tokens of several families, among white space of several kinds.
SPACED = ["<|user|>\nka<|end|>\n<|assistant|>\n", "kalo </s>  mi <s> ka <unk> \n<|endoftext|>\t mi", "<|user|> <|end|>  </s>\u3000\u00a0ka"]
SPACED += ["ka <|im_start|> lo<|im_sep|>\n\n<|im_end|> mi <|dummy_0|> ", "ka \n<mask> lo  <mask>", " \t[MASK] ka [MASK]", "  lo    mi"]


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


def plamo():
    """Of all ways to write a text in pieces, the one with the greatest sum of scores in whole units; of several, the
    one whose first piece that differs is the longest. A character that no piece is costs 10⁷ units, and is its bytes."""
    letters = sorted({letter for text in SENTENCES for letter in text} - {"ö"})
    words = set(WORDS[:80]) | {word + " " for word in WORDS[:30]} | {" " + word for word in WORDS[:9]}
    words |= {"k" * length for length in range(2, 6)} | {"世界世", "\n\n", "▁", "lo,"}
    pieces = letters + sorted(words - set(letters))
    # Few scores, so that many ways are equally good.
    scores = [round(-2.0 * random.randint(1, 4) - 1.23456 * (len(piece) < 2), 4) for piece in pieces]
    tokens = ["<unk>", "<s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + pieces
    first = len(tokens) - len(pieces)
    units = {piece: (round(score * 1e4), first + i) for i, (piece, score) in enumerate(zip(pieces, scores))}

    def encode(text):
        best = [(0, [])]  # for each end of the text, from the shortest on
        for start in reversed(range(len(text))):
            ways = []
            for end in range(len(text), start, -1):
                score, id = units.get(text[start:end], (None, None))
                rest, ids = best[len(text) - end]
                if id is not None:
                    ways.append((rest + score, [id] + ids))
            rest, ids = best[len(text) - start - 1]
            ways.append((rest - 10**7, [2 + byte for byte in text[start].encode()] + ids))
            best.append(max(ways, key=lambda way: way[0]))
        return best[-1][1]

    return {
        "name": "PLaMo 2",
        "model": "plamo2",
        "tokens": tokens,
        "types": [UNKNOWN, CONTROL] + [BYTE] * 256 + [NORMAL] * len(pieces),
        "scores": [0.0] * first + scores,
        "cases": [(text, encode(text)) for text in TEXTS],
    }


def words():
    def join(name, steps, text):
        text = normalizer(name).normalize_str(text)
        return "¦".join(word for word, _ in tokenizers.pre_tokenizers.Sequence(steps).pre_tokenize_str(text))

    words = {name: [join(name, steps, text) for text in WORD_TEXTS] for name, steps in publishers().items()}
    return {"texts": WORD_TEXTS, "words": words, "forms": FORMS}


WORD_TEXTS = [
    "I'LL say 'tis he's we'VE, Hello  World's\n\n \t x  \r\n  end \n",
    "1 12 123 1234 1234567 v1234 12345ab $1,234,567.89 10²³ ½ ٣٤٥٦ 0x1F4",
    "世界，你好！ｅ三〇 カナかな 한국어 ก็ภาษา ဗမာ ខ្មែរ ㄅㄆ ㄱㄴ“引用”…",
    "HelloWorld ABCdef's ÉCOLE ǅ e\u0301a\u0301 नमस्ते ﷺ İstanbul ß",
    "a/b//c\n/d !!!\n\n??\r\n``x``, $+<=>^~| @#user_name «é» —x¿ <sentinel:12>IMGIMGABZ",
    "    four     five\t\tt\n        eight         9 \u3000\u00a0 z   ",
    "x" + " " * 21 + "y" + " " * 600 + "z\n" + " " * 7,
    "\U0001f469\u200d\U0001f692 ☃☃a ©2024™ a\u00adb\ufeffc\u2028d। و،",
    *DECOMPOSED,
]

im = [token(f"<|im_{of}|>", lstrip=True, rstrip=True) for of in ["start", "sep", "end"]]
roles = [token(of, rstrip=True) for of in ["<|user|>", "<|end|>", "<|assistant|>"]]
mask = [token("</s>"), token("<mask>", lstrip=True)]
vocabularies = [
    byte_pairs("Qwen 2", "qwen2", [token("<|im_start|>"), token("<|im_end|>")]),
    byte_pairs("GPT-NeoX", "olmo", [token("<|endoftext|>")], steps="mpt", user_defined=["    ", "  "]),
    byte_pairs("EXAONE 3", "exaone", [token("<|endoftext|>")]),
    byte_pairs("Phi-4", "dbrx", im + [token("<|dummy_0|>", lstrip=True, rstrip=True)]),
    byte_pairs("Phi-4-mini", "gpt-4o", roles + [token("<|endoftext|>")], {"architecture": "phi3"}),
    byte_pairs("RoBERTa", "roberta-bpe", mask, steps="gpt-2"),
    byte_pairs("ModernBERT", "modern-bert", [token("[MASK]", lstrip=True)], steps="mpt"),
    phi3(),
    xlm_roberta(),
    wordpiece("lowercase", lowercase=True),
    wordpiece("as it is", lowercase=False),
    wordpiece("lowercase with accents", lowercase=True, strip_accents=False),
    unigram("as trained by default", vocab_size=150),
    unigram("spaces as they are", vocab_size=150, add_dummy_prefix=False, remove_extra_whitespaces=False),
    unigram("bytes for unknown characters", vocab_size=400, byte_fallback=True),
    rwkv(),
    plamo(),
]
for of in vocabularies:
    # A vocabulary on one line, each of its texts on another.
    of["cases"] = [{"text": text, "ids": ids} for text, ids in of["cases"]]
dump = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
lines = lambda text: text.replace('{"text"', '\n{"text"')
(OUT / "golden.json").write_text("[\n" + ",\n".join(lines(dump(of)) for of in vocabularies) + "\n]\n")
(OUT / "words.json").write_text(json.dumps(words(), ensure_ascii=False, indent=0) + "\n")
