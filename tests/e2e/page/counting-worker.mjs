// The package's worker, which counts what the GPU is given: bytes that were uploaded before `{ type: "count" }` and then bound.
import "./count-bound-bytes.mjs";
import "/dist/worker.js";
