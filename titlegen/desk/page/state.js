// What the page remembers: all of it survives a reload and a crash, in this browser alone.
const KEY = "titlegen-desk-1";

export const SLOTS = [
  { name: "push", max: 13 },
  { name: "mobile", max: 18 },
  { name: "web", max: 28 },
  { name: "print", max: null },
];

const FRESH = {
  article: "",
  must: "",
  mustNot: "",
  own: 20,
  language: null,
  theme: null,
  // Asked for and not answered: taken up again when the server is back.
  pending: null,
  read: null,
  candidates: [],
  shortfall: null,
  seconds: null,
  // Choices that could not be saved yet.
  outbox: [],
};

export const state = { ...FRESH, view: "choose", writing: [], busy: false, away: "", error: null, status: null };
state.shown = null;
state.statistics = null;
state.unsaved = false;

export function remember() {
  const kept = Object.fromEntries(Object.keys(FRESH).map((name) => [name, state[name]]));
  try {
    localStorage.setItem(KEY, JSON.stringify(kept));
    state.unsaved = false;
  } catch {
    state.unsaved = true;
  }
}

export function recall() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    for (const name of Object.keys(FRESH)) if (kept[name] !== undefined) state[name] = kept[name];
  } catch {
    localStorage.removeItem(KEY);
  }
}

export function forget() {
  const { language, theme, outbox } = state;
  Object.assign(state, structuredClone(FRESH), { language, theme, outbox, error: null, shown: null, writing: [] });
  remember();
}

export function length(text) {
  return Array.from(text.trim()).length;
}

// A candidate while it is edited: what it was, what it is, and the way between.
export function open(candidate, generation, place) {
  return { ...candidate, generation, place, text: candidate.title, past: [], future: [], typed: 0, kept: false };
}

const PAUSE_MS = 600;

export function change(candidate, text) {
  if (text === candidate.text) return;
  const now = Date.now();
  // What is typed in one go is undone in one go.
  if (now - candidate.typed > PAUSE_MS || !candidate.past.length) candidate.past.push(candidate.text);
  candidate.past = candidate.past.slice(-100);
  candidate.typed = now;
  candidate.future = [];
  candidate.text = text;
  candidate.kept = false;
}

export function undo(candidate) {
  if (!candidate.past.length) return;
  candidate.future.push(candidate.text);
  candidate.text = candidate.past.pop();
  candidate.typed = 0;
  candidate.kept = false;
}

export function redo(candidate) {
  if (!candidate.future.length) return;
  candidate.past.push(candidate.text);
  candidate.text = candidate.future.pop();
  candidate.typed = 0;
  candidate.kept = false;
}

export function slots() {
  const all = [...SLOTS, { name: "own", max: state.own }];
  return all.map((slot) => ({
    ...slot,
    best: state.candidates.find((candidate) => {
      const size = length(candidate.text);
      return size > 0 && (slot.max === null || size <= slot.max);
    }),
  }));
}
