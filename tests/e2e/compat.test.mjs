// The same requests to a real llama-cpp-python server, whose answers are recorded, and to `cinder.fetch`: same status codes, fields and types,
// except for what docs/compatibility.md lists with its reason. A difference that is not listed fails, and so does one that is listed and gone.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { differences, readAnswer, requestInit } from "../compat/shapes.mjs";
import { launch } from "./browsers.mjs";
import { realModel } from "./models.mjs";
import { serve } from "./server.mjs";

const read = (path) => readFileSync(new URL(path, import.meta.url), "utf8");
const { requests } = JSON.parse(read("../compat/requests.json"));
const recorded = JSON.parse(read("../compat/recorded.json"));

/** The rows of the document's table: `{ request, place, theirs, ours }`, each seen or not. */
function listedDifferences() {
  const rows = read("../../docs/compatibility.md").split("\n").filter((line) => line.startsWith("| ") && !/^\| (request|---)/.test(line));
  return rows.map((row) => {
    const cells = row.split(/(?<!\\)\|/).slice(1, -1);
    const [request, place, theirs, ours, reason] = cells.map((cell) => cell.trim().replaceAll("`", "").replaceAll("\\|", "|"));
    assert.ok(reason?.length > 0, `${row} has no reason`);
    return { request, place, theirs, ours, isSeen: false };
  });
}

describe("compatibility", () => {
  const listed = listedDifferences();
  let server;
  let browser;
  let page;
  before(async () => {
    server = await serve({ files: { "/model.gguf": realModel() } });
    browser = await launch("chromium");
    page = await browser.newPage(`${server.url}/`);
    await page.evaluate(async () => {
      globalThis.cinder = new globalThis.cinderlm.Cinder({ device: "cpu", models: [{ id: "smollm2", url: "/model.gguf", contextLength: 2048 }] });
      await globalThis.cinder.load("smollm2");
    });
  });
  after(async () => {
    await browser?.close();
    await server?.close();
  });

  for (const request of requests) {
    test(request.name, async () => {
      const answer = await page.evaluate(
        async ({ path, init }) => {
          const response = await globalThis.cinder.fetch(`https://in.this.page${path}`, init);
          return { status: response.status, type: response.headers.get("content-type"), text: await response.text() };
        },
        { path: request.path, init: requestInit(request) },
      );
      const headers = { "content-type": answer.type };
      const ours = await readAnswer(new Response(answer.text, { status: answer.status, headers }));
      const unlisted = differences(recorded[request.name], ours).filter((found) => {
        const row = listed.find((row) => (row.request === "*" || row.request === request.name) && ["place", "theirs", "ours"].every((key) => row[key] === found[key]));
        if (row !== undefined) row.isSeen = true;
        return row === undefined;
      });
      const lines = unlisted.map(({ place, theirs, ours }) => `| ${request.name} | ${place} | ${theirs} | ${ours} |`);
      assert.equal(lines.join("\n"), "");
    });
  }

  test("every difference that is listed is there", () => {
    const gone = listed.filter(({ isSeen }) => !isSeen).map(({ request, place, theirs, ours }) => `| ${request} | ${place} | ${theirs} | ${ours} |`);
    assert.equal(gone.join("\n"), "");
  });
});
