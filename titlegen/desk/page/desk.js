// What happens: every action changes the state, and the page is drawn again.
import { get, post, readFile } from "./api.js";
import { announce, draw, show, update } from "./screen.js";
import { change, forget, recall, redo, state, undo } from "./state.js";
import { page } from "./view.js";
import { LANGUAGES, said, t } from "./words.js";
import { failed, poll, sendOutbox, stop, write } from "./writing.js";

const CHECK_MS = 150;
const POLL_MS = 2000;
const checks = new Map();

function split(words) {
  return words.split(/[\s,，、]+/u).filter(Boolean).slice(0, 8).map((word) => word.slice(0, 20));
}

function check(candidate) {
  clearTimeout(checks.get(candidate.key)?.timer);
  checks.get(candidate.key)?.control.abort();
  const control = new AbortController();
  const timer = setTimeout(async () => {
    const title = candidate.text;
    try {
      const found = await post("/api/check", { article: state.read.text, title }, control.signal);
      if (candidate.text !== title) return;
      const { evidence, warnings, checks: rules, style } = found;
      Object.assign(candidate, { evidence, warnings, checks: rules, style });
      update();
    } catch (error) {
      if (control.signal.aborted) return;
      failed(error);
      draw();
    }
  }, CHECK_MS);
  checks.set(candidate.key, { timer, control });
}

function edited(candidate) {
  // The marks were made for other words; those of the new ones come at once.
  candidate.evidence = [];
  if (state.shown?.key === candidate.key) state.shown = null;
  check(candidate);
  update();
}

const act = {
  open(view) {
    state.view = view;
    draw();
    if (view === "records") {
      get("/api/statistics").then((found) => {
        state.statistics = found;
        draw();
      }, (error) => {
        failed(error);
        draw();
      });
    }
  },
  switchLanguage() {
    state.language = state.language === "en" ? "zh" : "en";
    update();
  },
  switchTheme() {
    const dark = state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    state.theme = dark ? "light" : "dark";
    update();
  },
  set(name, value) {
    state[name] = value;
    update();
  },
  typeArticle(event) {
    state.article = event.target.value;
    update();
  },
  submit(event) {
    event.preventDefault();
    if (!state.article.trim() || state.busy) return;
    const body = { article: state.article, must: split(state.must), must_not: split(state.mustNot) };
    write({ body: { ...body, number: state.status?.candidates ?? 5 }, more: false });
  },
  stop() {
    stop();
    update();
  },
  clear() {
    act.stop();
    forget();
    draw();
    document.getElementById("article").focus();
  },
  more(candidate) {
    if (!state.read) return;
    const seen = state.candidates.flatMap((one) => [one.title, one.text]);
    const body = { article: state.read.text, must: split(state.must), must_not: split(state.mustNot) };
    Object.assign(body, { number: 3, like: candidate.text.slice(0, 200), seen: [...new Set(seen)].filter(Boolean).slice(-100) });
    write({ body, more: true });
  },
  async take(file) {
    if (!file) return;
    try {
      state.article = await readFile(file);
      state.error = null;
    } catch (error) {
      failed(error);
    }
    update();
  },
  openFile(event) {
    act.take(event.target.files[0]);
    event.target.value = "";
  },
  drop(event) {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    act.take(event.dataTransfer.files[0]);
  },
  async readAddress() {
    try {
      state.article = (await post("/api/url", { url: document.getElementById("address").value })).text;
      state.error = null;
    } catch (error) {
      failed(error);
    }
    update();
  },
  edit(candidate, text) {
    change(candidate, text);
    edited(candidate);
  },
  undo(candidate) {
    undo(candidate);
    edited(candidate);
  },
  redo(candidate) {
    redo(candidate);
    edited(candidate);
  },
  correct(candidate, finding) {
    const chars = Array.from(candidate.text);
    chars.splice(finding.start, finding.end - finding.start, finding.replacement);
    candidate.typed = 0;
    change(candidate, chars.join(""));
    edited(candidate);
  },
  correctAll(candidate) {
    const chars = Array.from(candidate.text);
    for (const finding of candidate.style.filter((one) => one.replacement !== null).reverse()) {
      chars.splice(finding.start, finding.end - finding.start, finding.replacement);
    }
    candidate.typed = 0;
    change(candidate, chars.join(""));
    edited(candidate);
  },
  show(claim, candidate) {
    state.shown = { claim, key: candidate.key };
    draw();
    // Within the article alone: the page stays where the reader is.
    const text = document.getElementById("text");
    const sentence = text?.querySelector(".sentence");
    if (sentence) text.scrollTop = sentence.offsetTop - text.offsetTop - text.clientHeight / 3;
    const says = claim.sentence ? `${t(claim.supported ? "backed" : "nearest")}${claim.sentence.text}` : "";
    announce(`${said(claim)} ${says}`);
  },
  async copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      announce(t("copied") + text);
    } catch {
      announce(t("notCopied"));
    }
  },
  async keep(candidate, slot = "") {
    if (!candidate.text.trim() || !candidate.generation) return;
    const { generation, place } = candidate;
    state.outbox = [...state.outbox, { generation, place, title: candidate.text.trim(), slot }];
    update();
    try {
      await sendOutbox();
      announce(t("kept") + candidate.text);
    } catch (error) {
      failed(error);
      announce(t("keptWaiting"));
    }
    draw();
  },
  key(event, candidate) {
    const typing = event.target instanceof HTMLInputElement;
    const undoes = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
    if (undoes && typing) {
      event.preventDefault();
      act[event.shiftKey ? "redo" : "undo"](candidate);
      return;
    }
    // Single keys only where the focus is: they are nobody's text there.
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const input = event.currentTarget.querySelector("input.title");
    const actions = { c: () => act.copy(candidate.text), k: () => act.keep(candidate), m: () => act.more(candidate), e: () => input.focus() };
    const action = actions[event.key.toLowerCase()];
    if (action) {
      event.preventDefault();
      action();
    }
  },
};

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") document.querySelector("form")?.requestSubmit();
  if (event.altKey && /^[1-9]$/.test(event.key)) {
    event.preventDefault();
    document.getElementById(`candidate-${event.key - 1}`)?.focus();
  }
});

show(() => page(act));
recall();
state.language ??= LANGUAGES.includes(navigator.language.slice(0, 2)) ? navigator.language.slice(0, 2) : "zh";
// A bookmarklet hands the article over behind the #, which no server sees.
const given = new URLSearchParams(location.hash.slice(1)).get("article");
if (given) {
  state.article = given.slice(0, 200000);
  history.replaceState(null, "", location.pathname);
}
state.candidates = state.candidates.filter((candidate) => candidate.generation);
update();
poll().then(() => {
  // The page was closed, or the desk ended, while titles were written.
  if (state.pending && !state.busy && !state.away) write(state.pending);
});
setInterval(() => {
  if (state.away || state.outbox.length || document.visibilityState === "visible") poll();
}, POLL_MS);
