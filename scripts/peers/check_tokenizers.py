"""Trains small tokenizers of every kind with sentencepiece and tokenizers, and writes what they make of odd texts.

    pip install sentencepiece==0.2.3 tokenizers==0.23.3
    python scripts/peers/check_tokenizers.py tests/golden/tokenizers
    python scripts/peers/check_tokenizers.py --check target/release/openelm FOLDER 2000

The first writes the models and `cases.json`, which the tests read. The second trains the same kinds, with every normaliser, into a
folder and compares the ids of as many random texts with those of `openelm tokenizer encode`.
"""

import io
import json
import random
import subprocess
import sys
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

WORDS = (
    "the of and world sea house little bear river lantern garden story went came saw night café naïve straße Ünïcödé 日本語 "
    "テキスト Ωmega привет мир नमस्ते ﬁne １２３ Ⅳ ½ e\u0301le\u0300ve 😀 1234 2024 don't co-op <sep> [MASK] foo@bar"
).split(" ")

# What SentencePiece rewrites in the model `rules`: characters and runs of them, to more, fewer and nothing.
RULES = {"ﬁ": "fi", "½": "1/2", "\t": " ", "Ü": "ü", "e\u0301": "é", "\u200d": "", "～": "~", "ss": "ß"}

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)


def corpus():
    rng = random.Random(7)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, 14))) + rng.choice([".", "!", "...", " ?"]) for _ in range(1500)]


def sentencepiece_kinds():
    keep = dict(remove_extra_whitespaces=False)
    for kind in ("bpe", "unigram"):
        plain = dict(model_type=kind, normalization_rule_name="identity")
        yield f"{kind}_identity", plain
        yield f"{kind}_rules", dict(model_type=kind, rules=RULES)
        yield f"{kind}_bytes", plain | keep | dict(byte_fallback=True, character_coverage=0.98, vocab_size=420)
        yield f"{kind}_nosplit", plain | keep | dict(split_by_whitespace=False)
        yield f"{kind}_suffix", plain | keep | dict(treat_whitespace_as_suffix=True)
        yield f"{kind}_nodummy", plain | dict(add_dummy_prefix=False)
        yield f"{kind}_user", plain | dict(
            user_defined_symbols=["<sep>", "[MASK]", "▁of", " two", "ab", "zab", "é", "日本"], control_symbols=["<ctl>"]
        )
        yield f"{kind}_digits", plain | dict(split_digits=True, unk_surface="", allow_whitespace_only_pieces=True) | keep
        yield f"{kind}_long", plain | dict(max_sentencepiece_length=120, split_by_whitespace=False)


def large_kinds():
    """With the normalisers that come with sentencepiece, of 240 KB each."""
    for kind in ("bpe", "unigram"):
        for rule in ("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf"):
            yield f"{kind}_{rule}", dict(model_type=kind, normalization_rule_name=rule)
            yield f"{kind}_{rule}_keep", dict(model_type=kind, normalization_rule_name=rule, remove_extra_whitespaces=False)


def train_sentencepiece(folder, kinds):
    for name, options in kinds:
        options = dict(vocab_size=280, num_threads=1, minloglevel=2) | options
        if options["model_type"] == "unigram":
            options["hard_vocab_limit"] = False
        if rules := options.pop("rules", None):
            lines = [" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) for a, b in rules.items()]
            (folder / "rules.tsv").write_text("\n".join(lines) + "\n")
            options["normalization_rule_tsv"] = str(folder / "rules.tsv")
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(corpus()), model_writer=model, **options)
        (folder / "rules.tsv").unlink(missing_ok=True)
        (folder / f"{name}.model").write_bytes(model.getvalue())


def json_kinds():
    level, metaspace = pre_tokenizers.ByteLevel, pre_tokenizers.Metaspace
    digits, sequence = pre_tokenizers.Digits, pre_tokenizers.Sequence
    split = lambda pattern: sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), level(False, use_regex=False)])
    yield "gpt2", None, level(add_prefix_space=True), {}
    yield "smollm", None, sequence([digits(individual_digits=True), level(add_prefix_space=False)]), {}
    yield "llama3", None, split(LLAMA3), dict(ignore_merges=True)
    yield "qwen2", normalizers.NFC(), split(QWEN), {}
    spaces = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    yield "llama2", spaces, None, dict(byte_fallback=True, fuse_unk=True)
    yield "metaspace_first", None, metaspace(prepend_scheme="first", split=False), dict(fuse_unk=True)
    yield "metaspace_always", normalizers.NFKC(), metaspace(prepend_scheme="always"), dict(fuse_unk=False)


