import { modelAddress } from "cinderlm";
import { CATALOGUE } from "./catalogue.js";

/** A model that the visitor has chosen. */
export interface ChosenModel {
  /** What requests call it. */
  id: string;
  name: string;
  source: { address: string } | { file: File };
}

/** Says why an address cannot be a model's; undefined if it can. */
export function addressFault(address: string, base: string): string | undefined {
  if (address === "") return "Enter the address of a GGUF file.";
  if (isOnHub(address)) return hubFault(address);
  const url = URL.canParse(address, base) ? new URL(address, base) : undefined;
  if (url?.protocol === "https:" || url?.protocol === "http:") return undefined;
  return "Expected an address that starts with https: or hf:.";
}

function hubFault(address: string): string | undefined {
  try {
    modelAddress(address);
    return undefined;
  } catch {
    return "Expected hf:owner/repo/file.gguf or hf:owner/repo/file.gguf@revision.";
  }
}

/** The model at an address, under the catalogue's name where it has one. `base` is the page's address. */
export function modelAt(address: string, base: string): ChosenModel {
  const absolute = isOnHub(address) ? address : new URL(address, base).href;
  const entry = CATALOGUE.find((candidate) => fileAddress(candidate.address) === fileAddress(absolute));
  const id = stem(new URL(fileAddress(absolute)).pathname);
  return { id, name: entry?.name ?? id, source: { address: entry?.address ?? absolute } };
}

/** The model in a file of the visitor's. */
export function modelIn(file: File): ChosenModel {
  const id = stem(file.name);
  return { id, name: id, source: { file } };
}

/** Where a file on the hub, or anywhere, is fetched from: the same model under two spellings has one. */
export function fileAddress(address: string): string {
  return isOnHub(address) ? modelAddress(address) : address;
}

function isOnHub(address: string): boolean {
  return /^hf:/i.test(address);
}

/** A file's name without folders and `.gguf`; requests need one that is not empty. */
function stem(path: string): string {
  const name = path.split("/").at(-1) ?? "";
  return name.replace(/\.gguf$/i, "") || "model";
}
