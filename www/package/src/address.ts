const HUB = "https://huggingface.co";

/**
 * The address of a model: as it is, resolved against the page, or of a file on the Hugging Face hub for
 * `hf:owner/repo/path/to/file.gguf@revision`. Without a revision it is `main`.
 *
 * @throws TypeError for a hub address without owner, repository or file.
 */
export function modelAddress(url: string | URL): string {
  const text = String(url);
  if (!/^hf:/i.test(text)) return new URL(text, globalThis.location?.href).href;
  const match = /^hf:\/{0,2}([^/@]+)\/([^/@]+)\/([^@]+?)(?:@(.+))?$/i.exec(text);
  const [, owner, repository, path, revision = "main"] = match ?? [];
  if (owner === undefined || repository === undefined || path === undefined || path.endsWith("/")) {
    throw new TypeError(`${text}: expected hf:owner/repo/file.gguf or hf:owner/repo/file.gguf@revision.`);
  }
  // A revision is one segment, whatever slashes it has; a path is as many as it has.
  const segments = [owner, repository, "resolve", revision, ...path.split("/")];
  if (segments.some((segment) => segment === "." || segment === "..")) throw new TypeError(`${text}: a path upwards.`);
  return `${HUB}/${segments.map(encodeURIComponent).join("/")}`;
}

/** The most parts that a model may have. */
const MAX_PARTS = 1000;

/**
 * The addresses of all parts of a model, of which `address` is the first: `…-00001-of-00003.gguf`, as llama.cpp's `gguf-split` names them. One
 * address for a model that is not split.
 *
 * @throws TypeError for the address of a later part.
 */
export function partAddresses(address: string): string[] {
  const url = new URL(address);
  const match = /^(.*-)(\d{5})(-of-(\d{5})\.gguf)$/i.exec(url.pathname);
  const [, start, part, end, count] = match ?? [];
  if (start === undefined || end === undefined) return [address];
  const nParts = Number(count);
  if (Number(part) !== 1) throw new TypeError(`${address}: expected the first part of the model, ${decodeURIComponent(start)}00001${end}.`);
  if (nParts < 1 || nParts > MAX_PARTS) throw new TypeError(`${address}: a model has 1 to ${MAX_PARTS} parts.`);
  return Array.from({ length: nParts }, (_, i) => {
    const other = new URL(url);
    other.pathname = `${start}${String(i + 1).padStart(5, "0")}${end}`;
    return other.href;
  });
}
