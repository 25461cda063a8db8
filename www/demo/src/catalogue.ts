/** A model that the page offers by itself. */
export interface CatalogueEntry {
  name: string;
  /** On the Hugging Face hub, as `ModelSource.url` takes it. */
  address: string;
  /** Size of the download. */
  bytes: number;
  licence: string;
  goodAt: string;
}

/** Small models of supported architectures, the smallest first. */
export const CATALOGUE: readonly CatalogueEntry[] = [
  {
    name: "SmolLM2 135M",
    address: "hf:bartowski/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct-Q4_K_M.gguf@main",
    bytes: 105_454_432,
    licence: "Apache-2.0",
    goodAt: "A quick first try: fluent, seldom right.",
  },
  {
    name: "SmolLM2 360M",
    address: "hf:bartowski/SmolLM2-360M-Instruct-GGUF/SmolLM2-360M-Instruct-Q4_K_M.gguf@main",
    bytes: 270_590_880,
    licence: "Apache-2.0",
    goodAt: "English prose on a CPU or a phone.",
  },
  {
    name: "Qwen2.5 0.5B",
    address: "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF/qwen2.5-0.5b-instruct-q4_k_m.gguf@main",
    bytes: 491_400_032,
    licence: "Apache-2.0",
    goodAt: "Many languages, short answers.",
  },
  {
    name: "Qwen2.5 Coder 0.5B",
    address: "hf:Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf@main",
    bytes: 491_400_064,
    licence: "Apache-2.0",
    goodAt: "Going on with code.",
  },
  {
    name: "Qwen3 0.6B",
    address: "hf:Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf@main",
    bytes: 639_446_688,
    licence: "Apache-2.0",
    goodAt: "Many languages, at eight bits a weight.",
  },
  {
    name: "TinyLlama 1.1B",
    address: "hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF/tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf@main",
    bytes: 668_788_096,
    licence: "Apache-2.0",
    goodAt: "Longer English texts; better with a GPU.",
  },
];
