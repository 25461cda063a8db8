/** A model that the panel offers. */
export interface CatalogueModel {
  id: string;
  url: string;
  /** Size of the file. */
  megabytes: number;
  /** What it is good for, in a few words. */
  note: string;
}

/** Small models that continue text well for their size. Any other GGUF file can be given by address or picked. */
export const CATALOGUE: readonly CatalogueModel[] = [
  {
    id: "SmolLM2 135M",
    url: "hf:bartowski/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct-Q4_K_M.gguf@main",
    megabytes: 105,
    note: "quick everywhere, simple sentences",
  },
  {
    id: "SmolLM2 360M",
    url: "hf:bartowski/SmolLM2-360M-Instruct-GGUF/SmolLM2-360M-Instruct-Q4_K_M.gguf@main",
    megabytes: 271,
    note: "better sentences, fine on most CPUs",
  },
  {
    id: "Qwen2.5 0.5B",
    url: "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF/qwen2.5-0.5b-instruct-q4_k_m.gguf@main",
    megabytes: 491,
    note: "many languages",
  },
  {
    id: "SmolLM2 1.7B",
    url: "hf:bartowski/SmolLM2-1.7B-Instruct-GGUF/SmolLM2-1.7B-Instruct-Q4_K_M.gguf@main",
    megabytes: 1060,
    note: "the best of these, wants a GPU",
  },
];
