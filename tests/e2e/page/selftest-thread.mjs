// One more thread for the kernels' cases.
addEventListener("message", async ({ data: { folder, module, memory } }) => {
  const { initSync, serveThread } = await import(`${folder}/selftest.js`);
  initSync({ module, memory });
  serveThread();
});
