// Who is measured, and how much of it. `node contenders.mjs [id,…]` prints what these need, one word a line, for the command that installs it.
import { pathToFileURL } from "node:url";

/**
 * A contender.
 *
 * @typedef {object} Contender
 * @property {string} id What `--contenders` names it by.
 * @property {string} title What the table calls it.
 * @property {"cinderlm" | "peer"} side
 * @property {"cpu" | "gpu"} kind Ratios are taken between contenders of one kind.
 * @property {"page" | "native"} driver A page of `pages/`, or `native.py`.
 * @property {string} [page] Which page.
 * @property {"chromium" | "firefox"} [browser]
 * @property {boolean} [isolated] Whether the page is cross-origin isolated, which shared memory, and so threads, need.
 * @property {object} options What the page's `load`, or the native program, is given besides the model.
 * @property {string} [feature] What the page must say that it has for this contender to run without being named.
 * @property {("peers" | "onnx" | "llama" | "firefox")[]} needs What must be installed besides Chromium and the package.
 * @property {string[]} [without] Measures that it has no way to give, or that would take hours.
 * @property {number} [rounds] At most so many rounds.
 * @property {number} [nDecode] Tokens that a decode speed is taken from, instead of the usual number.
 */

/** Measures that software GPUs take too long for, where a step of the model takes seconds. */
const SLOW = ["prefill512", "decode512", "decode2048", "batch8", "prefix", "prefixRatio"];
/** What a program without a page has not got. */
const NO_PAGE = ["load", "overEmpty", "runtime"];

/** @type {Contender[]} */
export const CONTENDERS = [
  {
    id: "cinderlm-cpu-1",
    title: "cinderlm, CPU, 1 thread",
    side: "cinderlm",
    kind: "cpu",
    driver: "page",
    page: "cinderlm.html",
    browser: "chromium",
    options: { device: "cpu", threads: 1 },
    needs: [],
  },
  {
    id: "cinderlm-cpu-2",
    title: "cinderlm, CPU, 2 threads",
    side: "cinderlm",
    kind: "cpu",
    driver: "page",
    page: "cinderlm.html",
    browser: "chromium",
    isolated: true,
    options: { device: "cpu", threads: 2 },
    feature: "threads",
    needs: [],
  },
  {
    id: "cinderlm-webgpu",
    title: "cinderlm, WebGPU",
    side: "cinderlm",
    kind: "gpu",
    driver: "page",
    page: "cinderlm.html",
    browser: "chromium",
    options: { device: "webgpu" },
    needs: [],
    rounds: 1,
    nDecode: 16,
  },
  {
    id: "cinderlm-webgpu-firefox",
    title: "cinderlm, WebGPU, Firefox",
    side: "cinderlm",
    kind: "gpu",
    driver: "page",
    page: "cinderlm.html",
    browser: "firefox",
    options: { device: "webgpu" },
    needs: ["firefox"],
    without: ["peak", "overEmpty"],
    rounds: 1,
    nDecode: 16,
  },
  {
    id: "wllama-1",
    title: "wllama, CPU, 1 thread",
    side: "peer",
    kind: "cpu",
    driver: "page",
    page: "wllama.html",
    browser: "chromium",
    isolated: true,
    options: { threads: 1 },
    needs: ["peers"],
    without: ["batch8"],
  },
  {
    id: "wllama-2",
    title: "wllama, CPU, 2 threads",
    side: "peer",
    kind: "cpu",
    driver: "page",
    page: "wllama.html",
    browser: "chromium",
    isolated: true,
    options: { threads: 2 },
    needs: ["peers"],
    without: ["batch8"],
  },
  {
    id: "transformers-cpu",
    title: "transformers.js, CPU, float32, 2 threads",
    side: "peer",
    kind: "cpu",
    driver: "page",
    page: "transformers.html",
    browser: "chromium",
    isolated: true,
    options: { device: "wasm", dtype: "fp32", threads: 2 },
    needs: ["peers", "onnx"],
  },
  {
    id: "transformers-webgpu",
    title: "transformers.js, WebGPU, 4 bits",
    side: "peer",
    kind: "gpu",
    driver: "page",
    page: "transformers.html",
    browser: "chromium",
    isolated: true,
    options: { device: "webgpu", dtype: "q4", threads: 1 },
    needs: ["peers", "onnx"],
    without: SLOW,
    rounds: 1,
    nDecode: 3,
  },
  {
    id: "llama-1",
    title: "llama.cpp, native, 1 thread",
    side: "peer",
    kind: "cpu",
    driver: "native",
    options: { threads: 1 },
    needs: ["llama"],
    without: [...NO_PAGE, "batch8"],
  },
  {
    id: "llama-2",
    title: "llama.cpp, native, 2 threads",
    side: "peer",
    kind: "cpu",
    driver: "native",
    options: { threads: 2 },
    needs: ["llama"],
    without: [...NO_PAGE, "batch8"],
  },
];

/** Those that `ids` names, all if it names none. */
export function chosen(ids) {
  const unknown = ids.filter((id) => !CONTENDERS.some((contender) => contender.id === id));
  if (unknown.length > 0) throw new Error(`no contender is called ${unknown.join(", ")}; there are ${CONTENDERS.map(({ id }) => id).join(", ")}`);
  return ids.length === 0 ? CONTENDERS : CONTENDERS.filter(({ id }) => ids.includes(id));
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const ids = (process.argv[2] ?? "").split(",").filter((id) => id !== "");
  try {
    for (const need of new Set(chosen(ids).flatMap(({ needs }) => needs))) console.log(need);
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
