// What tests call inside the page, through `evaluate`: the package, and help with results that must cross to Node.

// Remembered so that a test can end one from outside, as a browser short of memory would.
globalThis.workers = [];
globalThis.Worker = class extends Worker {
  constructor(...parameters) {
    super(...parameters);
    globalThis.workers.push(this);
  }
};

/** What an error says, as plain data. */
globalThis.plainError = ({ name, message, status, type, code, param }) => ({ name, message, status, type, code, param });

/** `{ value }` or `{ error }`, so that an expected rejection crosses to Node whole. */
globalThis.settle = (promise) =>
  Promise.resolve(promise).then(
    (value) => ({ value }),
    (error) => ({ error: plainError(error) }),
  );

globalThis.cinderlm = await import("/dist/index.js").catch((error) => ({ importError: String(error) }));
