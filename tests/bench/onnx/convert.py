"""Writes a GGUF file of the Llama family as the files that transformers.js loads, for `./x bench`.

    python convert.py MODEL.gguf FOLDER GOLDEN

FOLDER gets config.json, generation_config.json, tokenizer.json, tokenizer_config.json, onnx/model.onnx (32-bit floats, dequantised from the GGUF)
and onnx/model_q4.onnx (onnxruntime's own 4-bit blocks of 32). The graph is built here, with the fused operators of onnxruntime that published
ONNX models of this family have (GroupQueryAttention with rotary embedding, SkipSimplifiedLayerNormalization, logits of the last position only), so
that the peer is measured at its best, and without PyTorch, whose wheels take gigabytes. What was written is then run natively: GOLDEN, a folder as
tests/golden/smollm2-135m-instruct-q4_1, has log-probabilities from PyTorch and token ids that it must give.
"""

import json
import logging
import sys
from pathlib import Path

import gguf
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

# Differences of log-probabilities that another order of additions in 32-bit floats can make.
TOLERANCE = 1e-3
# Of the golden greedy steps, how many the 4-bit file must choose alike: 0.78 was found. The blocks of the file's matrices come through nearly as they
# were; the output projection, 8 bits in the file, loses half of them, as in published 4-bit files.
Q4_AGREEMENT = 0.7
BLOCK_SIZE = 32
OPSET = 21


class Source:
    """A GGUF file: its metadata, and its tensors as 32-bit floats."""

    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        architecture = self.field("general.architecture")
        if architecture != "llama":
            raise SystemExit(f"{path} is of the architecture {architecture}: only llama can be converted")

        def number(name):
            return self.field(f"llama.{name}")

        self.n_layers = number("block_count")
        self.hidden = number("embedding_length")
        self.n_heads = number("attention.head_count")
        self.n_kv_heads = number("attention.head_count_kv")
        self.head_size = self.hidden // self.n_heads
        self.feed_forward = number("feed_forward_length")
        self.context = number("context_length")
        self.epsilon = number("attention.layer_norm_rms_epsilon")
        self.rope_base = number("rope.freq_base")
        self.vocabulary = self.field("tokenizer.ggml.tokens")

    def field(self, name):
        return self.reader.fields[name].contents()

    def weight(self, name):
        """A matrix as [out, in], or a vector."""
        tensor = self.tensors[f"{name}.weight"]
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)

    def projection(self, name, n_heads=None):
        """A matrix as MatMul wants it, [in, out].

        llama.cpp keeps the rows of queries and keys interleaved, pair by pair; with `n_heads` they are put back into halves.
        """
        weight = self.weight(name)
        if n_heads is not None:
            pairs = weight.reshape(n_heads, self.head_size // 2, 2, self.hidden)
            weight = pairs.swapaxes(1, 2).reshape(weight.shape)
        return np.ascontiguousarray(weight.T)


class Graph:
    """Nodes and initializers, while they are put together."""

    def __init__(self):
        self.nodes = []
        self.initializers = []

    def constant(self, name, array):
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def add(self, operator, inputs, name, n_outputs=1, outputs=None, domain="", **attributes):
        outputs = outputs or [name] + [f"{name}.{i}" for i in range(1, n_outputs)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=f"/{name}", domain=domain, **attributes))
        return outputs if len(outputs) > 1 else outputs[0]

    def matmul(self, value, weight, name):
        return self.add("MatMul", [value, self.constant(f"{name}.weight", weight)], name)


def build(source, for_q4):
    """The decoder with its key-value cache. For 4 bits the output projection is a matrix of its own, which the quantiser can find."""
    graph = Graph()
    embedding = source.weight("token_embd")
    is_tied = "output.weight" not in source.tensors
    graph.constant("embedding", embedding)
    hidden = graph.add("Gather", ["embedding", "input_ids"], "embedded")
    cosines, sines = rotary_tables(source)
    graph.constant("cosines", cosines)
    graph.constant("sines", sines)
    lengths = sequence_lengths(graph)

    normed = graph.add(
        "SimplifiedLayerNormalization",
        [hidden, graph.constant("layer.0.attention_norm.weight", source.weight("blk.0.attn_norm"))],
        "layer.0.attention_norm",
        epsilon=source.epsilon,
        axis=-1,
        stash_type=1,
    )
    caches = []
    for i in range(source.n_layers):
        normed, hidden, outputs = layer(graph, source, i, normed, hidden, lengths)
        caches += outputs

    last = last_positions(graph, normed)
    if is_tied and not for_q4:
        # One matrix serves both ends; Gemm reads it transposed as it is.
        flat = graph.add("Reshape", [last, graph.constant("rows", np.array([-1, source.hidden], np.int64))], "flat")
        scores = graph.add("Gemm", [flat, "embedding"], "scores", transB=1)
        shape = graph.add("Concat", [graph.add("Shape", [last], "two", start=0, end=2), graph.constant("minus_one", np.array([-1], np.int64))], "shape", axis=0)
        graph.add("Reshape", [scores, shape], "logits")
    else:
        output = embedding if is_tied else source.weight("output")
        graph.matmul(last, np.ascontiguousarray(output.T), "logits")
    return model_of(graph, source, caches)


