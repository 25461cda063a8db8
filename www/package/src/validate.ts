import { completionError, type CompletionError } from "./errors.js";
import type { CompletionParams } from "./types.js";

const FIELDS = [
  "model",
  "prompt",
  "suffix",
  "max_tokens",
  "n",
  "best_of",
  "echo",
  "logprobs",
  "temperature",
  "top_p",
  "frequency_penalty",
  "presence_penalty",
  "logit_bias",
  "seed",
  "stop",
  "stream",
  "stream_options",
  "user",
] as const satisfies (keyof CompletionParams)[];
const STREAM_OPTIONS = ["stream_options.include_usage", "stream_options.include_obfuscation"];
const MAX_LOGPROBS = 5;
const MAX_STOPS = 4;
const MAX_TOKEN = 2 ** 32 - 1;
const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;

/**
 * Checks all that can be checked of a request without its model, so that a wrong one costs no worker, no download and no server.
 * `cinderlm-protocol` decides what is right; the corpus in `tests/golden/contract` holds the two together.
 *
 * @throws CompletionError that names the first fault: unknown fields, then each field in the order of the contract, then combinations.
 */
export function validate(params: unknown): asserts params is CompletionParams {
  const fields = object(params, () => completionError("invalid_type", `a request must be an object, but is ${inWords(params)}`));
  for (const name of Object.keys(fields)) {
    if (!(FIELDS as readonly string[]).includes(name)) throw unknownParameter(name, FIELDS);
  }
  if (typeof fields["model"] !== "string") throw invalidType("model", "a string", fields["model"]);
  const given = (name: keyof CompletionParams, check: (name: string, value: unknown) => void): void => {
    if (!isAbsent(fields[name])) check(name, fields[name]);
  };
  given("prompt", checkPrompt);
  given("suffix", checkString);
  given("max_tokens", integerFrom(0, Number.MAX_SAFE_INTEGER));
  given("n", integerFrom(1, 128));
  given("best_of", integerFrom(1, 20));
  given("echo", checkBoolean);
  given("logprobs", integerFrom(0, MAX_LOGPROBS));
  given("temperature", numberFrom(0, 2));
  given("top_p", numberFrom(0, 1));
  given("frequency_penalty", numberFrom(-2, 2));
  given("presence_penalty", numberFrom(-2, 2));
  given("logit_bias", checkLogitBias);
  given("seed", checkSeed);
  given("stop", checkStop);
  given("stream", checkBoolean);
  given("stream_options", checkStreamOptions);
  given("user", checkString);
  checkCombinations(fields as unknown as CompletionParams);
}

function checkCombinations({ max_tokens, n, best_of, echo, stream, stream_options }: CompletionParams): void {
  if (!isAbsent(max_tokens) && Number(max_tokens) === 0 && echo !== true) {
    throw conflict("max_tokens", "0 is allowed only with `echo`, to score the prompt");
  }
  const nChoices = Number(n ?? 1);
  if (!isAbsent(best_of) && Number(best_of) < nChoices) throw conflict("best_of", "it must be at least `n`");
  if (!isAbsent(best_of) && stream === true && Number(best_of) > nChoices) throw conflict("best_of", "with `stream` it cannot be greater than `n`");
  if (!isAbsent(stream_options) && stream !== true) throw conflict("stream_options", "it is allowed only with `stream`");
}

/** The first element of an array decides what all must be. */
function checkPrompt(name: string, value: unknown): void {
  if (typeof value === "string") return;
  if (!Array.isArray(value)) {
    throw invalidType(name, "a string, an array of strings, an array of token ids or an array of arrays of token ids", value);
  }
  checkNotEmpty(name, value);
  const first: unknown = value[0];
  if (typeof first === "string") eachOf(name, value, checkString);
  else if (Array.isArray(first)) eachOf(name, value, checkTokens);
  else if (isNumber(first)) eachOf(name, value, checkToken);
  else throw invalidType(`${name}[0]`, "a string, a token id or an array of token ids", first);
}

function checkTokens(name: string, value: unknown): void {
  if (!Array.isArray(value)) throw invalidType(name, "an array of token ids", value);
  checkNotEmpty(name, value);
  eachOf(name, value, checkToken);
}

function checkToken(name: string, value: unknown): void {
  if (!isNumber(value)) throw invalidType(name, "a token id", value);
  integerFrom(0, MAX_TOKEN)(name, value);
}

function checkNotEmpty(name: string, value: readonly unknown[]): void {
  if (value.length === 0) throw outOfRange(name, "an array of at least one element", "empty");
}

