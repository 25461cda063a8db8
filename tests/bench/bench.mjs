// `cargo xtask bench`: cinderlm and its peers, measured in turns.
//
// A turn is one contender, started afresh and with empty caches. Every round has a turn of each, so that whatever the machine does meanwhile meets
// all of them; what is reported is the median of the rounds.
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { dist, serve } from "../e2e/server.mjs";
import { judge } from "./aims.mjs";
import { chosen } from "./contenders.mjs";
import { MEASURES, N_DECODE, N_DECODE_QUICK, N_SHOWN } from "./measures.mjs";
import { makePrompts, RECORDED } from "./prompts.mjs";
import { median, report } from "./report.mjs";
import { emptyPageBytes, open, takePeak, takeTurn } from "./turn.mjs";

/** Left out by `--quick` unless named: reading its prompt takes minutes on a software GPU. */
const NOT_QUICK = ["decode2048"];
/** What takes a browser of its own. */
const PEAKS = ["peak", "overEmpty"];
const MODEL = "/models/model.gguf";
/** The model for peers that read ONNX, by the name that they ask for it with. */
const ONNX_NAME = "onnx";

const task = JSON.parse(process.argv[2]);
const say = (what) => process.stderr.write(`==> ${what}\n`);

// Whoever drives the browsers ends them when this process exits, even one whose GPU answers nothing.
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(130));

const files = await filesFor(task);
const servers = { plain: await serve({ files }), isolated: await serve({ files, isolated: true }) };
const setting = { servers, modelUrl: MODEL, modelName: ONNX_NAME, model: task.model, python: task.python, isSoftware: !task.hardware };
let code = 1;
try {
  code = await main();
} catch (error) {
  console.error(error);
}
process.exit(code);

async function main() {
  const measures = chosenMeasures(task);
  const { prompts, recorded, features } = await prepare();
  const isAsked = ({ id, feature }) => feature === undefined || features.includes(feature) || task.contenders.includes(id);
  const contenders = chosen(task.contenders)
    .filter(isAsked)
    .map((contender) => ({ ...contender, rounds: Math.min(contender.rounds ?? task.rounds, task.rounds), turns: [], peaks: [] }));
  const speeds = measures.filter((id) => !PEAKS.includes(id));
  const asksPeaks = speeds.length < measures.length;
  const takesPeaks = asksPeaks && process.platform === "linux";
  if (asksPeaks && !takesPeaks) say("peak memory is read from Linux's /proc: left out");
  for (let round = 1; round <= task.rounds; round += 1) {
    for (const contender of contenders) {
      const { title, rounds, without = [] } = contender;
      if (round > rounds || contender.failure !== undefined) continue;
      say(`round ${round} of ${task.rounds}: ${title}`);
      await attempt(contender, async () => {
        if (speeds.length > 0) await takeSpeeds(contender, speeds.filter((id) => !without.includes(id)), prompts);
        if (takesPeaks && !without.includes("peak")) await takeMemory(contender);
      });
    }
  }
  return finish(contenders, measures, recorded);
}

async function takeSpeeds(contender, measures, prompts) {
  const most = task.quick ? N_DECODE_QUICK : N_DECODE;
  const nDecode = Math.min(most, contender.nDecode ?? most);
  const turn = await takeTurn(contender, setting, { wanted: new Set(measures), prompts, nDecode });
  contender.turns.push(turn);
  say(JSON.stringify(turn.values));
}

async function takeMemory(contender) {
  const emptyBytes = contender.driver === "page" ? await emptyPageBytes(setting.isSoftware) : 0;
  const values = await takePeak(contender, setting, emptyBytes);
  contender.peaks.push({ values });
  say(JSON.stringify(values));
}

/** Does it; a failure is the contender's, told in the end, and keeps no other from its turn. */
async function attempt(contender, work) {
  try {
    await work();
  } catch (error) {
    contender.failure = error.message.split("\n")[0];
    process.stderr.write(`${contender.title} failed: ${error.stack}\n`);
  }
}

async function finish(contenders, measures, recorded) {
  const results = contenders.map(({ id, title, side, kind, turns, peaks, failure }) => {
    const taken = [...turns, ...peaks];
    const values = Object.fromEntries(measures.map((measure) => [measure, taken.flatMap(({ values }) => values[measure] ?? [])]));
    const medians = Object.fromEntries(Object.entries(values).flatMap(([measure, all]) => (all.length === 0 ? [] : [[measure, median(all)]])));
    return { id, title, side, kind, info: turns[0]?.info, text: turns[0]?.text, values, medians, failure };
  });
  const aims = judge(Object.fromEntries(results.map(({ id, medians }) => [id, medians])));
  const { rounds, quick, hardware } = task;
  const machine = { cpu: cpus()[0].model, nCpus: cpus().length, platform: process.platform };
  await mkdir(dirname(task.json), { recursive: true });
  const whole = { date: new Date().toISOString(), machine, rounds, quick, hardware, recorded, contenders: results, aims };
  await writeFile(task.json, `${JSON.stringify(whole, null, 2)}\n`);
  console.log(report({ contenders: results, measures, aims, recorded }));
  say(`written to ${task.json}`);
  return results.some(({ failure }) => failure !== undefined) ? 1 : 0;
}

/** Prompts of exact lengths, made with cinderlm's own tokenizer, and what this cinderlm can do. */
async function prepare() {
  say("making prompts of exact lengths");
  const page = await open({ driver: "page", page: "cinderlm.html", browser: "chromium" }, setting);
  try {
    await page.call("load", { device: "cpu", model: MODEL });
    const prompts = await makePrompts({ tokenize: (text) => page.call("tokenize", text), detokenize: (ids) => page.call("detokenize", ids) });
    const recorded = {};
    for (const [name, ids] of Object.entries(RECORDED)) recorded[name] = await page.call("detokenize", ids.slice(0, N_SHOWN));
    return { prompts, recorded, features: await page.call("features") };
  } finally {
    await page.close();
  }
}

function chosenMeasures({ measures, quick }) {
  const ids = MEASURES.map(({ id }) => id);
  const unknown = measures.filter((id) => !ids.includes(id));
  if (unknown.length > 0) throw new Error(`no measure is called ${unknown.join(", ")}; there are ${ids.join(", ")}`);
  if (measures.length > 0) return ids.filter((id) => measures.includes(id));
  return quick ? ids.filter((id) => !NOT_QUICK.includes(id)) : ids;
}

/** Everything that pages ask for, by address. */
async function filesFor({ model, peers, onnx }) {
  const packages = peers && join(peers, "node_modules");
  const folders = {
    "/dist": dist,
    "/bench": fileURLToPath(new URL("pages", import.meta.url)),
    ...(packages && {
      "/peers/wllama": join(packages, "@wllama/wllama/esm"),
      "/peers/transformers": join(packages, "@huggingface/transformers/dist"),
      "/peers/onnxruntime": join(packages, "onnxruntime-web/dist"),
    }),
    ...(onnx && { [`/models/${ONNX_NAME}`]: onnx }),
  };
  const listed = await Promise.all(Object.entries(folders).map(([address, folder]) => filesBelow(folder, address)));
  return Object.fromEntries([[MODEL, model], ...listed.flat()]);
}

async function filesBelow(folder, address) {
  const entries = await readdir(folder, { withFileTypes: true });
  const found = entries.map((entry) => {
    const [path, below] = [join(folder, entry.name), `${address}/${entry.name}`];
    return entry.isDirectory() ? filesBelow(path, below) : [[below, path]];
  });
  return (await Promise.all(found)).flat();
}