def rotary_tables(source):
    halves = np.arange(0, source.head_size, 2, dtype=np.float64)
    angles = np.outer(np.arange(source.context), source.rope_base ** (-halves / source.head_size))
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def sequence_lengths(graph):
    """What attention is told of lengths: the last position of each row, and how many positions there are."""
    graph.constant("one", np.array([1], np.int64))
    total = graph.add("ReduceSum", ["attention_mask", "one"], "n_positions", keepdims=0)
    last = graph.add("Cast", [graph.add("Sub", [total, "one"], "last_position")], "last_position_32", to=TensorProto.INT32)
    width = graph.add("Gather", [graph.add("Shape", ["attention_mask"], "mask_shape"), graph.constant("second", np.array(1, np.int64))], "width", axis=0)
    return [last, graph.add("Cast", [width], "width_32", to=TensorProto.INT32)]


def layer(graph, source, i, normed, hidden, lengths):
    name = f"layer.{i}"
    block = f"blk.{i}"
    query_key_value = np.concatenate(
        [
            source.projection(f"{block}.attn_q", source.n_heads),
            source.projection(f"{block}.attn_k", source.n_kv_heads),
            source.projection(f"{block}.attn_v"),
        ],
        axis=1,
    )
    packed = graph.matmul(normed, query_key_value, f"{name}.query_key_value")
    cache = [f"present.{i}.key", f"present.{i}.value"]
    attended = graph.add(
        "GroupQueryAttention",
        [packed, "", "", f"past_key_values.{i}.key", f"past_key_values.{i}.value", *lengths, "cosines", "sines"],
        f"{name}.attention",
        outputs=[f"{name}.attention", *cache],
        domain="com.microsoft",
        num_heads=source.n_heads,
        kv_num_heads=source.n_kv_heads,
        do_rotary=1,
        rotary_interleaved=0,
    )[0]
    attended = graph.matmul(attended, source.projection(f"{block}.attn_output"), f"{name}.attention_output")
    normed, hidden = add_and_norm(graph, source, hidden, attended, f"{block}.ffn_norm", f"{name}.feed_forward_norm")
    gate = graph.matmul(normed, source.projection(f"{block}.ffn_gate"), f"{name}.gate")
    up = graph.matmul(normed, source.projection(f"{block}.ffn_up"), f"{name}.up")
    swish = graph.add("Mul", [gate, graph.add("Sigmoid", [gate], f"{name}.sigmoid")], f"{name}.swish")
    product = graph.add("Mul", [swish, up], f"{name}.product")
    down = graph.matmul(product, source.projection(f"{block}.ffn_down"), f"{name}.down")
    following = "output_norm" if i + 1 == source.n_layers else f"blk.{i + 1}.attn_norm"
    normed, hidden = add_and_norm(graph, source, hidden, down, following, f"{name}.following_norm")
    return normed, hidden, cache


def add_and_norm(graph, source, hidden, addend, weight, name):
    """The normalised sum, and the sum itself."""
    inputs = [hidden, addend, graph.constant(f"{name}.weight", source.weight(weight))]
    outputs = [name, "", "", f"{name}.sum"]
    graph.add("SkipSimplifiedLayerNormalization", inputs, name, outputs=outputs, domain="com.microsoft", epsilon=source.epsilon)
    return name, f"{name}.sum"


def last_positions(graph, hidden):
    """The last `num_logits_to_keep` positions; all, if that is 0."""
    count = graph.add("Reshape", ["num_logits_to_keep", "one"], "count")
    start = graph.add("Neg", [count], "start")
    end = graph.constant("end", np.array([np.iinfo(np.int64).max], np.int64))
    return graph.add("Slice", [hidden, start, end, "one"], "last_hidden")


def model_of(graph, source, caches):
    def value(name, shape, kind=TensorProto.FLOAT):
        return helper.make_tensor_value_info(name, kind, shape)

    def cache(name, length):
        return value(name, ["batch_size", source.n_kv_heads, length, source.head_size])

    inputs = [
        value("input_ids", ["batch_size", "sequence_length"], TensorProto.INT64),
        value("attention_mask", ["batch_size", "total_sequence_length"], TensorProto.INT64),
        value("num_logits_to_keep", [], TensorProto.INT64),
    ]
    names = [f"past_key_values.{i}.{part}" for i in range(source.n_layers) for part in ("key", "value")]
    inputs += [cache(name, "past_sequence_length") for name in names]
    outputs = [value("logits", ["batch_size", "kept_length", len(source.vocabulary)])]
    outputs += [cache(name, "total_sequence_length") for name in caches]
    whole = helper.make_graph(graph.nodes, "decoder", inputs, outputs, graph.initializers)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(whole, opset_imports=opsets, ir_version=10, producer_name="cinderlm-bench")


