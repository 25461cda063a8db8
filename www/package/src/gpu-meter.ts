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

/** A range of a buffer that a bind group names. */
interface Range {
  buffer: object;
  from: number;
  to: number;
}

/** What of WebGPU's classes the meter looks at. */
type Class = { prototype: object } | undefined;
type Method = (this: object, ...parameters: unknown[]) => unknown;

/**
 * Counts what the runtime gives the GPU to do, by standing between it and WebGPU's own methods. A step of a model calls them a few hundred
 * times, so each count is an addition; what a step bound is put together once, and again only when a step binds other groups than the one before.
 */
export class GpuMeter {
  private work = none();
  private readonly ranges = new WeakMap<object, Range[]>();
  /** Bind groups that were set since `take` was last called, and those before with what they bound. */
  private groups: object[] = [];
  private earlier: { groups: object[]; bytes: number } = { groups: [], bytes: 0 };

  /** Watches all devices of this realm. */
  constructor(realm: Record<string, unknown> = globalThis as unknown as Record<string, unknown>) {
    const after = (name: string, methods: string[], note: (parameters: unknown[], result: unknown, object: object) => void): void => {
      const prototype = (realm[name] as Class)?.prototype as Record<string, Method> | undefined;
      for (const method of methods) {
        const own = prototype?.[method];
        if (prototype === undefined || own === undefined) continue;
        prototype[method] = function (this: object, ...parameters) {
          const result = own.apply(this, parameters);
          note(parameters, result, this);
          return result;
        };
      }
    };
    const creates = ["createBuffer", "createBindGroup", "createShaderModule", "createComputePipeline", "createComputePipelineAsync"];
    after("GPUDevice", creates, () => (this.work.createdObjects += 1));
    after("GPUDevice", ["createBindGroup"], ([descriptor], group) => this.ranges.set(group as object, rangesOf(descriptor as GPUBindGroupDescriptor)));
    after("GPUComputePassEncoder", ["dispatchWorkgroups", "dispatchWorkgroupsIndirect"], () => (this.work.dispatches += 1));
    after("GPUComputePassEncoder", ["setBindGroup"], ([, group]) => void (group && this.groups.push(group)));
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
    const { groups, earlier } = this;
    if (groups.length !== earlier.groups.length || groups.some((group, i) => group !== earlier.groups[i])) {
      const ranges = [...new Set(groups)].flatMap((group) => this.ranges.get(group) ?? []);
      this.earlier = { groups, bytes: distinctBytes(ranges) };
    }
    this.groups = [];
    return this.earlier.bytes;
  }
}

function none(): GpuWork {
  return { dispatches: 0, submits: 0, readbacks: 0, readbackBytes: 0, boundBytes: 0, createdObjects: 0 };
}

function rangesOf({ entries }: GPUBindGroupDescriptor): Range[] {
  const ranges: Range[] = [];
  for (const { resource } of entries) {
    const bound = resource as Partial<GPUBufferBinding> & Partial<GPUBuffer>;
    const buffer = bound.buffer ?? (typeof bound.size === "number" && bound.mapAsync !== undefined ? (bound as GPUBuffer) : undefined);
    if (buffer === undefined) continue;
    const from = bound.buffer === undefined ? 0 : (bound.offset ?? 0);
    ranges.push({ buffer, from, to: bound.buffer === undefined ? buffer.size : from + (bound.size ?? buffer.size - from) });
  }
  return ranges;
}

/** Bytes of the union of ranges. */
function distinctBytes(ranges: Range[]): number {
  const byBuffer = new Map<object, Range[]>();
  for (const range of ranges) byBuffer.set(range.buffer, [...(byBuffer.get(range.buffer) ?? []), range]);
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