function checkLogitBias(name: string, value: unknown): void {
  const biases = object(value, () => invalidType(name, "an object from token ids to numbers", value));
  for (const [key, bias] of Object.entries(biases)) {
    const param = `${name}.${key}`;
    // Only the plain decimal form, so that no two keys mean one token.
    if (!/^(?:0|[1-9][0-9]*)$/.test(key)) {
      throw completionError("invalid_type", `\`${param}\` must be a decimal token id, but is the key ${JSON.stringify(key)}`, param);
    }
    if (Number(key) > MAX_TOKEN) throw outOfRange(param, `a token id, at most ${MAX_TOKEN}`, key);
    numberFrom(-100, 100)(param, bias);
  }
}

function checkSeed(name: string, value: unknown): void {
  if (typeof value === "number" && Math.abs(value) > Number.MAX_SAFE_INTEGER) {
    throw outOfRange(name, "an integer that a JavaScript number holds exactly, or a BigInt", inWords(value));
  }
  integerFrom(INT64_MIN, INT64_MAX)(name, value);
}

function checkStop(name: string, value: unknown): void {
  if (typeof value === "string") {
    checkStopText(name, value);
    return;
  }
  if (!Array.isArray(value)) throw invalidType(name, "a string or an array of strings", value);
  if (value.length > MAX_STOPS) throw outOfRange(name, `an array of at most ${MAX_STOPS} strings`, `an array of ${value.length}`);
  eachOf(name, value, checkStopText);
}

function checkStopText(name: string, value: unknown): void {
  checkString(name, value);
  if (value === "") throw outOfRange(name, "a string of at least one character", "empty");
}

function checkStreamOptions(name: string, value: unknown): void {
  const options = object(value, () => invalidType(name, "an object", value));
  for (const [key, option] of Object.entries(options)) {
    const param = `${name}.${key}`;
    if (!STREAM_OPTIONS.includes(param)) throw unknownParameter(param, STREAM_OPTIONS);
    if (!isAbsent(option)) checkBoolean(param, option);
  }
}

function checkString(name: string, value: unknown): void {
  if (typeof value !== "string") throw invalidType(name, "a string", value);
}

function checkBoolean(name: string, value: unknown): void {
  if (typeof value !== "boolean") throw invalidType(name, "a boolean", value);
}

function integerFrom(min: number | bigint, max: number | bigint): (name: string, value: unknown) => void {
  const expected = `an integer from ${min} to ${max}`;
  return (name, value) => {
    if (!isNumber(value) || Number.isNaN(value)) throw invalidType(name, expected, value);
    const isUnsafe = typeof value === "number" && Math.abs(value) > Number.MAX_SAFE_INTEGER;
    if (typeof value === "number" && !isUnsafe && !Number.isInteger(value)) throw invalidType(name, expected, value);
    if (isUnsafe || value < min || value > max) throw outOfRange(name, expected, inWords(value));
  };
}

function numberFrom(min: number, max: number): (name: string, value: unknown) => void {
  const expected = `a number from ${min} to ${max}`;
  return (name, value) => {
    if (!isNumber(value)) throw invalidType(name, expected, value);
    if (!(value >= min && value <= max)) throw outOfRange(name, expected, inWords(value)); // NaN is in no range.
  };
}

function eachOf(name: string, values: readonly unknown[], check: (name: string, value: unknown) => void): void {
  values.forEach((value, index) => check(`${name}[${index}]`, value));
}

function isNumber(value: unknown): value is number | bigint {
  return typeof value === "number" || typeof value === "bigint";
}

function isAbsent(value: unknown): value is null | undefined {
  return value === null || value === undefined;
}

function object(value: unknown, refusal: () => CompletionError): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw refusal();
  return value as Record<string, unknown>;
}

function invalidType(name: string, expected: string, value: unknown): CompletionError {
  return completionError("invalid_type", `\`${name}\` must be ${expected}, but is ${inWords(value)}`, name);
}

function outOfRange(name: string, expected: string, found: string): CompletionError {
  return completionError("out_of_range", `\`${name}\` must be ${expected}, but is ${found}`, name);
}

function unknownParameter(name: string, known: readonly string[]): CompletionError {
  return completionError("unknown_parameter", `there is no parameter \`${name}\`; the parameters are \`${known.join("`, `")}\``, name);
}

function conflict(name: string, rule: string): CompletionError {
  return completionError("conflicting_parameters", `\`${name}\` conflicts with another parameter: ${rule}`, name);
}

/** A value in the words of an error message. Long strings are cut. */
function inWords(value: unknown): string {
  const maxChars = 40;
  if (isAbsent(value)) return "null";
  if (typeof value === "string") {
    const chars = [...value.slice(0, 2 * maxChars + 2)];
    return chars.length > maxChars ? `a string starting ${JSON.stringify(chars.slice(0, maxChars).join(""))}` : `the string ${JSON.stringify(value)}`;
  }
  if (Array.isArray(value)) return value.length === 0 ? "an empty array" : "an array";
  return typeof value === "object" ? "an object" : String(value);
}
