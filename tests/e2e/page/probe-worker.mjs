// Says which WebGPU adapter a dedicated worker gets, and adds two numbers on it.
const CODE = `
  @group(0) @binding(0) var<storage, read_write> values: array<u32>;
  @compute @workgroup_size(1) fn add() { values[0] = values[0] + values[1]; }
`;

async function probe() {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) throw new Error("no adapter");
  const { vendor, architecture, device: deviceName, description, isFallbackAdapter: fallback } = adapter.info;
  const device = await adapter.requestDevice();
  const usage = GPUBufferUsage;
  const values = device.createBuffer({ size: 8, usage: usage.STORAGE | usage.COPY_SRC | usage.COPY_DST });
  const result = device.createBuffer({ size: 4, usage: usage.MAP_READ | usage.COPY_DST });
  device.queue.writeBuffer(values, 0, new Uint32Array([40, 2]));
  const pipeline = device.createComputePipeline({ layout: "auto", compute: { module: device.createShaderModule({ code: CODE }) } });
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries: [{ binding: 0, resource: { buffer: values } }] });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(values, 0, result, 0, 4);
  device.queue.submit([encoder.finish()]);
  await result.mapAsync(GPUMapMode.READ);
  const [sum] = new Uint32Array(result.getMappedRange());
  const name = [vendor, architecture, deviceName, description].join(" ");
  return { name, fallback, timestamps: adapter.features.has("timestamp-query"), sum };
}

probe().then(
  (value) => postMessage({ value }),
  (error) => postMessage({ error: String(error) }),
);
