#!/usr/bin/env python3
"""Writes tests/golden/codecs/: random blocks of every tensor type and the values they stand for.

The values come from the reference decoders in PyPI's `gguf` (0.19.0; needs numpy). Per type there is `<TYPE>.blocks`, whole ggml
blocks, and `<TYPE>.f32`, the values as little-endian float32. Everything is seeded: a second run changes no byte.

    pip install gguf==0.19.0 && python3 tests/models/make_codecs.py
"""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, quants
from gguf.constants import GGML_QUANT_SIZES

OUT = Path(__file__).resolve().parent.parent / "golden" / "codecs"
N_VALUES = 512

# Byte offsets of the f16 fields of a block: random bits there would mostly be huge, infinite or not a number.
HALVES = {
    "F32": [],
    "F16": [0],
    "BF16": [],
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}


def random_blocks(name: str, rng: np.random.Generator) -> np.ndarray:
    block_len, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    n_blocks = N_VALUES // block_len
    if name in ("F32", "BF16"):
        values = rng.standard_normal(n_blocks).astype("<f4").view(np.uint8).reshape(n_blocks, 4)
        return values[:, 4 - block_bytes :]
    blocks = rng.integers(0, 256, (n_blocks, block_bytes), dtype=np.uint8)
    for at in HALVES[name]:
        halves = rng.standard_normal(n_blocks).astype("<f2")
        blocks[:, at : at + 2] = halves.view(np.uint8).reshape(n_blocks, 2)
    return blocks


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(HALVES):
        blocks = np.ascontiguousarray(random_blocks(name, np.random.default_rng(seed)))
        kind = GGMLQuantizationType[name]
        if name in ("F32", "F16"):
            values = blocks.reshape(-1).view("<f4" if name == "F32" else "<f2")
        else:
            values = quants.dequantize(blocks.reshape(1, -1), kind)
        (OUT / f"{name}.blocks").write_bytes(blocks.tobytes())
        (OUT / f"{name}.f32").write_bytes(values.astype("<f4").tobytes())


if __name__ == "__main__":
    main()
