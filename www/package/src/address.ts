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
