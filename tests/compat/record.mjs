// Sends the requests to a real server and compares its answers with those recorded, or records them.
//
//     node tests/compat/record.mjs http://127.0.0.1:8000 [--record]
import { readFileSync, writeFileSync } from "node:fs";
import { differences, readAnswer, requestInit } from "./shapes.mjs";

const read = (name) => JSON.parse(readFileSync(new URL(name, import.meta.url), "utf8"));
const [server, flag] = process.argv.slice(2);
const answers = {};
for (const request of read("requests.json").requests) {
  answers[request.name] = await readAnswer(await fetch(`${server}${request.path}`, requestInit(request)));
}
if (flag === "--record") {
  const lines = Object.entries(answers).map(([name, answer]) => `  ${JSON.stringify(name)}: ${JSON.stringify(answer)}`);
  writeFileSync(new URL("recorded.json", import.meta.url), `{\n${lines.join(",\n")}\n}\n`);
  console.log(`recorded ${lines.length} answers`);
} else {
  const recorded = read("recorded.json");
  const changed = Object.keys(answers).flatMap((name) =>
    recorded[name] === undefined ? [`${name}: not recorded`] : differences(recorded[name], answers[name]).map(({ place, theirs, ours }) => `${name}: ${place} was ${theirs} and is ${ours}`),
  );
  for (const line of changed) console.error(line);
  console.log(`${Object.keys(answers).length} answers, ${changed.length} of another shape than recorded`);
  if (changed.length > 0) process.exitCode = 1;
}
