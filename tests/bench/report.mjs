// What a run has found, as Markdown.
import { CONTENDERS } from "./contenders.mjs";
import { MEASURES } from "./measures.mjs";

/** The middle one, or the mean of the middle two. */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/**
 * `contenders` have `{ id, title, side, kind, medians, text, failure }`; `measures` are ids; `aims` come from `judge`;
 * `recorded` are the texts that are known for the prompt that is shown, by who wrote them, the exact one first.
 */
export function report({ contenders, measures, aims, recorded }) {
  const columns = MEASURES.filter(({ id }) => measures.includes(id));
  return [
    ...speeds(contenders, columns),
    ...ratios(contenders, columns),
    ...verdicts(aims),
    ...texts(contenders, recorded),
    ...failures(contenders),
  ].join("\n");
}

function table(head, rows) {
  const line = (cells) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map((_, i) => (i === 0 ? "---" : "---:"))), ...rows.map(line), ""];
}

function speeds(contenders, columns) {
  const cells = ({ medians, failure }) => columns.map(({ id, digits }) => medians[id]?.toFixed(digits) ?? (failure === undefined ? "–" : "failed"));
  const rows = contenders.map((contender) => [contender.title, ...cells(contender)]);
  return table(["medians", ...columns.map(({ title }) => title)], rows);
}

/** Each cinderlm beside each peer of its kind: its value divided by the peer's. */
function ratios(contenders, columns) {
  const pairs = contenders
    .filter(({ side }) => side === "cinderlm")
    .flatMap((own) => contenders.filter(({ side, kind }) => side === "peer" && kind === own.kind).map((peer) => [own, peer]));
  if (pairs.length === 0) return [];
  const ratio = ({ medians: own }, { medians: peer }, id) => (own[id] === undefined || peer[id] === undefined ? "–" : `${(own[id] / peer[id]).toFixed(2)}x`);
  const rows = pairs.map(([own, peer]) => [`${own.title} / ${peer.title}`, ...columns.map(({ id }) => ratio(own, peer, id))]);
  return table(["ratios", ...columns.map(({ title, better }) => `${title.split(",")[0]} ${better === "more" ? "↑" : "↓"}`)], rows);
}

function verdicts(aims) {
  const title = (id) => CONTENDERS.find((contender) => contender.id === id).title;
  const name = (id) => MEASURES.find((measure) => measure.id === id).title;
  const rows = aims.map(({ measure, of, to, toMeasure, atLeast, atMost, value, met }) => {
    const unit = to === undefined ? "" : "x";
    const other = to === undefined ? "" : `, to ${to === of ? `its ${name(toMeasure)}` : title(to)}`;
    const bound = atLeast === undefined ? `at most ${atMost}${unit}` : `at least ${atLeast}${unit}`;
    return [`${title(of)}: ${name(measure)}${other}`, bound, value === undefined ? "–" : `${value.toFixed(2)}${unit}`, verdict(met)];
  });
  return table(["aims", "wanted", "measured", ""], rows);
}

const verdict = (met) => (met === undefined ? "not measured" : met ? "met" : "**missed**");

/** What each wrote after the same beginning, and whose recorded text that is. */
function texts(contenders, recorded) {
  const rows = contenders
    .filter(({ text }) => text !== undefined)
    .map(({ title, text }) => [title, likeness(text, Object.entries(recorded)), JSON.stringify(text).replaceAll("|", "\\|")]);
  return rows.length === 0 ? [] : table(["greedy text", "as written by", ""], rows);
}

function likeness(text, recorded) {
  const same = recorded.find(([, known]) => known.startsWith(text));
  if (same !== undefined) return same[0];
  const [[name, exact]] = recorded;
  let n = 0;
  while (n < text.length && text[n] === exact[n]) n += 1;
  return `${name} for ${n} of ${text.length} characters`;
}

function failures(contenders) {
  return contenders.filter(({ failure }) => failure !== undefined).flatMap(({ title, failure }) => [`${title} failed: ${failure}`, ""]);
}
