# /// script
# dependencies = ["tokenizers==0.23.3", "sentencepiece==0.2.3"]
# ///
"""Writes the tokenizer references into tests/golden/tokenizer/.

Trains a tiny byte-level vocabulary and two tiny SentencePiece ones, and records what `tokenizers` and `sentencepiece` make of odd
strings: ids, and for each named pattern where its words end. The byte-level vocabulary is trained without a pattern, so that its
merges cross word boundaries and a wrong cut shows in the ids.

Run from anywhere: python tests/models/make_tokenizers.py
"""

import io
import json
import pathlib

import sentencepiece
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden" / "tokenizer"

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog doesn't mind.",
    "In 2024 there were 1,234,567 visitors; 3.14159 isn't 22/7 but it's close.",
    "def main(argument):\n    if argument == 10:\n        return [1, 2, 3]\n\n    print('done')\n",
    "We'll see what they've done; I'd say you're right. IT'S FINE, DON'T WORRY.",
    "Größe, naïve café, çok güzel, привет мир, γειά σου Κόσμε.",
    "你好，世界！今天天气很好。こんにちは世界。안녕하세요 세계.",
    "line one\nline two\r\n\r\n  indented\n\n\n\tand tabs\t\tand   spaces   here  ",
    "https://example.org/path?query=value&other=1#part (see also <b>bold</b> text)...",
    "हिन्दी में कुछ शब्द और বাংলা ভাষা",
    "CamelCaseWords andSnake_case_words XMLHttpRequest iPhone McDonald's",
]

TEXTS = [
    "", " ", "  ", "   ", "\n", "\n\n", " \n", "\n ", "\r\n", "\t", "\t\t", "\u3000", "\u00a0\u00a0x", "a", " a", "a ", "  a", "a  b",
    "a   b", "a\nb", "a\n\nb", "a \n b", "a\n  b", "a  \n\n  b", "a\r\n\r\nb", "\n\n\nend", "end\n\n\n", "x\t\ty", " \t x",
    "Hello world", "Hello  world   !", " leading", "trailing ", "the dog", "THE DOG", "don't", "DON'T", "don\u2019t", "we'll they've I'm",
    "WE'LL THEY'VE I'M", "it'\u017f", "it'S'T'Re'vE", "'sword 'tis 're", "x'sy", "''s", "o'clock 'lls",
    "1", "12", "123", "1234", "1234567", " 123 4567", "3.14159", "1,000,000.00", "a1b22c333d4444", "\u0661\u0662\u0663\u0664", "\u00bd\u00b2\u2167", "x2024-06-30",
    "!", "!!", "!!!", " !!!", "a!b", "a !b", "...\n", "?!\n\n", "(a)", "[1, 2, 3]\n", "x == 10:\n    y", "a/b//c/", "http://example.org/path?q=1#x",
    "<b>bold</b>", "$100 + \u20ac5 = \u00a3?", "a_b_c __init__", "`code` ~tilde~ ^hat^ |pipe|", "#tag @user", "-1 --flag", "{}[]()\n\n{}",
    "Größe naïve café", "привет мир", "γειά σου", "你好，世界！", "今天天气很好。こんにちは", "안녕하세요 세계", "हिन्दी में", "বাংলা ভাষা", "e\u0301a\u0300 \u0301x", "ﬁ ﬂ",
    "CamelCase XMLHttpRequest", "iPhone's McDONALD's", "ǅungla ʰa ªº", "🦀", "👩\u200d👩\u200d👧 family", "a🦀b 🦀c", "\U00010348\U0001d11e", "\u200b\u200d\ufeff",
    "\x00\x01\x7f", "\u0085x\u2028y", "\u1680\u2003z", "tab\tthen  two\n\n\n  spaces   \n", "\u2581under\u2581score", " \u2581", "<s>not special</s>", "<0x41>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "the the the the the the the", "line one\nline two\r\n\r\n  indented",
]

CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA_3 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CASED_END = r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LOWER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
UPPER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"

# By `tokenizer.ggml.pre`: the patterns of each model's published tokenizer.json, run in turn.
PATTERNS = {
    "default": [r"[\p{P}\$\+<=>\^~\|]+", GPT_2, r"\p{N}+", "[0-9][0-9][0-9]"],
    "gpt-2": [GPT_2],
    "smollm": [r"\p{N}", GPT_2],
    "llama-bpe": [LLAMA_3],
    "dbrx": [LLAMA_3],
    "qwen2": [LLAMA_3.replace("{1,3}", "")],
    "qwen35": [
        CONTRACTION
        + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
    "tekken": [LOWER + "|" + UPPER + CASED_END.replace("{1,3}", "")],
    "gpt-4o": [LOWER + CONTRACTION + "?|" + UPPER + CONTRACTION + "?" + CASED_END],
    "deepseek-coder": ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}"],
    "deepseek-v3": [
        r"\p{N}{1,3}",
        "[一-龥\u3040-ゟ゠-ヿ]+",
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT_2, "[0-9][0-9][0-9]"],
    "bloom": [" ?[^(\\s|.,!?…。，、।۔،)]+"],
    "viking": [" ?[^(\\s|.,!?…。，、।۔،)]+", r"\p{N}"],
}
# Families that take a word that is a token without merging it.
WHOLE_WORDS = {"llama-bpe", "tekken"}


def splitter(pre):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PATTERNS[pre]])


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    # A token that no merge makes: only families that take whole words can give it.
    model["vocab"]["Ġworld"] = len(model["vocab"])
    merges = [tuple(merge) for merge in model["merges"]]

    rows = [{"text": text, "word_ends": {}, "ids": {}} for text in TEXTS]
    for pre in PATTERNS:
        tokenizer = Tokenizer(models.BPE(vocab=model["vocab"], merges=merges, ignore_merges=pre in WHOLE_WORDS))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [splitter(pre), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        for row in rows:
            words = splitter(pre).pre_tokenize_str(row["text"])
            row["word_ends"][pre] = [len(row["text"][:end].encode()) for _, (_, end) in words]
            row["ids"][pre] = tokenizer.encode(row["text"]).ids
    tokens = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    return {"tokens": tokens, "merges": [" ".join(merge) for merge in merges], "rows": rows}


def sentence_piece(add_space_prefix, user_defined):
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in CORPUS for line in text.split("\n")),
        model_writer=trained,
        model_type="bpe",
        vocab_size=620,
        byte_fallback=True,
        add_dummy_prefix=add_space_prefix,
        user_defined_symbols=user_defined,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())

    def token_type(token):
        if model.is_unknown(token):
            return 2
        if model.is_control(token):
            return 3
        if model.id_to_piece(token) in user_defined:
            return 4
        return 6 if model.is_byte(token) else 1

    ids = range(model.get_piece_size())
    return {
        "tokens": [model.id_to_piece(token) for token in ids],
        "scores": [model.get_score(token) for token in ids],
        "token_types": [token_type(token) for token in ids],
        "add_space_prefix": add_space_prefix,
        "rows": [{"text": text, "ids": model.encode(text)} for text in TEXTS],
    }


def write(name, golden):
    """One row a line, so that a changed row shows as one in a diff."""
    rows = ",\n".join(json.dumps(row, ensure_ascii=True, separators=(",", ":")) for row in golden.pop("rows"))
    head = json.dumps(golden, ensure_ascii=False, separators=(",", ":"))
    (GOLDEN / name).write_text(f'{head[:-1]},"rows":[\n{rows}\n]}}\n')


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    write("byte_level.json", byte_level())
    write("sentencepiece.json", sentence_piece(True, []))
    write("sentencepiece_user_defined.json", sentence_piece(False, ["<tool>", "▁▁", "\n"]))
