"""How publishers' `tokenizer.json` normalise and split texts before byte-pair merges, in terms of the `tokenizers` package.

`ByteLevel`, which all end with, is left out: it changes the text.
"""

import tokenizers

# Of DeepSeek LLM. Those that Unicode normalisation would replace are written as numbers.
CASED_LETTERS = (
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝ"
    r"Ὗ-\x{1F7D}ᾀ-ᾴᾶ-ᾼ\x{1FBE}ῂ-ῄῆ-ῌῐ-\x{1FD3}ῖ-\x{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\x{2126}ℨ\x{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃ"
    r"ↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
)

# The normaliser, by value of `tokenizer.ggml.pre`. The others have none, or none is known.
FORMS = {
    # `transformers`: GPTNeoXTokenizer; ModernBERT's file was made of OLMo's.
    "mpt": "NFC",
    "olmo": "NFC",
    "modern-bert": "NFC",
    # `transformers`: Qwen2Tokenizer, Qwen3_5Tokenizer; F2LLM and the distilled R1 are Qwens.
    "qwen2": "NFC",
    "qwen35": "NFC",
    "deepseek-r1-qwen": "NFC",
    "f2llmv2": "NFC",
    # `tokenization_arcade100k.py` of StableLM 2, `tokenization_hy.py` of Hunyuan: made of the first Qwen's.
    "stablelm2": "NFC",
    "hunyuan": "NFC",
    # `transformers`: CohereTokenizer.
    "command-r": "NFC",
    "tiny_aya": "NFC",
    "cohere2moe": "NFC",
    # The report on K-EXAONE says that it has NFC where its predecessors had NFKC.
    "exaone": "NFKC",
    "exaone4": "NFKC",
    "exaone-moe": "NFC",
}


def normalizer(name):
    """What a text goes through before it is split."""
    return getattr(tokenizers.normalizers, FORMS[name])() if name in FORMS else tokenizers.normalizers.Sequence([])


def publishers():
    """The steps of splitting, by one of the values of `tokenizer.ggml.pre` that mean them."""
    split = lambda pattern: tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    digits = tokenizers.pre_tokenizers.Digits
    punctuation = tokenizers.pre_tokenizers.Punctuation
    spaces = r"|\s+(?!\S)|\s+"
    ending = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    # What `ByteLevel` splits by; it would also change the text.
    gpt2 = split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+" + spaces)
    letters = lambda numbers: ending + r"|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+" % numbers
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}%s]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}%s]"
    cased = lambda ending, numbers, lines, but="": (
        rf"[^\r\n\p{{L}}\p{{N}}]?{upper % but}*{lower % but}+{ending}"
        rf"|[^\r\n\p{{L}}\p{{N}}]?{upper % but}+{lower % but}*{ending}"
        rf"|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[{lines}]*|\s*[\r\n]+{spaces}"
    )
    gpt4o = split(cased(ending + "?", r"\p{N}{1,3}", r"\r\n/"))
    deepseek = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
    deepseek3 = split(deepseek + r"[\r\n]*|\s*[\r\n]+" + spaces)
    up_to_3, east_asian, lines = split(r"\p{N}{1,3}"), split("[一-龥\u3040-\u309f\u30a0-\u30ff]+"), split(r"[^\n]+|[\n]+")
    bloom = split(r" ?[^(\s|[.,!?…。，、।۔،])]+")
    by_powers = "|".join(rf"\s{{{2**power}}}(?!\S)" for power in range(9, 1, -1)) + r"|\s{1,2}(?!\S)|\s{1}"
    return {
        # Of no publisher, but what other engines do.
        "default": [split(r"[\p{P}\$\+<=>\^~\|]+"), gpt2, digits(), split("[0-9][0-9][0-9]")],
        "gpt-2": [gpt2],
        "mpt": [gpt2],
        "exaone4": [gpt2],
        "llama-bpe": [split(letters(r"\p{N}{1,3}") + spaces)],
        "dbrx": [split(letters(r"\p{N}{1,3}") + spaces)],
        "jais-2": [split(letters(r"\p{N}{1,3}") + "|" + by_powers)],
        "glm4": [split(letters(r"\p{N}{1,3}") + spaces)],
        "qwen2": [split(letters(r"\p{N}") + spaces)],
        "grok-2": [split(letters(r"\p{N}") + spaces)],
        "qwen35": [split(letters(r"\p{N}").replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"\s\p{L}", r"\s\p{L}\p{M}") + spaces)],
        "laguna": [lines, split(letters(r"\p{N}") + spaces)],
        "ufakzeka": [split(letters(r"\p{N}").removeprefix(ending + "|") + spaces)],
        "seed-coder": [split(letters(r"\p{N}{1}").replace(r"\p{N}]+[\r\n]*", r"\p{N}\r\n]+") + spaces)],
        "bailingmoe": [
            split(
                r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]" + spaces
            )
        ],
        "minicpm5": [up_to_3, split(letters(r"\p{N}+") + spaces)],
        "exaone-moe": [
            split(
                ending + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
                r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]" + spaces
            )
        ],
        "starcoder": [digits(individual_digits=True), gpt2],
        "command-r": [digits(individual_digits=True), gpt2],
        "exaone": [digits(individual_digits=True), gpt2],
        "falcon": [punctuation("contiguous"), gpt2, split("[0-9][0-9][0-9]")],
        "deepseek-llm": [split(r"[\r\n]"), split(CASED_LETTERS), split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), split(r"\s+$")]
        + [split("[一-龥ࠀ-一가-\ud7ff]+"), digits(individual_digits=True)],
        "deepseek-coder": [split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+")]
        + [split("[一-龥ࠀ-一가-\ud7ff]+"), digits(individual_digits=True)],
        "deepseek-v3": [up_to_3, east_asian, deepseek3],
        "spark2_5": [up_to_3, east_asian, split(deepseek + r"|[\r\n]" + spaces), split(r"\p{N}")],
        "afmoe": [
            # Digits in threes from the right, then runs of the scripts that don't separate words.
            split(r"\p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$))"),
            split(
                "[一-\u9fff㐀-\u4dbf\uf900-\ufaff\u3040-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0eff\u1780-\u17ff"
                "\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
            ),
            deepseek3,
        ],
        "bloom": [bloom],
        "viking": [bloom, digits(individual_digits=True)],
        "tekken": [split(cased("", r"\p{N}", r"\r\n/"))],
        "granite-embed-multi-97m": [gpt4o],
        "youtu": [
            split("[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\u3040-\u309f\u30a0-\u30ff]+"),
            split(cased(ending + "?", r"\p{N}", r"\r\n/")),
        ],
        "gpt-4o": [gpt4o],
        "tiny_aya": [split(r"\d{1,3}(?=(?:\d{3})*\b)"), gpt4o],
        "superbpe": [split(r"\p{N}+"), split(r"(?=(\d{3})+(?!\d))")],
        "chameleon": [split("<sentinel:[0-9]+>"), split("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z")]
        + [split(r"([\t\n]|    |  )"), digits(individual_digits=True), punctuation("isolated"), gpt2],
        "kimi-k2": [
            split(r"[\p{Han}]+|" + cased(ending + "?", r"\p{N}{1,3}", r"\r\n", "&&[^\\p{Han}]")),
        ],
        "gemma4": [lines],
        "sarvam-moe": [lines],
    }
