"""Random but valid K-quant blocks: `gguf` can read these types but not write them.

Every byte pattern is a valid block, so all fields are drawn at random and only the half-precision scales are chosen, to give the
values a zero mean and the deviation of a freshly initialised layer. Field order: ggml's `ggml-common.h`.
"""

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

# Byte offset of d, byte offset of dmin (or None), block size, and dmin / d that centres the values.
LAYOUTS = {
    Type.Q2_K: (80, 82, 84, 1.5),
    Type.Q3_K: (108, None, 110, 0.0),
    Type.Q4_K: (0, 2, 144, 7.5),
    Type.Q5_K: (0, 2, 176, 15.5),
    Type.Q6_K: (208, None, 210, 0.0),
}
VALUES_PER_BLOCK = 256


def put_halves(blocks, offset, halves):
    blocks[:, offset : offset + 2] = halves.astype("<f2").view(np.uint8).reshape(-1, 2)


def random_blocks(kind, shape, rng):
    """uint8 rows of `kind` for a tensor `[n_rows, n_cols]`."""
    n_rows, n_cols = shape
    d_offset, min_offset, n_bytes, centre = LAYOUTS[kind]
    blocks = rng.integers(0, 256, (n_rows * n_cols // VALUES_PER_BLOCK, n_bytes), dtype=np.uint8)

    def scale_by(d):
        put_halves(blocks, d_offset, d)
        if min_offset is not None:
            put_halves(blocks, min_offset, d * centre)

    unit = np.ones(len(blocks))
    scale_by(unit)
    deviation = gguf.quants.dequantize(blocks, kind).std()
    scale_by(rng.uniform(0.8, 1.2, len(blocks)) * n_cols**-0.5 / deviation)
    return blocks.reshape(n_rows, -1)


def shape_of(tensor):
    """`[n_rows, n_cols]`, or `[n]`, of a tensor that `gguf.GGUFReader` lists with its contiguous dimension first."""
    return tuple(int(n) for n in reversed(tensor.shape))
