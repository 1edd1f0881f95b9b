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

// For screen readers; what is seen stands on the page.
export function announce(text) {
  document.getElementById("said").textContent = text;
}
