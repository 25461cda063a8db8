// Runs the kernels' cases under the profile that the page names.
import initialize, { nCases, runSelftest } from "/selftest/selftest.js";

addEventListener("message", async ({ data: profile }) => {
  try {
    await initialize({ module_or_path: fetch("/selftest/selftest_bg.wasm") });
    postMessage({ nCases: nCases(), failures: await runSelftest(profile) });
  } catch (error) {
    postMessage({ error: String(error) });
  }
});
