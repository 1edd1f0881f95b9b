// The one way onto the screen: the state is drawn, remembered, and said to screen readers.
import { render } from "./lit/lit-html.js";
import { remember, state } from "./state.js";
import { setLanguage } from "./words.js";

let template = null;

export function show(page) {
  template = page;
}

export function draw() {
  setLanguage(state.language);
  document.documentElement.dataset.theme = state.theme ?? "";
  render(template(), document.getElementById("desk"));
}

export function update() {
  remember();
  draw();
}

const SHOWN_MS = 5000;
let timer = 0;

// For screen readers; what is seen stands on the page.
export function announce(text) {
  document.getElementById("said").textContent = text;
}

// What happened, for everybody, where nothing else on the page shows it.
export function tell(text) {
  announce(text);
  state.notice = text;
  clearTimeout(timer);
  timer = setTimeout(() => {
    state.notice = "";
    draw();
  }, SHOWN_MS);
  draw();
}
