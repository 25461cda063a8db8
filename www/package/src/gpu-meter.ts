import { type Realm, replaceMethods } from "./gpu-methods.js";

/** What the GPU was given to do. */
export interface GpuWork {
  /** Kernels that were launched. */
  dispatches: number;
  /** Submissions of recorded commands. */
  submits: number;
  /** Buffers that were mapped to be read. */
  readbacks: number;
  /** Bytes that were copied to where they can be read. */
  readbackBytes: number;
  /** Distinct bytes of the buffer ranges that were bound: the least that memory has to move. */
  boundBytes: number;
  /** Buffers, bind groups, pipelines and shader modules that were created. */
  createdObjects: number;
}

/** `GPUBufferUsage.MAP_READ`. */
const MAP_READ = 1;

/** A range of a buffer, by its number, that a bind group names. */
interface Range {
  buffer: number;
  from: number;
  to: number;
}

interface Group {
  number: number;
  ranges: Range[];
}

/**
 * Counts what the runtime gives the GPU to do, by standing between it and WebGPU's own methods. A step of a model calls them a few hundred
 * times, so each count is an addition; what a step bound is put together once, and again only when a step binds other groups than the one before.
 *
 * Bind groups are remembered by numbers: whoever held one would hold its buffers, which browsers free only when nobody refers to them any more.
 */
export class GpuMeter {
  private work = none();
  private readonly groups = new WeakMap<object, Group>();
  private nGroups = 0;
  private readonly buffers = new WeakMap<object, number>();
  private nBuffers = 0;
  /** Bind groups that were set since `take` was last called, by number, and what each binds. */
  private bound: number[] = [];
  private ranges = new Map<number, Range[]>();
  /** What the last step with any bound, and how many bytes that was. */
  private earlier: { bound: number[]; bytes: number } = { bound: [], bytes: 0 };

  /** Watches all devices of this realm. */
  constructor(realm: Realm = globalThis as unknown as Realm) {
    const after = (name: string, methods: string[], note: (parameters: unknown[], result: unknown) => void): void =>
      replaceMethods(
        realm,
        name,
        methods,
        (own) =>
          function (...parameters) {
            const result = own.apply(this, parameters);
            note(parameters, result);
            return result;
          },
      );
    const creates = ["createBuffer", "createBindGroup", "createShaderModule", "createComputePipeline", "createComputePipelineAsync"];
    after("GPUDevice", creates, () => (this.work.createdObjects += 1));
    after("GPUDevice", ["createBindGroup"], ([descriptor], group) => {
      this.groups.set(group as object, { number: (this.nGroups += 1), ranges: this.rangesOf(descriptor as GPUBindGroupDescriptor) });
    });
    after("GPUComputePassEncoder", ["dispatchWorkgroups", "dispatchWorkgroupsIndirect"], () => (this.work.dispatches += 1));
    after("GPUComputePassEncoder", ["setBindGroup"], ([, group]) => {
      const known = this.groups.get(group as object);
      if (known === undefined) return;
      this.bound.push(known.number);
      this.ranges.set(known.number, known.ranges);
    });
    after("GPUQueue", ["submit"], () => (this.work.submits += 1));
    after("GPUBuffer", ["mapAsync"], () => (this.work.readbacks += 1));
    after("GPUCommandEncoder", ["copyBufferToBuffer"], (parameters) => {
      // Offsets may be left out.
      const [to, size] = parameters.length >= 5 ? [parameters[2], parameters[4]] : [parameters[1], parameters[2]];
      const { usage, size: whole } = to as GPUBuffer;
      if ((usage & MAP_READ) !== 0) this.work.readbackBytes += Number(size ?? whole);
    });
  }

  /** What was done since this was last called. */
  take(): GpuWork {
    const work = { ...this.work, boundBytes: this.boundBytes() };
    this.work = none();
    return work;
  }

  private boundBytes(): number {
    const { bound, ranges, earlier } = this;
    if (bound.length === 0) return 0;
    this.bound = [];
    this.ranges = new Map();
    if (bound.length !== earlier.bound.length || bound.some((group, i) => group !== earlier.bound[i])) {
      this.earlier = { bound, bytes: distinctBytes([...ranges.values()].flat()) };
    }
    return this.earlier.bytes;
  }

  private rangesOf({ entries }: GPUBindGroupDescriptor): Range[] {
    const ranges: Range[] = [];
    for (const { resource } of entries) {
      const bound = resource as Partial<GPUBufferBinding> & Partial<GPUBuffer>;
      const buffer = bound.buffer ?? (bound.mapAsync === undefined ? undefined : (bound as GPUBuffer));
      if (buffer === undefined) continue;
      const from = bound.buffer === undefined ? 0 : (bound.offset ?? 0);
      const to = bound.buffer === undefined ? buffer.size : from + (bound.size ?? buffer.size - from);
      ranges.push({ buffer: this.numberOf(buffer), from, to });
    }
    return ranges;
  }

  private numberOf(buffer: object): number {
    const known = this.buffers.get(buffer);
    if (known !== undefined) return known;
    this.nBuffers += 1;
    this.buffers.set(buffer, this.nBuffers);
    return this.nBuffers;
  }
}

function none(): GpuWork {
  return { dispatches: 0, submits: 0, readbacks: 0, readbackBytes: 0, boundBytes: 0, createdObjects: 0 };
}

/** Bytes of the union of ranges. */
function distinctBytes(ranges: Range[]): number {
  const byBuffer = new Map<number, Range[]>();
  for (const range of ranges) {
    const own = byBuffer.get(range.buffer);
    if (own === undefined) byBuffer.set(range.buffer, [range]);
    else own.push(range);
  }
  let bytes = 0;
  for (const own of byBuffer.values()) {
    let end = 0;
    for (const { from, to } of own.sort((a, b) => a.from - b.from)) {
      bytes += Math.max(0, to - Math.max(from, end));
      end = Math.max(end, to);
    }
  }
  return bytes;
}