def train_json(folder):
    for name, normalizer, pre_tokenizer, options in json_kinds():
        is_bytes = "ByteLevel" in str(pre_tokenizer)
        tokenizer = Tokenizer(models.BPE(unk_token=None if is_bytes else "<unk>", **options))
        tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.Metaspace(prepend_scheme="first")
        special = [] if is_bytes else ["<unk>"]
        if options.get("byte_fallback"):
            special += [f"<0x{byte:02X}>" for byte in range(256)]
        alphabet = pre_tokenizers.ByteLevel.alphabet() if is_bytes else []
        trainer = trainers.BpeTrainer(
            vocab_size=420, special_tokens=special, initial_alphabet=alphabet, limit_alphabet=256, show_progress=False
        )
        tokenizer.train_from_iterator(corpus(), trainer)
        described = json.loads(tokenizer.to_str())
        described["added_tokens"] = [token for token in described["added_tokens"] if not token["content"].startswith("<0x")]
        tokenizer = Tokenizer.from_str(json.dumps(described))
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
        if is_bytes:
            tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(["<s>", "</s>"])
        kinds = dict(lstrip=("<l>", True), rstrip=("<r>", False), single_word=("word", False))
        for kind, (text, normalized) in kinds.items():
            tokenizer.add_tokens([AddedToken(text, normalized=normalized, **{kind: True})])
        tokenizer.add_tokens([AddedToken("the sea", normalized=True), AddedToken("x<s>y", normalized=False)])
        compact = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
        (folder / f"{name}.json").write_text(compact + "\n")


def texts(seed, count):
    rng = random.Random(seed)
    words = WORDS + (
        "ab zab zabc é two <s> </s> <unk> <ctl> <0x41> ▁ ▁▁ ▁the \u200d \u200b \ufeff \u3000 \u00a0 ～ ﷺ \u061c strasse word wordy "
        "wordé <l> <r> the\u0020sea x<s>y I'M it'll 'ſ 12345 १२ Ⅷ \r\n \n\n \t \u2028 ⓐ ͅ 👨\u200d👩 \U0001d518 \x00 \x07"
    ).split(" ")
    ranges = ((0, 0x250), (0x300, 0x370), (0x400, 0x460), (0x900, 0x980), (0x2000, 0x2190), (0x3000, 0x3100), (0xFF00, 0xFFEF))
    pool = [chr(code) for start, end in ranges for code in range(start, end)]

    def text():
        kind = rng.random()
        if kind < 0.5:
            return "".join(rng.choice(words) + rng.choice(["", " ", " ", "  "]) for _ in range(rng.randint(0, 12)))
        if kind < 0.8:
            return "".join(rng.choice([rng.choice(pool), rng.choice(words), " ", "\n"]) for _ in range(rng.randint(0, 16)))
        if kind < 0.9:
            return "".join(rng.choices("abehotzx 1▁'", k=rng.randint(0, 50)))
        return rng.choice(pool + words) * rng.randint(1, 60) + rng.choice(["", " ", "  x"])

    fixed = ["", " ", "  ", "x", "a  b", " a b ", "of the of the", "word word", "a <l> b", "a <r>  b", "\u200d", "Hello  World...  "]
    return fixed + [text() for _ in range(count)]


def peer(path):
    """What encodes and what decodes by the file at `path`; decoding by a tokenizer.json is compared for bytes alone."""
    if path.suffix == ".model":
        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        return model.encode, model.decode
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    is_bytes = '"ByteLevel"' in path.read_text()
    return (lambda text: tokenizer.encode(text, add_special_tokens=False).ids), (tokenizer.decode if is_bytes else None)


def tokenizers_in(folder):
    return sorted(path for path in folder.iterdir() if path.suffix in (".model", ".json") and path.name != "cases.json")


def write(folder):
    train_sentencepiece(folder, sentencepiece_kinds())
    train_json(folder)
    inputs = texts(1, 60)
    cases = {"texts": inputs, "tokenizers": {}}
    for path in tokenizers_in(folder):
        encode, decode = peer(path)
        ids = [encode(text) for text in inputs]
        cases["tokenizers"][path.name] = {"ids": ids} | ({"decoded": [decode(row) for row in ids]} if decode else {})
    (folder / "cases.json").write_text(json.dumps(cases, ensure_ascii=False, separators=(",", ":")) + "\n")


def check(openelm, folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    train_sentencepiece(folder, [*sentencepiece_kinds(), *large_kinds()])
    train_json(folder)
    inputs = texts(2, count)
    for path in tokenizers_in(folder):
        encode, _ = peer(path)
        wrong = 0
        for text in inputs:
            run = subprocess.run([openelm, "tokenizer", "encode", path], input=text, capture_output=True, text=True, check=True)
            wrong += json.loads(run.stdout) != encode(text)
        print(f"{path.name}: {wrong} of {len(inputs)} differ")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--check", openelm, folder, count]:
            check(openelm, Path(folder), int(count))
        case [folder]:
            write(Path(folder))
        case _:
            sys.exit(__doc__)
