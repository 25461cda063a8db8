// The contract corpus against the validator and the types. What takes a model to find is found natively and in browsers.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { CompletionError } from "../src/errors.js";
import { snapshot } from "../src/snapshot.js";
import { validate } from "../src/validate.js";

interface Case {
  name: string;
  request: Record<string, unknown>;
  response?: unknown;
  error?: { status: number; type: string; code: string; param: string | null; message_has: string[] };
  found_by?: "model";
}

const MIN_CASES = 220;
const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const corpus = join(root, "../../tests/golden/contract");
const cases = readdirSync(corpus)
  .filter((name) => name.endsWith(".json"))
  .flatMap((name) => (JSON.parse(readFileSync(join(corpus, name), "utf8")) as { cases: Case[] }).cases);

test("the corpus is there", () => assert.ok(cases.length >= MIN_CASES, `${cases.length} cases`));

for (const { name, request, error, found_by } of cases) {
  test(`validator: ${name}`, () => {
    const check = (): void => validate(snapshot(request));
    if (error === undefined || found_by === "model") {
      check();
      return;
    }
    assert.throws(check, (thrown) => {
      assert.ok(thrown instanceof CompletionError);
      const { status, type, code, param, message } = thrown;
      const { message_has, ...expected } = error;
      assert.deepEqual({ status, type, code, param }, expected, message);
      for (const part of message_has) assert.ok(message.includes(part), `${part} is missing from: ${message}`);
      return true;
    });
  });
}

/** Whether the types of TypeScript can tell that a request is wrong: ranges, integers, keys and combinations are beyond them. */
function isRefusedByTypes({ request, error, found_by }: Case): boolean {
  if (error === undefined || found_by === "model") return false;
  if (error.code === "unknown_parameter") return true;
  if (error.code !== "invalid_type") return false;
  const value = valueAt(request, error.param ?? "");
  const isKey = error.param?.startsWith("logit_bias.") === true && typeof value === "number";
  return !isKey && !(typeof value === "number" && !Number.isInteger(value));
}

function valueAt(request: unknown, param: string): unknown {
  const dot = param.startsWith("logit_bias.") ? ["logit_bias", param.slice("logit_bias.".length)] : param.split(/[.[\]]+/).filter((part) => part !== "");
  return dot.reduce((value: unknown, part) => (value as Record<string, unknown> | undefined)?.[part], request);
}

test("types: requests and responses of the corpus", () => {
  const lines = ['import type { Completion, CompletionParams } from "../src/types.js";'];
  const expected = new Map<number, { name: string; isRefused: boolean }>();
  const add = (name: string, code: string, isRefused: boolean): void => {
    expected.set(lines.length, { name, isRefused });
    lines.push(code);
  };
  cases.forEach((one, i) => {
    add(one.name, `export const request${i}: CompletionParams = ${JSON.stringify(one.request)};`, isRefusedByTypes(one));
    if (one.response !== undefined) {
      add(`the response of: ${one.name}`, `export const response${i}: Pick<Completion, "choices" | "usage"> = ${JSON.stringify(one.response)};`, false);
    }
  });
  const refused = linesWithErrors(lines.join("\n"));
  for (const [line, { name, isRefused }] of expected) assert.equal(refused.get(line) !== undefined, isRefused, `${name}: ${refused.get(line) ?? "no error"}`);
  assert.ok([...expected.values()].filter(({ isRefused }) => isRefused).length > 40);
});

/** The first error of each line of a source that lies beside the tests. */
function linesWithErrors(source: string): Map<number, string> {
  const path = join(root, "test/corpus.types.ts");
  const config = ts.readConfigFile(join(root, "tsconfig.json"), (name) => ts.sys.readFile(name));
  const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, root);
  const host = ts.createCompilerHost(options);
  const getSourceFile = host.getSourceFile.bind(host);
  host.getSourceFile = (name, ...rest) => (name === path ? ts.createSourceFile(name, source, ts.ScriptTarget.ES2022) : getSourceFile(name, ...rest));
  const program = ts.createProgram([path], options, host);
  const file = program.getSourceFile(path);
  assert.ok(file !== undefined);
  const errors = new Map<number, string>();
  for (const { start = 0, messageText } of program.getSemanticDiagnostics(file)) {
    const { line } = file.getLineAndCharacterOfPosition(start);
    if (!errors.has(line)) errors.set(line, ts.flattenDiagnosticMessageText(messageText, " "));
  }
  return errors;
}
