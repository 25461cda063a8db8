// What cinderlm means to reach beside its peers, and what it reached.

/**
 * An aim: the ratio of two measures, or one measure itself, and its bound.
 *
 * @typedef {object} Aim
 * @property {string} measure
 * @property {string} of Whose measure.
 * @property {string} [to] To whose it is compared.
 * @property {string} [toMeasure] To which of its measures, if not the same.
 * @property {number} [atLeast]
 * @property {number} [atMost]
 */

/** @type {Aim[]} */
export const AIMS = [
  { measure: "decode16", of: "cinderlm-cpu-1", to: "wllama-2", atLeast: 2.5 },
  { measure: "decode16", of: "cinderlm-cpu-1", to: "llama-1", atLeast: 0.6 },
  { measure: "prefill128", of: "cinderlm-cpu-1", to: "transformers-cpu", atLeast: 1 },
  { measure: "prefill512", of: "cinderlm-cpu-1", to: "transformers-cpu", atLeast: 1.5 },
  { measure: "decode16", of: "cinderlm-cpu-2", to: "cinderlm-cpu-1", atLeast: 1.6 },
  { measure: "prefill512", of: "cinderlm-cpu-2", to: "cinderlm-cpu-1", atLeast: 1.6 },
  { measure: "decode2048", of: "cinderlm-cpu-1", to: "wllama-2", atLeast: 4 },
  { measure: "decode2048", of: "cinderlm-webgpu", to: "cinderlm-webgpu", toMeasure: "decode16", atLeast: 0.6 },
  { measure: "decode16", of: "cinderlm-webgpu", to: "transformers-webgpu", atLeast: 25 },
  { measure: "prefill128", of: "cinderlm-webgpu", to: "transformers-webgpu", atLeast: 4 },
  { measure: "load", of: "cinderlm-cpu-1", to: "wllama-2", atMost: 0.5 },
  { measure: "peak", of: "cinderlm-cpu-1", to: "wllama-2", atMost: 0.6 },
  { measure: "runtime", of: "cinderlm-cpu-1", atMost: 2.2 },
];

/** The aims with their `value`, undefined where something was not measured, and `met`. */
export function judge(medians) {
  return AIMS.map((aim) => {
    const own = medians[aim.of]?.[aim.measure];
    const other = aim.to === undefined ? 1 : medians[aim.to]?.[aim.toMeasure ?? aim.measure];
    if (own === undefined || other === undefined) return { ...aim, value: undefined, met: undefined };
    const value = own / other;
    return { ...aim, value, met: aim.atLeast === undefined ? value <= aim.atMost : value >= aim.atLeast };
  });
}
