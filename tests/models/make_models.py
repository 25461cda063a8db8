#!/usr/bin/env python3
"""Makes the tiny seeded models of tests/golden/models and their float32 reference logits.

    python3 -m venv .venv && .venv/bin/pip install -r tests/models/requirements.txt
    .venv/bin/python tests/models/make_models.py [name ...]

For each model a GGUF file is written, read back, dequantised to float32 and run by `transformers`. Beside `<name>.gguf` lies
`<name>.json`:

    ids        the token ids that were fed
    positions  the positions whose logits are kept
    logits     base64 of little-endian float32, [len(positions), vocab_size]
    greedy     (trained model only) prompts with their greedy continuations

Weights are random, except that `tiny-llama` is trained for a moment on a rhyme, so that greedy text is readable and its margins
are wide enough to hold on every device. Files are reproducible on one version of torch; a new version may change them, and then
both files of a model are committed together.
"""

import base64
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from blocks import random_blocks, shape_of
from vocabulary import RHYME, make_vocabulary

OUT = Path(__file__).resolve().parent.parent / "golden" / "models"
CONTEXT = 512
SEQUENCE = 150  # three KV blocks of 64 tokens
POSITIONS = [0, 1, 2, 17, 31, 32, 62, 63, 64, 65, 127, 128, 129, 149]

FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}

# GGUF name to transformers name; `{}` is the layer.
GLOBAL_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_NAMES = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_q.bias": "self_attn.q_proj.bias",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_v.bias": "self_attn.v_proj.bias",
    "attn_output.weight": "self_attn.o_proj.weight",
    "attn_output.bias": "self_attn.o_proj.bias",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}


@dataclass
class Spec:
    """One model: its family, its shape, and the block type of each weight."""

    name: str
    seed: int
    family: str = "llama"
    hidden: int = 64
    ffn: int = 96
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int | None = None
    tied: bool = True
    base: float = 10000.0
    rope: dict = field(default_factory=lambda: {"rope_type": "default"})
    config: dict = field(default_factory=dict)
    types: dict = field(default_factory=dict)  # GGUF name without the layer -> Type
    default_type: Type = Type.F32
    trained: bool = False


