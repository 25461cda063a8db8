import type { OutputPlan } from "./output.js";
import type { RawParams } from "./params.js";

/** More places than the contract allows choices of are made for no request: it will be refused. */
const MAX_PLACES = 128;

/** How the output of a request is laid out, before anything of it is known. */
export function planOutput(params: RawParams, n: number): OutputPlan {
  const prompt = params["prompt"];
  const isEchoed = params["echo"] === true;
  const lead = (text: unknown): string | undefined => (typeof text === "string" && !isEchoed ? text : undefined);
  const isList = Array.isArray(prompt) && typeof prompt[0] !== "number";
  const leads = isList ? prompt.map(lead) : [lead(prompt)];
  const bestOf = Number(params["best_of"] ?? n);
  const places = Number.isSafeInteger(n) && n >= 1 && n <= MAX_PLACES ? n : 1;
  return { leads, n: places, bestOf: bestOf > places ? bestOf : undefined };
}
