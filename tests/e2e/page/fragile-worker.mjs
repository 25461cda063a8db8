// The package's worker on a device that tests can destroy. Imports are evaluated in order.
import "./destroy-on-request.mjs";
import "/dist/worker.js";
