#!/usr/bin/env python3
"""Splits tests/golden/models/tiny-llama.gguf into three files, as `gguf-split` does, with the writer of the `gguf` package.

    .venv/bin/python tests/models/split_model.py
"""

from pathlib import Path

import gguf

MODELS = Path(__file__).resolve().parent.parent / "golden" / "models"
N_PARTS = 3


def main():
    reader = gguf.GGUFReader(MODELS / "tiny-llama.gguf")
    architecture = reader.get_field("general.architecture").contents()
    per_part = -(-len(reader.tensors) // N_PARTS)
    writer = gguf.GGUFWriter(MODELS / "tiny-llama.gguf", architecture, split_max_tensors=per_part)
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
