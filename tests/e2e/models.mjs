// Where the model files of tests are.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** SmolLM2-135M, which set-up downloads. */
export function realModel() {
  const path = process.env.CINDERLM_MODEL ?? fileURLToPath(new URL("../../target/models/SmolLM2-135M-Instruct.Q4_1.gguf", import.meta.url));
  if (!existsSync(path)) throw new Error(`${path} is missing: run \`./x test\`, which downloads it, or set CINDERLM_MODEL`);
  return path;
}

/** A seeded model of a few kilobytes, with a byte-level vocabulary. */
export function tinyModel() {
  return fileURLToPath(new URL("../golden/models/tiny-llama.gguf", import.meta.url));
}

/** The same in three files. */
export function splitModel() {
  return [1, 2, 3].map((part) => tinyModel().replace(/\.gguf$/, `-0000${part}-of-00003.gguf`));
}
