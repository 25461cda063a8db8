// WebKitGTK through its WebDriver, in a display of its own: the third engine, without WebGPU and without the origin private file system.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { Builder, Capabilities } from "selenium-webdriver";

/**
 * Starts WebKitGTK's MiniBrowser, which `WEBKIT` names, with `WebKitWebDriver` and `Xvfb` from `PATH`.
 *
 * Returns `{ open(url), evaluate(function, argument), close() }`; what is evaluated may be asynchronous.
 */
export async function launchWebKit() {
  const binary = process.env.WEBKIT;
  if (binary === undefined) throw new Error("WEBKIT must name WebKitGTK's MiniBrowser: `./x test` sets it");
  const children = [];
  const stop = () => children.map((child) => child.kill());
  try {
    const display = start("Xvfb", ["-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp"]);
    children.push(display);
    const [number] = await orFailed(display, once(createInterface({ input: display.stdout }), "line"));
    const port = await freePort();
    const driver = start("WebKitWebDriver", [`--port=${port}`], { DISPLAY: `:${number}` });
    children.push(driver);
    await orFailed(driver, listening(port));
    const options = { browserName: "MiniBrowser", "webkitgtk:browserOptions": { binary, args: ["--automation"] } };
    const session = await new Builder().usingServer(`http://127.0.0.1:${port}`).withCapabilities(new Capabilities(options)).build();
    await session.manage().setTimeouts({ script: 120_000 });
    return {
      open: (url) => session.get(url),
      evaluate: (run, argument) => evaluate(session, run, argument),
      close: () => session.quit().finally(stop),
    };
  } catch (error) {
    stop();
    throw error;
  }
}

function start(program, parameters, environment = {}) {
  return spawn(program, parameters, { stdio: ["ignore", "pipe", "ignore"], env: { ...process.env, ...environment } });
}

/** Waits for something of a program, which may end or be missing. */
function orFailed(child, promise) {
  const ended = new Promise((_, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`${child.spawnfile} ended with ${code}`)));
  });
  return Promise.race([promise, ended]);
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

async function listening(port) {
  for (;;) {
    const isThere = await fetch(`http://127.0.0.1:${port}/status`).then((response) => response.ok, () => false);
    if (isThere) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function evaluate(session, run, argument) {
  const script = `const done = arguments[arguments.length - 1];
    Promise.resolve((${run})(arguments[0])).then((value) => done({ value }), (error) => done({ error: String(error) }));`;
  const { value, error } = await session.executeAsyncScript(script, argument ?? null);
  if (error !== undefined) throw new Error(error);
  return value;
}
