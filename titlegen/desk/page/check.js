// What somebody types is checked: evidence, rules, house style.
import { post } from "./api.js";
import { draw, update } from "./screen.js";
import { state } from "./state.js";
import { failed } from "./writing.js";

const CHECK_MS = 150;
const checks = new Map();

export function check(candidate) {
  clearTimeout(checks.get(candidate.key)?.timer);
  checks.get(candidate.key)?.control.abort();
  const control = new AbortController();
  const timer = setTimeout(async () => {
    const title = candidate.text;
    try {
      const wanted = state.lengths.find((one) => one.max_chars === candidate.wanted?.chars);
      const limits = wanted ? { min_chars: wanted.min_chars, max_chars: wanted.max_chars } : {};
      const found = await post("/api/check", { article: state.read.text, title, ...limits }, control.signal);
      if (candidate.text !== title) return;
      const { evidence, warnings, checks: rules, style } = found;
      Object.assign(candidate, { evidence, warnings, checks: rules, style, checked: title });
      update();
    } catch (error) {
      if (control.signal.aborted) return;
      failed(error);
      draw();
    } finally {
      if (checks.get(candidate.key)?.control === control) checks.delete(candidate.key);
    }
  }, CHECK_MS);
  checks.set(candidate.key, { timer, control });
}

// What was typed while the desk was away, or just before a reload.
export function recheck() {
  for (const one of state.candidates) if (one.checked !== one.text && !checks.has(one.key)) check(one);
}
