// What happens: every action changes the state, and the page is drawn again.
import { get, post, readFile } from "./api.js";
import { check, recheck } from "./check.js";
import { announce, draw, show, tell, update } from "./screen.js";
import { bringBack, change, forget, lastChoice, recall, redo, state, undo, waiting } from "./state.js";
import { page } from "./view.js";
import { LANGUAGES, said, t } from "./words.js";
import { enough, failed, keep, poll, sendOutbox, stop, takeBack, withdraw, write } from "./writing.js";

const POLL_MS = 2000;

function split(words) {
  return words.split(/[\s,，、]+/u).filter(Boolean).slice(0, 8).map((word) => word.slice(0, 20));
}

function conditions() {
  return { chars: state.chars, must: split(state.must), must_not: split(state.mustNot) };
}

// Titles beside those that are there.
function further(wish) {
  if (!state.read || state.busy) return;
  const seen = state.candidates.flatMap((one) => [one.title, one.text]);
  const known = [...new Set(seen)].filter(Boolean).slice(-100);
  write({ body: { article: state.read.text, ...conditions(), number: 3, seen: known, ...wish }, more: true });
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
    Object.assign(state, { view, asking: null });
    draw();
    if (view === "records") {
      // A title that was kept a moment ago is among them.
      sendOutbox().catch(() => {}).then(() => get("/api/statistics")).then((found) => {
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
    const body = { article: state.article, ...conditions() };
    write({ body: { ...body, number: state.status?.candidates ?? 5 }, more: false });
    // In one column what is written comes below what is seen.
    if (matchMedia("(max-width: 60rem)").matches) document.getElementById("candidates-label").scrollIntoView();
  },
  stop() {
    enough();
  },
  clear() {
    stop();
    forget();
    draw();
    document.getElementById("article").focus();
  },
  bringBack() {
    stop();
    bringBack();
    draw();
    document.getElementById("article").focus();
  },
  more(candidate) {
    further({ like: candidate.text.slice(0, 200) });
  },
  fill(slot) {
    further({ chars: slot.max_chars });
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
    change(candidate, text.replace(/[\r\n]+/gu, " "));
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
  async copy(candidate) {
    try {
      await navigator.clipboard.writeText(candidate.text);
    } catch {
      // Without TLS at another address than this machine's a browser has no clipboard but that of a selection.
      const field = document.querySelector(`[data-key="${candidate.key}"]`);
      const before = document.activeElement;
      field.focus();
      field.select();
      if (!document.execCommand("copy")) {
        tell(t("notCopied"));
        return;
      }
      // The next key is meant for the candidate, and no letter of its title.
      before.focus();
    }
    tell(t("copied") + candidate.text);
  },
  keep,
  takeBack(candidate, button) {
    // It goes with what is taken back.
    button?.closest(".card").focus();
    takeBack(candidate);
  },
  // A line of the log: the first press asks.
  async withdraw(line) {
    if (state.asking !== line.number) {
      state.asking = line.number;
      draw();
      return;
    }
    await withdraw(line.number, line.title);
    act.open("records");
  },
  key(event, candidate) {
    const typing = event.target instanceof HTMLTextAreaElement;
    const undoes = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
    if (undoes) {
      event.preventDefault();
      const kept = lastChoice(candidate) || waiting(candidate) || candidate.keepAs !== undefined;
      if (!typing && !event.shiftKey && kept) act.takeBack(candidate);
      else act[event.shiftKey ? "redo" : "undo"](candidate);
      return;
    }
    // A title has one line; an input method's own Enter is its own.
    if (typing && event.key === "Enter" && !event.isComposing) event.preventDefault();
    if (typing && event.key === "Escape" && !event.isComposing) event.currentTarget.focus();
    // Single keys only where the focus is: they are nobody's text there.
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const field = event.currentTarget.querySelector("textarea");
    const actions = { c: () => act.copy(candidate), k: () => act.keep(candidate), m: () => act.more(candidate), e: () => field.focus() };
    // With an input method for Chinese switched on the key's own letter is another one.
    const action = actions[event.key.toLowerCase()] ?? actions[event.code.replace(/^Key/, "").toLowerCase()];
    if (action) {
      event.preventDefault();
      action();
    }
  },
};

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") document.querySelector("form")?.requestSubmit();
  // By the place of the key: on a Mac, Alt makes another sign of it.
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code)?.[1];
  if (event.altKey && digit) {
    event.preventDefault();
    document.getElementById(`candidate-${digit - 1}`)?.focus();
  }
});

show(() => page(act));
recall();
state.language ??= LANGUAGES.includes(navigator.language.slice(0, 2)) ? navigator.language.slice(0, 2) : "zh";
// A bookmarklet hands the article over behind the #, which no server sees.
const given = new URLSearchParams(location.hash.slice(1)).get("article");
if (given) {
  forget();
  state.article = given.slice(0, 200000);
  history.replaceState(null, "", location.pathname);
}
state.candidates = state.candidates.filter((candidate) => candidate.generation);
update();
poll().then(() => {
  recheck();
  // The page was closed, or the desk ended, while titles were written.
  if (state.pending && !state.busy && !state.away) write(state.pending);
});
setInterval(() => {
  if (state.away || state.outbox.length || document.visibilityState === "visible") poll();
}, POLL_MS);