SPECS = [
    Spec("tiny-llama", 1, base=100000.0, default_type=Type.F16, trained=True),
    Spec("llama-untied-biases", 2, hidden=32, ffn=64, kv_heads=4, tied=False,
         config={"attention_bias": True}),
    Spec("llama-rope-freqs", 3, hidden=32, ffn=64,
         rope={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}),
    Spec("llama-rope-linear", 4, hidden=32, ffn=64, kv_heads=1, rope={"rope_type": "linear", "factor": 4.0}),
    Spec("llama-rope-yarn", 5, hidden=32, ffn=64, head_dim=16,
         rope={"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}),
    Spec("qwen2-biases", 6, family="qwen2", hidden=32, ffn=64, base=1000000.0),
    Spec("qwen3-head-norms", 7, family="qwen3", hidden=32, ffn=64, head_dim=16, base=1000000.0),
    Spec("llama-q4_1-q8_0", 8, default_type=Type.Q4_1, types={"token_embd.weight": Type.Q8_0}),
    Spec("llama-q4_0-q5", 9, tied=False, default_type=Type.Q4_0,
         types={"attn_v.weight": Type.Q5_0, "ffn_down.weight": Type.Q5_1, "output.weight": Type.BF16,
                "token_embd.weight": Type.F16}),
    Spec("llama-k-quants", 10, hidden=256, ffn=256, layers=1, default_type=Type.Q4_K,
         types={"attn_k.weight": Type.Q5_K, "attn_v.weight": Type.Q6_K, "attn_output.weight": Type.Q3_K,
                "ffn_gate.weight": Type.Q2_K, "token_embd.weight": Type.Q6_K}),
]


def torch_config(spec, vocab_size):
    config_class, _ = FAMILIES[spec.family]
    return config_class(
        vocab_size=vocab_size,
        hidden_size=spec.hidden,
        intermediate_size=spec.ffn,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.kv_heads,
        head_dim=spec.head_dim or spec.hidden // spec.heads,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_theta": spec.base, **spec.rope},
        tie_word_embeddings=spec.tied,
        initializer_range=spec.hidden**-0.5,
        attn_implementation="eager",
        **spec.config,
    )


def gguf_names(spec, state):
    """Pairs of GGUF and transformers names, in the order in which tensors are written."""
    pairs = [(ours, theirs) for ours, theirs in GLOBAL_NAMES.items() if not (spec.tied and ours == "output.weight")]
    for layer in range(spec.layers):
        pairs += [(f"blk.{layer}.{a}", f"model.layers.{layer}.{b}") for a, b in LAYER_NAMES.items()]
    return [(ours, theirs) for ours, theirs in pairs if theirs in state]


def is_rotated(spec, name):
    """Whether GGUF stores this tensor with its rope pairs interleaved; only the llama architecture does."""
    return spec.family == "llama" and (".attn_q." in name or ".attn_k." in name)


def interleave(values, n_heads):
    """Halves layout (transformers) to interleaved layout (GGUF): pair (i, i + half) becomes (2i, 2i + 1)."""
    rows = values.reshape(n_heads, 2, -1, *values.shape[1:])
    return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(values.shape)


def deinterleave(values, n_heads):
    rows = values.reshape(n_heads, -1, 2, *values.shape[1:])
    return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(values.shape)


def heads_of(spec, name):
    return spec.kv_heads if "attn_k" in name else spec.heads


def block_type(spec, name, values):
    if values.ndim == 1:
        return Type.F32  # norms and biases, as GGUF files have them
    short = name.split(".", 2)[2] if name.startswith("blk.") else name
    return spec.types.get(short, spec.default_type)


def encode(spec, name, values, rng):
    """Raw GGUF data of one tensor and its type."""
    kind = block_type(spec, name, values)
    if kind in (Type.F32, Type.F16):
        return values.astype(np.float32 if kind == Type.F32 else np.float16), kind
    if kind.name.endswith("_K"):
        return random_blocks(kind, values.shape, rng), kind
    return gguf.quants.quantize(values, kind), kind


def jitter(model, generator):
    """Gives norms and biases values that a mistake in them would show in."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.copy_(1 + 0.2 * torch.randn(parameter.shape, generator=generator))
            elif name.endswith(".bias"):
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))


def train(model, ids, generator):
    """A few hundred steps on one document that starts and ends with the vocabulary's special tokens."""
    document = torch.tensor([ids])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(400):
        loss = model(document, labels=document).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"  trained to a loss of {loss.item():.4f}")


def write_metadata(writer, spec, model, vocabulary):
    writer.add_name(spec.name)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(spec.hidden)
    writer.add_block_count(spec.layers)
    writer.add_feed_forward_length(spec.ffn)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(spec.base)
    head_dim = spec.head_dim or spec.hidden // spec.heads
    if spec.head_dim is not None:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if spec.family == "llama":
        writer.add_rope_dimension_count(head_dim)
        writer.add_vocab_size(len(vocabulary.tokens))
    kind = spec.rope["rope_type"]
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(spec.rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(spec.rope["original_max_position_embeddings"])
    if kind == "llama3":
        plain = spec.base ** -(np.arange(0, head_dim, 2) / head_dim)
        scaled = model.model.rotary_emb.inv_freq.double().numpy()
        writer.add_tensor("rope_freqs.weight", (plain / scaled).astype(np.float32))
    vocabulary.write(writer)


def write_gguf(spec, model, vocabulary, path):
    rng = np.random.default_rng(spec.seed)
    state = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    writer = gguf.GGUFWriter(path, spec.family)
    write_metadata(writer, spec, model, vocabulary)
    for ours, theirs in gguf_names(spec, state):
        values = state[theirs]
        if is_rotated(spec, ours):
            values = interleave(values, heads_of(spec, ours))
        data, kind = encode(spec, ours, values, rng)
        writer.add_tensor(ours, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load_back(spec, model, path):
    """Puts the file's own values, dequantised, into the reference model."""
    state = model.state_dict()
    names = dict(gguf_names(spec, state))
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.name not in names:
            continue
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape_of(tensor))
        if is_rotated(spec, tensor.name):
            values = deinterleave(values, heads_of(spec, tensor.name))
        state[names.pop(tensor.name)].copy_(torch.from_numpy(values.astype(np.float32)))
    assert not names, f"not in the file: {names}"


def greedy(model, ids, n_tokens, stop):
    out = []
    for _ in range(n_tokens):
        logits = model(torch.tensor([ids + out])).logits[0, -1]
        best = torch.topk(logits.log_softmax(-1), 2)
        out.append(int(best.indices[0]))
        assert best.values[0] - best.values[1] > 0.2, "margin too small to hold on every device"
        if out[-1] == stop:
            break
    return out


def make(spec):
    print(spec.name)
    vocabulary = make_vocabulary(spec.family)
    generator = torch.Generator().manual_seed(spec.seed)
    torch.manual_seed(spec.seed)
    _, model_class = FAMILIES[spec.family]
    model = model_class(torch_config(spec, len(vocabulary.tokens))).float()
    jitter(model, generator)
    document = [vocabulary.bos, *vocabulary.encode(RHYME), vocabulary.eos]
    if spec.trained:
        train(model, document, generator)
    path = OUT / f"{spec.name}.gguf"
    write_gguf(spec, model, vocabulary, path)
    model.eval()
    reference = {}
    with torch.no_grad():
        load_back(spec, model, path)
        if spec.trained:
            ids = (document * 3)[:SEQUENCE]
            reference["greedy"] = []
            for n_prompt in (1, 6, 25):
                out = greedy(model, document[:n_prompt], len(document), vocabulary.eos)
                reference["greedy"].append({"prompt": document[:n_prompt], "tokens": out, "text": vocabulary.decode(out)})
        else:
            ids = torch.randint(0, len(vocabulary.tokens), (SEQUENCE,), generator=generator).tolist()
        logits = model(torch.tensor([ids])).logits[0, POSITIONS].numpy().astype("<f4")
    print(f"  {path.stat().st_size} bytes, logits {logits.min():.2f} to {logits.max():.2f}, deviation {logits.std():.2f}")
    reference = {
        "ids": ids,
        "positions": POSITIONS,
        "vocab_size": logits.shape[1],
        "logits": base64.b64encode(logits.tobytes()).decode(),
        **reference,
    }
    path.with_suffix(".json").write_text(json.dumps(reference) + "\n")


def main():
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    wanted = set(sys.argv[1:])
    unknown = wanted - {spec.name for spec in SPECS}
    if unknown:
        sys.exit(f"no such model: {', '.join(sorted(unknown))}")
    for spec in SPECS:
        if not wanted or spec.name in wanted:
            make(spec)


if __name__ == "__main__":
    main()
