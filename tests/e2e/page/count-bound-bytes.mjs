// Wraps WebGPU's own methods. `{ type: "count" }` starts a count; each answer of the GPU that is read ends a step of it. The counts go to
// everybody who listens on the channel "bound-bytes".
const channel = new BroadcastChannel("bound-bytes");
/** Ranges of each buffer that were uploaded, `[from, to)`. */
const uploaded = new Map();
const groups = new WeakMap();
/** The ranges that the current step has bound. */
let step = [];
let steps = [];
let isUploading = true;

function wrap(object, name, before) {
  const own = object.prototype[name];
  object.prototype[name] = function (...parameters) {
    const result = own.apply(this, parameters);
    before(parameters, result, this);
    return result;
  };
}

function upload(buffer, offset, size) {
  if (!isUploading) return;
  if (!uploaded.has(buffer)) uploaded.set(buffer, []);
  uploaded.get(buffer).push([offset, offset + size]);
}

wrap(GPUQueue, "writeBuffer", ([buffer, offset, data, from = 0, size]) => {
  const unit = ArrayBuffer.isView(data) ? (data.BYTES_PER_ELEMENT ?? 1) : 1;
  upload(buffer, offset, size === undefined ? data.byteLength - from * unit : size * unit);
});
wrap(GPUCommandEncoder, "copyBufferToBuffer", (parameters) => {
  const [, , to, offset, size] = parameters.length >= 5 ? parameters : [undefined, undefined, parameters[1], 0, parameters[2] ?? parameters[1].size];
  upload(to, offset, size);
});
wrap(GPUDevice, "createBindGroup", ([{ entries }], group) => {
  const ranges = [...entries].map(({ resource }) => (resource instanceof GPUBuffer ? { buffer: resource } : resource)).filter(({ buffer }) => buffer instanceof GPUBuffer);
  groups.set(group, ranges.map(({ buffer, offset = 0, size = buffer.size - offset }) => ({ buffer, from: offset, to: offset + size })));
});
wrap(GPUComputePassEncoder, "setBindGroup", ([, group]) => step.push(...(groups.get(group) ?? [])));
wrap(GPUBuffer, "mapAsync", () => {
  steps.push(step);
  step = [];
});

/** Bytes of the union of ranges. */
function size(ranges) {
  let [bytes, end] = [0, 0];
  for (const [from, to] of ranges.sort(([a], [b]) => a - b)) {
    bytes += Math.max(0, to - Math.max(from, end));
    end = Math.max(end, to);
  }
  return bytes;
}

/** Distinct uploaded bytes among those that were bound. */
function uploadedBytes(bound) {
  let bytes = 0;
  for (const [buffer, ranges] of uploaded) {
    const own = bound.filter((one) => one.buffer === buffer);
    const cut = own.flatMap(({ from, to }) => ranges.map(([start, end]) => [Math.max(from, start), Math.min(to, end)]).filter(([start, end]) => start < end));
    bytes += size(cut);
  }
  return bytes;
}

channel.addEventListener("message", ({ data }) => {
  if (data.type === "count") {
    isUploading = false;
    [step, steps] = [[], []];
    channel.postMessage({ type: "counting" });
  }
  if (data.type === "tell") channel.postMessage({ type: "counted", bytes: steps.map(uploadedBytes), rest: uploadedBytes(step) });
});
