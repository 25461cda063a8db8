import { DISPLAY_LOGPROBS, type FormValues } from "./fields.js";

/** Fields of a request as the form has them. Nothing is checked here: the package decides what is right, and says it best. */
export type RawParams = Record<string, unknown>;

/** The request that the form describes. */
export function toParams(values: FormValues, model: string): RawParams {
  const params: RawParams = { model, prompt: promptOf(values) };
  const put = (name: keyof FormValues, value: unknown): void => {
    if (values[name].trim() !== "") params[name] = value;
  };
  put("max_tokens", toNumber(values.max_tokens));
  put("temperature", toNumber(values.temperature));
  put("top_p", toNumber(values.top_p));
  put("n", toNumber(values.n));
  if (values.suffix !== "") params["suffix"] = values.suffix;
  if (values.stop !== "") params["stop"] = toStops(values.stop);
  put("best_of", toNumber(values.best_of));
  put("seed", toNumber(values.seed));
  params["logprobs"] = values.logprobs.trim() === "" ? DISPLAY_LOGPROBS : toNumber(values.logprobs);
  put("frequency_penalty", toNumber(values.frequency_penalty));
  put("presence_penalty", toNumber(values.presence_penalty));
  put("logit_bias", toBiases(values.logit_bias));
  if (values.user !== "") params["user"] = values.user;
  if (values.echo === "true") params["echo"] = true;
  if (values.stream === "true") params["stream"] = true;
  if (values.stream === "true" && values.include_usage === "true") params["stream_options"] = { include_usage: true };
  return params;
}

/** How many choices of one prompt the request asks for, as far as the form tells. */
export function choicesPerPrompt(params: RawParams): number {
  return Number(params["n"] ?? 1);
}

function promptOf({ prompt, prompt_kind }: FormValues): unknown {
  if (prompt_kind === "lines") return splitLines(prompt);
  if (prompt_kind !== "ids") return prompt;
  const lists = splitLines(prompt).map((line) => line.split(/[\s,]+/).filter((id) => id !== "").map(toNumber));
  return lists.length === 1 ? lists[0] : lists;
}

/** What is no number stays as it was typed, for the refusal to quote. An integer that a double cannot hold becomes a BigInt. */
function toNumber(text: string): unknown {
  const trimmed = text.trim();
  const number = Number(trimmed);
  if (trimmed === "" || Number.isNaN(number)) return trimmed;
  return /^-?\d+$/.test(trimmed) && !Number.isSafeInteger(number) ? BigInt(trimmed) : number;
}

function toStops(text: string): string[] {
  return splitLines(text).map((line) => line.replace(/\\([nt\\])/g, (_, escape: string) => (escape === "n" ? "\n" : escape === "t" ? "\t" : "\\")));
}

function toBiases(text: string): Record<string, unknown> {
  const lines = splitLines(text).filter((line) => line.trim() !== "");
  const pairs = lines.map((line): [string, unknown] => {
    const [, token, bias] = /^\s*(.*?)\s*[:=]\s*(.*)$/.exec(line) ?? [];
    return token === undefined || bias === undefined ? [line.trim(), null] : [token, toNumber(bias)];
  });
  return Object.fromEntries(pairs);
}

/** The lines of a text; a line break at its end begins none. */
function splitLines(text: string): string[] {
  return text.replace(/\r?\n$/, "").split(/\r?\n/);
}
