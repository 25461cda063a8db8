/** Styles of what is drawn over pages. A style sheet that is made in script is not subject to the page's policy. */
export const OVERLAY_STYLE = `
  :host {
    all: initial !important; position: fixed !important; inset: 0 !important; display: block !important; width: auto !important;
    height: auto !important; max-width: none !important; max-height: none !important; margin: 0 !important; padding: 0 !important;
    border: 0 !important; background: none !important; overflow: visible !important; pointer-events: none !important;
    z-index: 2147483647 !important;
  }
  [hidden] { display: none !important; }
  .frame { position: fixed; overflow: hidden; transform-origin: 0 0; }
  .text { box-sizing: border-box; margin: 0; }
  .lead { visibility: hidden; }
  .key {
    display: inline-block; margin-inline-start: 0.6em; padding: 0 0.45em; border: 1px solid currentColor; border-radius: 0.35em;
    font: 600 0.68em/1.5 system-ui, sans-serif; letter-spacing: 0.02em; text-indent: 0; text-transform: none; vertical-align: 0.12em;
    white-space: nowrap; opacity: 0.75;
  }
  .card {
    position: fixed; box-sizing: border-box; max-width: min(30rem, calc(100vw - 16px)); padding: 9px 13px; border-radius: 10px;
    background: #221f1d; color: #f3eee8; border: 1px solid #47403a; border-left: 3px solid #f2844b;
    box-shadow: 0 6px 24px rgb(0 0 0 / 28%); font: 14px/1.45 system-ui, sans-serif; white-space: pre-wrap; overflow-wrap: break-word;
  }
  .card .hint { display: block; margin-top: 4px; color: #b7aca1; font-size: 12px; }
  .unseen { position: fixed; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
`;
