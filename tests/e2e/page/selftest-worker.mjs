// Runs some of the kernels' cases under the profile that the page names, in the module in the folder that it names, with that many more threads.
const SERVES = "serves";

addEventListener("message", async ({ data: { folder, profile, nHelpers, first, end } }) => {
  try {
    const { default: initialize, nCases, nThreads, runSelftest } = await import(`${folder}/selftest.js`);
    const module = await WebAssembly.compileStreaming(fetch(`${folder}/selftest_bg.wasm`));
    const { memory } = await initialize({ module_or_path: module });
    await Promise.all(Array.from({ length: nHelpers }, () => help({ folder, module, memory })));
    while (nHelpers > 0 && nThreads() <= nHelpers) await new Promise((resolve) => setTimeout(resolve, 10));
    postMessage({ nCases: nCases(), failures: await runSelftest(profile, first, end) });
  } catch (error) {
    postMessage({ error: String(error) });
  }
});

function help(start) {
  const worker = new Worker("/page/selftest-thread.mjs", { type: "module" });
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => data === SERVES && resolve();
    worker.onerror = (event) => reject(new Error(event.message));
    worker.postMessage(start);
  });
}
