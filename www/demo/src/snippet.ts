import type { ChosenModel } from "./models.js";
import type { RawParams } from "./params.js";

/** TypeScript that makes the same call. */
export function toSnippet(params: RawParams, model: ChosenModel | undefined): string {
  const id = literal(model?.id ?? "model", "");
  const where = model === undefined || "file" in model.source ? "file" : `url: ${literal(model.source.address, "")}`;
  const lines = [`import { Cinder } from "cinderlm";`, ""];
  if (where === "file") lines.push("// `file` is the GGUF file, from an <input type=\"file\"> for instance.");
  lines.push(`const cinder = new Cinder({ models: [{ id: ${id}, ${where} }] });`);
  const request = literal(params, "");
  if (params["stream"] === true) {
    lines.push(`const stream = await cinder.complete(${request});`);
    lines.push("for await (const chunk of stream) {", "  for (const { index, text } of chunk.choices) console.log(index, text);", "}");
  } else {
    lines.push(`const completion = await cinder.complete(${request});`);
    lines.push("for (const { text } of completion.choices) console.log(text);");
  }
  return `${lines.join("\n")}\n`;
}

/** A value as source text. Short lists stay on one line. */
function literal(value: unknown, indent: string): string {
  if (typeof value === "bigint") return `${value}n`;
  if (Array.isArray(value)) return `[${value.map((item) => literal(item, indent)).join(", ")}]`;
  if (typeof value !== "object" || value === null) return scalar(value);
  const entries = Object.entries(value).map(([name, item]): [string, unknown] => [name, item]);
  if (indent !== "") return `{ ${entries.map(([name, item]) => `${key(name)}: ${literal(item, indent)}`).join(", ")} }`;
  return `{\n${entries.map(([name, item]) => `  ${key(name)}: ${literal(item, "  ")},\n`).join("")}}`;
}

function key(name: string): string {
  // `__proto__: x` would set the prototype, where a computed key is a field like any other.
  if (name === "__proto__") return `["__proto__"]`;
  return /^[A-Za-z_$][\w$]*$/.test(name) || /^(?:0|[1-9]\d{0,14})$/.test(name) ? name : scalar(name);
}

/** JSON, except that infinities, which it has no word for, are written out. */
function scalar(value: unknown): string {
  return typeof value === "number" && !Number.isFinite(value) ? String(value) : JSON.stringify(value);
}
