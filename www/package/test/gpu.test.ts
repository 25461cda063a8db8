import assert from "node:assert/strict";
import { test } from "node:test";
import { GpuMeter } from "../src/gpu-meter.js";
import { joinSubmissions } from "../src/gpu-submissions.js";

/** A realm with as much of WebGPU as is watched, and what was called in it, in order. */
function makeRealm() {
  const calls: string[] = [];
  class GPUQueue {
    submit(commands: string[]) {
      calls.push(`submit ${commands.join(" ")}`);
    }
    writeBuffer(_: GPUBuffer, at: number) {
      calls.push(`write ${at}`);
    }
  }
  class GPUBuffer {
    constructor(
      readonly size: number,
      readonly usage = 0,
    ) {}
    mapAsync() {
      calls.push("map");
      return Promise.resolve();
    }
  }
  class GPUDevice {
    createBuffer(size: number) {
      return new GPUBuffer(size);
    }
    createBindGroup(descriptor: object) {
      return { descriptor };
    }
    pushErrorScope() {
      calls.push("scope");
    }
  }
  class GPUComputePassEncoder {
    setBindGroup(_index: number, _group: object | null) {}
    dispatchWorkgroups() {}
  }
  class GPUCommandEncoder {
    copyBufferToBuffer(..._: unknown[]) {}
  }
  return { calls, realm: { GPUQueue, GPUBuffer, GPUDevice, GPUComputePassEncoder, GPUCommandEncoder } };
}

test("submissions are joined, and nothing overtakes them", async () => {
  const { calls, realm } = makeRealm();
  joinSubmissions(realm);
  const [queue, other, buffer] = [new realm.GPUQueue(), new realm.GPUQueue(), new realm.GPUBuffer(4)];
  queue.submit(["a"]);
  queue.submit(["b", "c"]);
  other.submit(["d"]);
  assert.deepEqual(calls, []);
  void buffer.mapAsync();
  assert.deepEqual(calls.splice(0), ["submit a b c", "submit d", "map"]);
  queue.submit(["e"]);
  queue.writeBuffer(buffer, 0);
  queue.submit(["f"]);
  new realm.GPUDevice().pushErrorScope();
  queue.submit(["g"]);
  assert.deepEqual(calls.splice(0), ["submit e", "write 0", "submit f", "scope"]);
  await Promise.resolve();
  assert.deepEqual(calls, ["submit g"], "when the code that runs has run");
});

test("a realm without WebGPU has nothing to join or count", () => {
  joinSubmissions({});
  const none = { dispatches: 0, submits: 0, readbacks: 0, readbackBytes: 0, boundBytes: 0, createdObjects: 0 };
  assert.deepEqual(new GpuMeter({}).take(), none);
});

test("the meter counts calls, and each byte that is bound once", () => {
  const { realm } = makeRealm();
  const meter = new GpuMeter(realm);
  const [device, pass, encoder] = [new realm.GPUDevice(), new realm.GPUComputePassEncoder(), new realm.GPUCommandEncoder()];
  const [large, readable] = [device.createBuffer(1000), new realm.GPUBuffer(64, 1)];
  const bind = (...entries: object[]) => device.createBindGroup({ entries: entries.map((resource) => ({ resource })) });
  const [first, second] = [bind({ buffer: large, offset: 100, size: 200 }), bind({ buffer: large, offset: 200 }, { buffer: readable, size: 10 })];
  const step = () => {
    assert.equal(meter.take().boundBytes, 0, "nothing is bound between steps");
    for (const group of [first, second, first]) {
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups();
    }
    encoder.copyBufferToBuffer(large, 0, readable, 0, 16);
    encoder.copyBufferToBuffer(large, 0, large, 500, 16);
    void readable.mapAsync();
    return meter.take();
  };
  const work = { dispatches: 3, submits: 0, readbacks: 1, readbackBytes: 16, boundBytes: 910 };
  const created = meter.take().createdObjects;
  assert.equal(created, 3);
  assert.deepEqual(step(), { ...work, createdObjects: 0 });
  assert.deepEqual(step(), { ...work, createdObjects: 0 }, "counted anew, and the same bytes are bound");
  pass.setBindGroup(0, first);
  assert.equal(meter.take().boundBytes, 200, "other groups are bound");
});
