// Counts what the GPU is given to do between two answers that are read from it, by wrapping WebGPU's own methods, apart from the package's own
// count of the same. Everybody who listens on the channel "gpu-steps" is told after each answer; who asks "pipelines?" there is told how many
// were created since the start.
const channel = new BroadcastChannel("gpu-steps");
const fresh = () => ({ dispatches: 0, submits: 0, createdObjects: 0, readbackBytes: 0, bound: [] });
const bindings = new WeakMap();
let step = fresh();
let nPipelines = 0;
channel.addEventListener("message", ({ data }) => data === "pipelines?" && channel.postMessage({ nPipelines }));

function before(Class, names, note) {
  for (const name of names) {
    const own = Class.prototype[name];
    Class.prototype[name] = function (...parameters) {
      note(this, parameters);
      return own.apply(this, parameters);
    };
  }
}

before(GPUDevice, ["createBuffer", "createShaderModule", "createComputePipeline", "createComputePipelineAsync"], () => (step.createdObjects += 1));
before(GPUDevice, ["createComputePipeline", "createComputePipelineAsync"], () => (nPipelines += 1));
before(GPUComputePassEncoder, ["dispatchWorkgroups", "dispatchWorkgroupsIndirect"], () => (step.dispatches += 1));
before(GPUComputePassEncoder, ["setBindGroup"], (_, [, group]) => step.bound.push(...bindings.get(group)));
before(GPUQueue, ["submit"], () => (step.submits += 1));
before(GPUCommandEncoder, ["copyBufferToBuffer"], (_, [, offset, to, , size]) => {
  if (!(to instanceof GPUBuffer)) throw new Error(`a copy of ${offset} that is not counted`);
  if (to.usage & GPUBufferUsage.MAP_READ) step.readbackBytes += size;
});

const createBindGroup = GPUDevice.prototype.createBindGroup;
GPUDevice.prototype.createBindGroup = function (descriptor) {
  const group = createBindGroup.call(this, descriptor);
  step.createdObjects += 1;
  const buffers = descriptor.entries.map(({ resource }) => resource).filter(({ buffer }) => buffer instanceof GPUBuffer);
  bindings.set(group, buffers.map(({ buffer, offset = 0, size = buffer.size - offset }) => [buffer, offset, offset + size]));
  return group;
};

/** Answers that were asked for and are not here yet. */
let nAwaited = 0;
const mapAsync = GPUBuffer.prototype.mapAsync;
GPUBuffer.prototype.mapAsync = function (...parameters) {
  const { bound, ...counted } = step;
  step = fresh();
  channel.postMessage({ ...counted, boundBytes: union(bound), nAwaited });
  nAwaited += 1;
  const mapped = mapAsync.apply(this, parameters);
  const settled = () => (nAwaited -= 1);
  mapped.then(settled, settled);
  return mapped;
};

/** Bytes that any of the ranges covers. */
function union(ranges) {
  let bytes = 0;
  for (const buffer of new Set(ranges.map(([buffer]) => buffer))) {
    const own = ranges.filter(([other]) => other === buffer).toSorted(([, a], [, b]) => a - b);
    let end = 0;
    for (const [, from, to] of own) {
      bytes += Math.max(0, to - Math.max(from, end));
      end = Math.max(end, to);
    }
  }
  return bytes;
}
