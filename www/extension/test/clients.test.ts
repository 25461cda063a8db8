import assert from "node:assert/strict";
import { test } from "node:test";
import { extensionId, hashKey, makeKey, matchKey, pageOrigin, type Caller } from "../src/clients.js";

const page: Caller = { kind: "page", who: "https://notes.example" };

test("a key has 256 random bits, and its record only the hash", async () => {
  const { key, client } = await makeKey(page);
  assert.match(key, /^ck-[\w-]{43}$/);
  assert.equal(Buffer.from(key.slice(3), "base64url").length, 32);
  assert.equal(client.hash, await hashKey(key));
  assert.ok(!JSON.stringify(client).includes(key.slice(3)));
  assert.notEqual((await makeKey(page)).key, key);
});

test("the hash is SHA-256, in hexadecimal digits", async () => {
  assert.equal(await hashKey("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
});

test("a key lets in the caller that it was made for, and nobody else", async () => {
  const { key, client } = await makeKey(page);
  const clients = [(await makeKey(page)).client, client];
  assert.equal(await matchKey(clients, page, key), client);
  const others: [Caller, string][] = [
    [{ ...page, who: "https://notes.example:8443" }, key],
    [{ ...page, who: "http://notes.example" }, key],
    [{ kind: "extension", who: page.who }, key],
    [page, `${key}x`],
    [page, client.hash],
    [page, ""],
  ];
  for (const [caller, wrong] of others) assert.equal(await matchKey(clients, caller, wrong), undefined, JSON.stringify([caller, wrong]));
  assert.equal(await matchKey([], page, key), undefined);
});

test("a page is its origin, however its address is given", () => {
  const table: [string, string][] = [
    ["https://notes.example/a?b#c", "https://notes.example"],
    [" notes.example ", "https://notes.example"],
    ["http://localhost:8080/x", "http://localhost:8080"],
    ["https://NOTES.example:443", "https://notes.example"],
  ];
  for (const [text, origin] of table) assert.equal(pageOrigin(text), origin);
  for (const text of ["", "file:///etc", "https://", "javascript://x", "https://user:pass@notes.example"]) assert.throws(() => pageOrigin(text), TypeError, text);
});

test("ids of extensions are told from other texts", () => {
  for (const id of ["a".repeat(32), "notes@example.org", "{7b1c9d62-5a0e-4f43-9d0b-c1de12e3a9f4}"]) assert.equal(extensionId(` ${id} `), id);
  for (const text of ["z".repeat(32), "a".repeat(31), "https://notes.example", ""]) assert.throws(() => extensionId(text), TypeError, text);
});
