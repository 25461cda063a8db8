// What is kept on the device: downloads that go on after a reload, hashes, tabs that share, quotas, and models in several files.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { after, afterEach, before, describe, test } from "node:test";
import { BROWSERS, launch } from "./browsers.mjs";
import { realModel, splitModel, tinyModel } from "./models.mjs";
import { serve } from "./server.mjs";

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");
const tiny = readFileSync(tinyModel());
const TINY_HASH = sha256(tiny);
const POEM = JSON.parse(readFileSync(tinyModel().replace(/gguf$/, "json"), "utf8")).greedy[0].text;
const PARTS = Object.fromEntries(splitModel().map((path, i) => [`/split-0000${i + 1}-of-0000${splitModel().length}.gguf`, path]));

let server;
/** Another origin, which hides ETag and Content-Range from the page. */
let other;
before(async () => {
  other = await serve({ files: { "/tiny.gguf": tiny }, storable: true, shared: true });
  const files = { "/tiny.gguf": tiny, "/real.gguf": realModel(), ...PARTS };
  server = await serve({ files, storable: true, redirects: { "/moved.gguf": `${other.url}/tiny.gguf` } });
});
after(() => Promise.all([server.close(), other.close()]));

/** In the page: a Cinder with one model, `tale`. */
function prepare(page, model, options = {}) {
  return page.evaluate(
    ({ model, options }) => {
      globalThis.cinder = new globalThis.cinderlm.Cinder({ device: "cpu", models: [{ id: "tale", ...model }], ...options });
      globalThis.progress = [];
      globalThis.load = () => globalThis.settle(globalThis.cinder.load("tale", { onProgress: (event) => globalThis.progress.push(event) }));
      globalThis.loading = undefined;
    },
    { model, options },
  );
}

/** In the page: loads the model and completes the poem. */
async function recite(page) {
  const outcome = await page.evaluate(async () => {
    const loaded = await globalThis.load();
    const params = { model: "tale", prompt: "<|endoftext|>A cinder slept", temperature: 0, max_tokens: 12 };
    const completion = await globalThis.settle(globalThis.cinder.complete(params));
    return { loaded, completion, phases: [...new Set(globalThis.progress.map(({ phase }) => phase))], files: await globalThis.cinder.cache.list() };
  });
  assert.equal(outcome.loaded.error, undefined, outcome.loaded.error?.message);
  const text = outcome.completion.value?.choices[0].text ?? "";
  assert.ok(text.length > 10 && POEM.startsWith(`A cinder slept${text}`), JSON.stringify(outcome.completion));
  return { ...outcome, info: outcome.loaded.value };
}

const rangesOf = (from, path) => from.requests.filter((request) => request.path === path).map(({ range }) => range);

