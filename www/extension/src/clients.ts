/** Those who may call the engine, and their keys. */

import { parseUrl } from "./url.js";

/** A page's origin, or another extension's id. */
export type ClientKind = "page" | "extension";

/** A key, and who may use it. The key itself is shown once and not kept. */
export interface Client {
  id: string;
  kind: ClientKind;
  /** The origin, such as `https://notes.example`, or the extension's id. */
  who: string;
  /** SHA-256 of the key, in hexadecimal digits. */
  hash: string;
  /** Unix time, milliseconds. */
  createdMillis: number;
}

/** Who a request comes from, as the browser tells it. */
export interface Caller {
  kind: ClientKind;
  who: string;
}

const STORED = "clients";
const KEY_BYTES = 32;
const PREFIX = "ck-";

/** Makes a key of 256 random bits for a caller. Only its hash goes into the record. */
export async function makeKey({ kind, who }: Caller): Promise<{ key: string; client: Client }> {
  const key = PREFIX + base64Url(crypto.getRandomValues(new Uint8Array(KEY_BYTES)));
  return { key, client: { id: crypto.randomUUID(), kind, who, hash: await hashKey(key), createdMillis: Date.now() } };
}

/** The form in which a key is kept. A key has 256 random bits, so its plain hash tells nothing of it. */
export async function hashKey(key: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(key));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The record that lets this caller in with this key: the key alone is not enough, it has to be this caller's. */
export async function matchKey(clients: readonly Client[], caller: Caller, key: string): Promise<Client | undefined> {
  const hash = await hashKey(key);
  return clients.find((client) => client.kind === caller.kind && client.who === caller.who && client.hash === hash);
}

/** Everybody who may call. */
export async function readClients(): Promise<Client[]> {
  const stored: unknown = (await chrome.storage.local.get(STORED))[STORED];
  return Array.isArray(stored) ? stored.filter(isClient) : [];
}

/** Lets one more in. */
export async function addClient(client: Client): Promise<void> {
  await chrome.storage.local.set({ [STORED]: [...(await readClients()), client] });
}

/** Takes the records away that `leaves` tells, and gives those that stay. */
export async function removeClients(leaves: (client: Client) => boolean): Promise<Client[]> {
  const kept = (await readClients()).filter((client) => !leaves(client));
  await chrome.storage.local.set({ [STORED]: kept });
  return kept;
}

/**
 * The origin that a user means by a page's address or origin.
 *
 * @throws TypeError for one that pages cannot have.
 */
export function pageOrigin(text: string): string {
  const address = text.trim();
  const url = parseUrl(/^[a-z][a-z0-9+.-]*:\/\//i.test(address) ? address : `https://${address}`);
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.username !== "" || url.password !== "") {
    throw new TypeError(`${JSON.stringify(address)} is no address of a page: expected one such as https://notes.example.`);
  }
  return url.origin;
}

/**
 * An extension's id as a user gives it.
 *
 * @throws TypeError for a text that is none: Chromium's are 32 letters from a to p, Firefox's an e-mail address or a braced UUID.
 */
export function extensionId(text: string): string {
  const id = text.trim();
  if (/^[a-p]{32}$/.test(id) || /^[\w.-]*@[\w.-]+$/.test(id) || /^\{[0-9a-f-]{36}\}$/i.test(id)) return id;
  throw new TypeError(`${JSON.stringify(id)} is no id of an extension: the browser's page of extensions shows it.`);
}

function isClient(value: unknown): value is Client {
  if (typeof value !== "object" || value === null) return false;
  const { id, kind, who, hash, createdMillis } = value as Partial<Record<keyof Client, unknown>>;
  return [id, who, hash].every((text) => typeof text === "string") && (kind === "page" || kind === "extension") && typeof createdMillis === "number";
}

function base64Url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
