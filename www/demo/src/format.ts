const UNITS = ["kB", "MB", "GB"] as const;

/** Bytes for people, in powers of 1000 as download sizes are given: `105 MB`. */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${Math.round(bytes)} B`;
  let value = bytes / 1000;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

/** A time span for people: `850 ms`, `2.4 s`, `3 min 5 s`. */
export function formatMillis(millis: number): string {
  if (millis < 1000) return `${Math.round(millis)} ms`;
  const seconds = millis / 1000;
  if (seconds < 59.5) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** A probability from 0 to 1 as a percentage, finer where it is small. */
export function formatProbability(probability: number): string {
  const percent = 100 * probability;
  if (percent > 0 && percent < 0.01) return "< 0.01 %";
  if (percent >= 99.95 && percent < 100) return "> 99.9 %";
  return `${percent === 0 || percent === 100 ? percent : percent < 1 ? percent.toFixed(2) : percent.toFixed(1)} %`;
}

/** A count with its noun. */
export function formatCount(count: number, noun: string): string {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** A token's text with its white space made visible. */
export function showSpaces(text: string): string {
  if (text === "") return "(nothing)";
  return text.replace(/[\s\p{Cc}]/gu, (char) => {
    if (char === " ") return "·";
    if (char === "\n") return "↵";
    if (char === "\t") return "⇥";
    return `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}
