"""The byte-level BPE vocabulary that every tiny model carries, in GGUF's and in `tokenizers`' form."""

import json
from dataclasses import dataclass

from gguf import TokenType
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

BOS = "<|endoftext|>"
EOS = "<|im_end|>"
SPECIAL = [BOS, "<|im_start|>", EOS]
VOCAB_SIZE = 320

# Written for this purpose.
RHYME = """\
A cinder slept beside the grate,
the night was cold, the hour was late.
A draught came in beneath the door
and rolled the cinder on the floor.
It glowed, it hummed, it told a tale
of ships and coal and winter gale."""

# The pre-tokenizer named in the file, by architecture.
PRE = {"llama": "smollm", "qwen2": "qwen2", "qwen3": "qwen2"}


@dataclass
class Vocabulary:
    tokenizer: Tokenizer
    tokens: list[str]
    merges: list[str]
    pre: str

    @property
    def bos(self):
        return self.tokens.index(BOS)

    @property
    def eos(self):
        return self.tokens.index(EOS)

    def encode(self, text):
        return self.tokenizer.encode(text).ids

    def decode(self, ids):
        return self.tokenizer.decode(ids)

    def write(self, writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types([TokenType.CONTROL if t in SPECIAL else TokenType.NORMAL for t in self.tokens])
        writer.add_token_merges(self.merges)
        writer.add_bos_token_id(self.bos)
        writer.add_eos_token_id(self.eos)
        writer.add_add_bos_token(False)


def make_vocabulary(family):
    """Special tokens, the 256 bytes, then merges learnt from the rhyme."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([RHYME], trainer)
    ids = tokenizer.get_vocab()
    tokens = sorted(ids, key=ids.get)
    return Vocabulary(tokenizer, tokens, merges_of(tokenizer), PRE[family])


def merges_of(tokenizer):
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]
