// Runs some of the kernels' cases under the profile that the page names, in the module in the folder that it names, with that many more threads, which the
// page starts: in Firefox 153, making a worker within a worker hangs for good every now and then.

addEventListener("message", async ({ data: { folder, profile, nHelpers, first, end } }) => {
  try {
    const { default: initialize, nCases, nThreads, runSelftest } = await import(`${folder}/selftest.js`);
    const module = await WebAssembly.compileStreaming(fetch(`${folder}/selftest_bg.wasm`));
    const { memory } = await initialize({ module_or_path: module });
    if (nHelpers > 0) postMessage({ start: { folder, module, memory } });
    while (nHelpers > 0 && nThreads() <= nHelpers) await new Promise((resolve) => setTimeout(resolve, 10));
    postMessage({ nCases: nCases(), failures: await runSelftest(profile, first, end) });
  } catch (error) {
    postMessage({ error: String(error) });
  }
});