def tokenizer_of(source):
    """The byte-level vocabulary with the splitting that the file asks for."""
    kind, split = source.field("tokenizer.ggml.model"), source.field("tokenizer.ggml.pre")
    if (kind, split) != ("gpt2", "smollm"):
        raise SystemExit(f"the tokenizer {kind}/{split} cannot be converted: only gpt2/smollm can")
    vocabulary = {text: i for i, text in enumerate(source.vocabulary)}
    merges = [tuple(merge.split(" ")) for merge in source.field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    control = [text for text, kind in zip(source.vocabulary, source.field("tokenizer.ggml.token_type")) if kind == gguf.TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in control])
    return tokenizer


def write_configuration(source, tokenizer, folder):
    """No end-of-text token is named, so that generation goes on for as long as it is measured."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": source.hidden,
        "intermediate_size": source.feed_forward,
        "num_hidden_layers": source.n_layers,
        "num_attention_heads": source.n_heads,
        "num_key_value_heads": source.n_kv_heads,
        "head_dim": source.head_size,
        "max_position_embeddings": source.context,
        "rms_norm_eps": source.epsilon,
        "rope_theta": source.rope_base,
        "vocab_size": len(source.vocabulary),
        "tie_word_embeddings": "output.weight" not in source.tensors,
    }
    tokenizer_config = {"tokenizer_class": "GPT2Tokenizer", "clean_up_tokenization_spaces": False, "model_max_length": source.context}
    for name, content in [("config", config), ("generation_config", {}), ("tokenizer_config", tokenizer_config)]:
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))


def quantise(model):
    logging.disable(logging.INFO)  # It tells of each node.
    quantizer = MatMulNBitsQuantizer(model, block_size=BLOCK_SIZE, is_symmetric=False, accuracy_level=4)
    quantizer.process()
    return quantizer.model.model


def check_tokenizer(tokenizer, golden):
    rows = json.loads((golden / "tokenize.json").read_text())["rows"]
    wrong = [row["text"] for row in rows if tokenizer.encode(row["text"]).ids != row["ids"]]
    if wrong:
        raise SystemExit(f"the tokenizer splits {len(wrong)} of {len(rows)} texts otherwise, such as {wrong[0]!r}")


def check_logits(path, source, golden):
    """The share of golden greedy steps that are chosen alike, and the largest difference of the golden log-probabilities."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    n_alike, n_steps, furthest = 0, 0, 0.0
    for case in json.loads((golden / "greedy.json").read_text())["cases"]:
        cache = {
            f"past_key_values.{i}.{part}": np.zeros((1, source.n_kv_heads, 0, source.head_size), np.float32)
            for i in range(source.n_layers)
            for part in ("key", "value")
        }
        ids = case["prompt_ids"]
        n_positions = 0
        for top, chosen in zip(case["fp32_top5"], case["fp32_ids"]):
            n_positions += len(ids)
            feed = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, n_positions), np.int64), "num_logits_to_keep": np.array(1), **cache}
            logits, *present = session.run(None, feed)
            cache = dict(zip(cache, present))
            scores = logits[0, -1].astype(np.float64)
            logprobs = scores - scores.max() - np.log(np.exp(scores - scores.max()).sum())
            furthest = max(furthest, *(abs(logprobs[token] - expected) for token, expected in top))
            n_alike += int(logprobs.argmax() == chosen)
            n_steps += 1
            ids = [chosen]
    return n_alike / n_steps, furthest


def main():
    path, folder, golden = (Path(argument) for argument in sys.argv[1:])
    source = Source(path)
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer_of(source)
    check_tokenizer(tokenizer, golden)
    write_configuration(source, tokenizer, folder)

    full = folder / "onnx/model.onnx"
    onnx.save(build(source, for_q4=False), full)
    share, furthest = check_logits(full, source, golden)
    print(f"{full.name}: {share:.1%} of the golden steps alike, log-probabilities differ by at most {furthest:.1e}")
    if share < 1 or furthest > TOLERANCE:
        raise SystemExit(f"{full.name} is not the model that the golden data were made from")

    small = folder / "onnx/model_q4.onnx"
    onnx.save(quantise(build(source, for_q4=True)), small)
    share, furthest = check_logits(small, source, golden)
    print(f"{small.name}: {share:.1%} of the golden steps alike, log-probabilities differ by at most {furthest:.1e}")
    if share < Q4_AGREEMENT:
        raise SystemExit(f"{small.name} has lost too much")


if __name__ == "__main__":
    main()
