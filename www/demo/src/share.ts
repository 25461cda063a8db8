import { FIELDS, initialValues, type FormValues } from "./fields.js";
import { addressFault } from "./models.js";

/** What a link carries: the form, and where the model is unless it is a file of the visitor's. */
export interface Shared {
  values: FormValues;
  model?: string;
}

/** Links of this much text and more are not read: no form is so long, and no browser likes to keep it. */
const MAX_LENGTH = 100_000;

/**
 * The part of a link after `#`, which browsers send to no server. Only what differs from a fresh form is in it.
 *
 * Names and values are those of the form, percent-encoded, so that a link can be read and changed by hand.
 */
export function encodeShare({ values, model }: Shared): string {
  const query = new URLSearchParams();
  if (model !== undefined) query.set("model", model);
  for (const { name, initial } of FIELDS) {
    if (values[name] !== initial) query.set(name, values[name]);
  }
  return query.toString();
}

/** Reads what {@link encodeShare} wrote. Anyone can write a link: what is unknown or misshapen in it is passed over. */
export function decodeShare(fragment: string): Shared | undefined {
  const text = fragment.replace(/^#/, "");
  if (text === "" || text.length > MAX_LENGTH) return undefined;
  const query = new URLSearchParams(text);
  const values = initialValues();
  let isEmpty = true;
  for (const { name, control, options } of FIELDS) {
    const value = query.get(name);
    if (value === null) continue;
    if (control === "check" && value !== "true" && value !== "false") continue;
    if (control === "choice" && !options?.some(([option]) => option === value)) continue;
    if ((control === "line" || control === "number") && /[\r\n]/.test(value)) continue;
    values[name] = value;
    isEmpty = false;
  }
  const model = query.get("model");
  if (model !== null && addressFault(model, "https://relative.invalid") === undefined) return { values, model };
  return isEmpty ? undefined : { values };
}
