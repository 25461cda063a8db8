// Draws the icons from coal.svg: one that glows, for when a model is loaded, and one of ash. Run by hand when the drawing changes.
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const LOOKS = {
  warm: {},
  cold: { "--core": "#c9c3bd", "--ember": "#96908a", "--rim": "#66605b", "--shell": "#3a3633" },
};

const drawing = readFileSync(new URL("coal.svg", import.meta.url), "utf8");
const where = process.env.CHROMIUM === undefined ? {} : { executablePath: process.env.CHROMIUM };
const browser = await chromium.launch({ ...where, args: ["--no-sandbox"] });
const page = await browser.newPage();
for (const [look, colours] of Object.entries(LOOKS)) {
  const style = Object.entries(colours).map(([name, value]) => `${name}:${value}`).join(";");
  for (const size of [16, 32, 48, 128]) {
    await page.setViewportSize({ width: size, height: size });
    const sized = drawing.replace("<svg", `<svg width="${size}" height="${size}" style="display:block"`);
    await page.setContent(`<body style="margin:0;${style}">${sized}`);
    await page.screenshot({ path: new URL(`${look}-${size}.png`, import.meta.url).pathname, omitBackground: true });
  }
}
await browser.close();
