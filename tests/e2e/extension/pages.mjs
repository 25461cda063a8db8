// Pages with text fields, as tests and pictures need them.

/** What a user may write in, and what they may not be helped with. Everything that a page hears of its fields is in `heard`. */
export const FIELDS = Buffer.from(`<!doctype html>
<html lang="en">
<title>fields</title>
<link rel="icon" href="data:,">
<body>
<textarea id="textarea" rows="6" cols="70"></textarea>
<input id="input" size="70">
<div id="editable" contenteditable="true"></div>
<input id="password" type="password">
<input id="code" autocomplete="one-time-code">
<input id="card" autocomplete="shipping cc-number">
<textarea id="readonly" readonly>A cinder slept</textarea>
<dialog id="dialog"><textarea id="modal" rows="3" cols="60"></textarea></dialog>
<div id="controlled"></div>
<script type="module" src="/fields.js"></script>
`);

/** The page's script: notes events, and has React hold an input. */
export const FIELDS_SCRIPT = `
import { createElement, useState } from "react";
import { createRoot } from "react-dom/client";

globalThis.heard = [];
addEventListener("input", (event) => heard.push({ type: event.inputType, trusted: event.isTrusted }), true);

function Controlled() {
  const [text, setText] = useState("");
  const onChange = (event) => setText(event.target.value);
  return createElement("div", {}, createElement("textarea", { id: "react", rows: 6, cols: 70, value: text, onChange }), createElement("output", {}, text));
}
createRoot(document.getElementById("controlled")).render(createElement(Controlled));
globalThis.isReady = true;
`;

/** Without any script or style of its own: its policy allows none. */
export const STRICT = Buffer.from(`<!doctype html>
<html lang="en">
<title>strict</title>
<textarea id="textarea" rows="6" cols="70"></textarea>
<div id="editable" contenteditable="true"></div>
`);

/** A page that calls the engine through the client that it was given. */
export const CALLER = Buffer.from(`<!doctype html>
<html lang="en">
<title>caller</title>
<link rel="icon" href="data:,">
<script type="module">
  import { connect } from "/client.js";
  const told = ({ name, status, code }) => ({ name, status, code });
  globalThis.connect = connect;
  globalThis.complete = async (key, params) => {
    try {
      return (await connect({ key }).complete(params)).choices[0].text;
    } catch (error) {
      return told(error);
    }
  };
  globalThis.streamed = async (key, params) => {
    let text = "";
    try {
      for await (const chunk of await connect({ key }).complete({ ...params, stream: true })) text += chunk.choices[0]?.text ?? "";
      return text;
    } catch (error) {
      return told(error);
    }
  };
  globalThis.isReady = true;
</script>
`);

/** A letter that is being written: what the picture of grey text shows. */
export const LETTER = Buffer.from(`<!doctype html>
<html lang="en">
<title>Notes</title>
<link rel="icon" href="data:,">
<style>
  body { margin: 0; background: #ece7e0; color: #2a2521; font: 15px/1.5 system-ui, sans-serif; }
  header { display: flex; align-items: center; gap: 10px; padding: 14px 28px; border-bottom: 1px solid #d8d0c6; background: #f7f4f0; }
  header b { font-size: 15px; }
  header span { color: #6f655c; }
  main { max-width: 620px; margin: 36px auto; padding: 34px 44px 40px; background: #fffdfa; border-radius: 14px;
    box-shadow: 0 1px 2px #0001, 0 12px 40px #4a3a2a1c; }
  h1 { margin: 0 0 4px; font: 600 25px/1.25 Georgia, serif; }
  .date { margin: 0 0 22px; color: #857a6f; font-size: 13px; }
  #note { min-height: 190px; outline: none; font: 17px/1.65 Georgia, serif; }
  #note p { margin: 0 0 14px; }
</style>
<header><b>Notes</b><span>Journeys</span></header>
<main>
  <h1>A winter evening</h1>
  <p class="date">Saturday, by the fire</p>
  <div id="note" contenteditable="true" aria-label="Note" spellcheck="false"></div>
</main>
`);