for (const name of BROWSERS) {
  describe(name, () => {
    let browser;
    let page;
    before(async () => (browser = await launch(name)));
    after(() => browser?.close());
    afterEach(async () => {
      await page?.evaluate(async () => {
        await globalThis.cinder?.dispose();
        for (const { id } of await new globalThis.cinderlm.Cinder().cache.list()) await globalThis.settle(new globalThis.cinderlm.Cinder().cache.delete(id));
      });
      await page?.close();
      for (const each of [server, other]) {
        each.clearFaults();
        each.requests.length = 0;
      }
    });

    for (const share of [0.1, 0.5, 0.95]) {
      test(`a download of which ${100 * share} % came before a reload goes on`, async () => {
        page = await browser.newTab(`${server.url}/`);
        const size = readFileSync(realModel()).length;
        server.fault("/real.gguf", { cutAt: Math.ceil(size * share), hangs: true, times: 1 });
        await prepare(page, { url: "/real.gguf" });
        await page.evaluate(
          async (bytes) => {
            await new Promise((resolve) => {
              void globalThis.cinder.load("tale", { onProgress: (event) => event.bytes >= bytes && resolve() }).catch(() => undefined);
            });
          },
          Math.floor(size * share),
        );
        await page.reload();
        await prepare(page, { url: "/real.gguf" });
        const [stored] = await page.evaluate(() => globalThis.cinder.cache.list());
        assert.ok(stored.bytes > 0 && stored.bytes < size && !stored.isComplete, JSON.stringify(stored));
        const nBefore = server.requests.length;
        const info = await page.evaluate(async () => (await globalThis.load()).value);
        const [asked] = rangesOf({ requests: server.requests.slice(nBefore) }, "/real.gguf");
        const start = Number(/^bytes=(\d+)-$/.exec(asked)?.[1]);
        // A crash may cost what was written since the last checkpoint, and no more.
        assert.ok(start > 0 && start <= stored.bytes && stored.bytes - start <= 8 << 20, `${asked}, ${stored.bytes} stored`);
        assert.deepEqual(info.sha256, [sha256(readFileSync(realModel()))]);
        assert.equal(info.notStored, undefined);
        const nAfter = server.requests.length;
        await page.evaluate(() => globalThis.cinder.unload("tale"));
        assert.deepEqual((await page.evaluate(() => globalThis.load())).value.sha256, info.sha256);
        assert.equal(server.requests.length, nAfter);
      });
    }

    test("an aborted load keeps what came, to the byte", async () => {
      page = await browser.newTab(`${server.url}/`);
      server.fault("/tiny.gguf", { chunkDelayMillis: 100 });
      await prepare(page, { url: "/tiny.gguf" });
      const error = await page.evaluate(() => {
        const controller = new AbortController();
        const onProgress = ({ bytes }) => bytes >= 65536 && controller.abort();
        return globalThis.settle(globalThis.cinder.load("tale", { onProgress, signal: controller.signal }));
      });
      assert.equal(error.error?.name, "AbortError");
      server.clearFaults();
      const { info, phases, files } = await recite(page);
      const start = Number(/^bytes=(\d+)-$/.exec(rangesOf(server, "/tiny.gguf")[1])?.[1]);
      assert.ok(start >= 65536 && start < tiny.length, String(rangesOf(server, "/tiny.gguf")));
      assert.deepEqual([info.sha256, phases], [[TINY_HASH], ["cache", "download", "ready"]]);
      const [{ url, bytes, isComplete }] = files;
      assert.deepEqual({ url, bytes, isComplete }, { url: `${server.url}/tiny.gguf`, bytes: tiny.length, isComplete: true });
    });

    for (const [which, fault] of [["a server that knows no ranges", { ignoresRanges: true }], ["a server that is honest", undefined]]) {
      test(`${which} and hides ETag and Content-Range: with a hash the download goes on, without one it begins anew`, async () => {
        for (const model of [{ sha256: TINY_HASH }, {}]) {
          page = await browser.newTab(`${server.url}/`);
          other.fault("/tiny.gguf", { chunkDelayMillis: 100 });
          await prepare(page, { url: `${other.url}/tiny.gguf`, ...model });
          await page.evaluate(() => {
            const controller = new AbortController();
            return globalThis.settle(globalThis.cinder.load("tale", { onProgress: ({ bytes }) => bytes >= 65536 && controller.abort(), signal: controller.signal }));
          });
          other.clearFaults();
          if (fault !== undefined) other.fault("/tiny.gguf", fault);
          const { info } = await recite(page);
          assert.deepEqual(info.sha256, [TINY_HASH]);
          assert.equal(rangesOf(other, "/tiny.gguf").filter((range) => range !== undefined).length, model.sha256 === undefined ? 0 : 1);
          other.requests.length = 0;
          await page.evaluate(async () => {
            await globalThis.cinder.dispose();
            for (const { id } of await globalThis.cinder.cache.list()) await globalThis.cinder.cache.delete(id);
          });
          await page.close();
        }
        page = undefined;
      });
    }

    test("a flipped byte is refused, and the file downloaded once more", async () => {
      page = await browser.newTab(`${server.url}/`);
      for (const flipAt of [5, 100_000]) {
        server.fault("/tiny.gguf", { flipAt, times: 1 });
        await prepare(page, { url: "/tiny.gguf", sha256: TINY_HASH });
        const { info, files } = await recite(page);
        assert.deepEqual([info.sha256, files[0].sha256], [[TINY_HASH], TINY_HASH]);
        assert.deepEqual(rangesOf(server, "/tiny.gguf"), [undefined, undefined]);
        await page.evaluate(async () => {
          await globalThis.cinder.dispose();
          await globalThis.cinder.cache.delete((await globalThis.cinder.cache.list())[0].id);
        });
        server.requests.length = 0;
      }
    });

    test("a stored copy that the disk damaged is dropped, and downloaded anew", async () => {
      page = await browser.newTab(`${server.url}/`);
      await prepare(page, { url: "/tiny.gguf" });
      await recite(page);
      for (const at of [2, 100_000]) {
        await page.evaluate(async (at) => {
          await globalThis.cinder.unload("tale");
          const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("cinderlm");
          const [{ id }] = await globalThis.cinder.cache.list();
          const handle = await folder.getFileHandle(`${id}.gguf`);
          const bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
          bytes[at] ^= 1;
          const writable = await handle.createWritable();
          await writable.write(bytes);
          await writable.close();
        }, at);
        server.requests.length = 0;
        const { info, files } = await recite(page);
        assert.deepEqual([info.sha256, files[0].isComplete], [[TINY_HASH], true]);
        assert.deepEqual(rangesOf(server, "/tiny.gguf"), [undefined]);
      }
    });

    test("two tabs make one download, and the one that waits sees how it goes", async () => {
      page = await browser.newTab(`${server.url}/`);
      const second = await browser.newTab(`${server.url}/`);
      server.fault("/tiny.gguf", { chunkDelayMillis: 300 });
      for (const tab of [page, second]) await prepare(tab, { url: "/tiny.gguf" });
      const loads = await Promise.all([recite(page), recite(second)]);
      assert.deepEqual(rangesOf(server, "/tiny.gguf"), [undefined]);
      assert.deepEqual(loads.map(({ phases }) => phases).sort(), [["download", "cache", "ready"], ["download", "ready"]]);
      await second.evaluate(() => globalThis.cinder.dispose());
      await second.close();
    });

    test("a file in use is not deleted; one that is not, is", async () => {
      page = await browser.newTab(`${server.url}/`);
      server.fault("/tiny.gguf", { chunkDelayMillis: 300 });
      await prepare(page, { url: "/tiny.gguf" });
      const outcome = await page.evaluate(async () => {
        const { cinder, settle } = globalThis;
        let busy;
        const onProgress = () => (busy ??= cinder.cache.list().then(([file]) => settle(cinder.cache.delete(file.id))));
        await cinder.load("tale", { onProgress });
        const [file] = await cinder.cache.list();
        const usage = await cinder.cache.usage();
        await cinder.cache.delete(file.id);
        return { busy: await busy, file, usage, rest: await cinder.cache.list(), left: (await cinder.cache.usage()).bytes };
      });
      assert.equal(outcome.busy.error?.name, "NoModificationAllowedError");
      assert.ok(outcome.file.isComplete && outcome.usage.bytes >= tiny.length && outcome.usage.quota > 0);
      assert.deepEqual([outcome.rest, outcome.left], [[], 0]);
    });

    test("a redirect to another origin carries no token", async () => {
      page = await browser.newTab(`${server.url}/`);
      await prepare(page, { url: "/moved.gguf" }, { token: "secret" });
      await recite(page);
      assert.deepEqual(server.requests.filter(({ path }) => path === "/moved.gguf").map(({ authorization }) => authorization), ["Bearer secret"]);
      const asked = other.requests.map(({ authorization }) => authorization);
      assert.ok(asked.length > 0 && asked.every((authorization) => authorization === undefined), String(asked));
    });

    test("a split model loads from its first part's address, and from its files", async () => {
      page = await browser.newTab(`${server.url}/`);
      await prepare(page, { url: "/split-00001-of-00003.gguf", sha256: Object.values(PARTS).map((path) => sha256(readFileSync(path))) });
      const { info, files } = await recite(page);
      assert.equal(info.fileBytes, Object.values(PARTS).reduce((sum, path) => sum + readFileSync(path).length, 0));
      assert.equal(files.length, 3);
      const outcome = await page.evaluate(async (paths) => {
        const { cinder, settle } = globalThis;
        const blobs = await Promise.all(paths.map(async (path) => (await fetch(path)).blob()));
        cinder.register({ id: "given", file: blobs });
        cinder.register({ id: "two", file: blobs.slice(0, 2) });
        cinder.register({ id: "swapped", file: [blobs[0], blobs[2], blobs[1]] });
        const params = { model: "given", prompt: "<|endoftext|>A cinder slept", temperature: 0, max_tokens: 12 };
        return { text: (await cinder.complete(params)).choices[0].text, two: await settle(cinder.load("two")), swapped: await settle(cinder.load("swapped")) };
      }, Object.keys(PARTS));
      assert.ok(POEM.startsWith(`A cinder slept${outcome.text}`));
      assert.deepEqual([outcome.two.error?.code, outcome.swapped.error?.code], ["corrupt_model", "corrupt_model"]);
      assert.match(outcome.two.error.message, /3 parts, and 2 are given/);
    });

    test("a backend of the page's own keeps the file", async () => {
      page = await browser.newTab(`${server.url}/`);
      await page.evaluate(() => {
        const kept = new Map();
        globalThis.backend = {
          list: async () => [...kept].map(([name, blob]) => ({ name, bytes: blob.size })),
          read: async (name) => kept.get(name),
          write: async (name, offset, bytes) => void kept.set(name, new Blob([kept.get(name)?.slice(0, offset) ?? "", bytes])),
          flush: async () => undefined,
          close: async () => undefined,
          delete: async (name) => void kept.delete(name),
        };
        const options = { device: "cpu", models: [{ id: "tale", url: "/tiny.gguf" }], cache: globalThis.backend };
        globalThis.progress = [];
        globalThis.cinder = new globalThis.cinderlm.Cinder(options);
        globalThis.load = () => globalThis.settle(globalThis.cinder.load("tale", { onProgress: (event) => globalThis.progress.push(event) }));
      });
      const { files } = await recite(page);
      assert.ok(files[0].isComplete);
      await page.evaluate(() => globalThis.cinder.unload("tale"));
      assert.deepEqual((await recite(page)).phases, ["download", "ready", "cache"]);
      assert.equal(rangesOf(server, "/tiny.gguf").length, 1);
    });

    if (name === "chromium") {
      test("a quota that is too small is told, with what is needed, and the model runs without being kept", async () => {
        page = await browser.newTab(`${server.url}/`);
        // Chromium tells pages of the same large quota whatever there is: they learn of it when there is no more.
        for (const [quota, url] of [[100_000, "/tiny.gguf"], [20_000_000, "/real.gguf"]]) {
          await page.limitStorage(quota);
          await prepare(page, { url });
          const { info, files } = await page.evaluate(async () => ({ info: (await globalThis.load()).value, files: await globalThis.cinder.cache.list() }));
          assert.equal(info.notStored?.code, "storage_full");
          assert.match(info.notStored.message, new RegExp(`takes ${info.fileBytes} bytes`));
          assert.deepEqual(files, []);
          if (url === "/tiny.gguf") await recite(page);
        }
      });
    }
  });
}
