// Pictures of what a person sees, made by the tests that bring it there. `CINDERLM_SCREENSHOTS` names the folder that they go to, which is
// docs/images/ in `./x screenshots`; otherwise it is checked that each shows something and has a committed one.
import assert from "node:assert/strict";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const committed = fileURLToPath(new URL("../../docs/images", import.meta.url));
const folder = process.env.CINDERLM_SCREENSHOTS;

/** Less than this is a page without content: PNG makes little of one colour. */
const MIN_BYTES = 4000;

/** Takes a picture of a Playwright page or element, `name.png`, of which a committed one must be there. */
export async function takeScreenshot(subject, name) {
  const picture = await subject.screenshot({ animations: "disabled", caret: "initial" });
  assert.ok(picture.length >= MIN_BYTES, `the picture ${name} shows next to nothing: ${picture.length} bytes`);
  if (folder !== undefined) {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, `${name}.png`), picture);
    return;
  }
  assert.ok(existsSync(join(committed, `${name}.png`)), `docs/images/${name}.png is missing: run \`./x screenshots\``);
}
