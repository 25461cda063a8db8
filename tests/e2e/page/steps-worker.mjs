// The package's worker, whose steps on the GPU are counted.
import "./gpu-steps.mjs";
import "/dist/worker.js";
