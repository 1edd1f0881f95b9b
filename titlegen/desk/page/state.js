// What the page remembers: all of it survives a reload and a crash, in this browser alone.
// A reload brings back what this tab had, a new tab what was written last: after a crash nothing else is left.
const KEY = "titlegen-desk-1";

const FRESH = {
  article: "",
  must: "",
  mustNot: "",
  // Most characters of the length that is asked for; null for any.
  chars: null,
  own: 20,
  // Slots and lengths, as the desk said last.
  slots: [],
  lengths: [],
  language: null,
  theme: null,
  // Asked for and not answered: taken up again when the server is back.
  pending: null,
  read: null,
  candidates: [],
  shortfall: null,
  seconds: null,
  // What stood here before it was cleared, or before other titles were asked for.
  earlier: null,
  // Choices, and choices taken back, that could not be saved yet.
  outbox: [],
};

export const state = { ...FRESH, view: "choose", writing: [], busy: false, away: "", error: null, status: null };
state.shown = null;
// Id of the round that is being written.
state.round = "";
state.notice = "";
state.statistics = null;
// Number of the choice in the log that is about to be taken back.
state.asking = null;
state.unsaved = false;

export function remember() {
  const kept = Object.fromEntries(Object.keys(FRESH).map((name) => [name, state[name]]));
  try {
    const text = JSON.stringify(kept);
    localStorage.setItem(KEY, text);
    sessionStorage.setItem(KEY, text);
    state.unsaved = false;
  } catch {
    state.unsaved = true;
  }
}

export function recall() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "{}");
    // What an earlier release remembered.
    for (const one of [...(kept.candidates ?? []), ...(kept.earlier?.candidates ?? [])]) one.choices ??= [];
    for (const name of Object.keys(FRESH)) if (kept[name] !== undefined) state[name] = kept[name];
  } catch {
    // Nothing to be read there: the page begins anew, and writes over it.
  }
}

// What an editor works on, to be brought back.
const WORK = ["article", "must", "mustNot", "chars", "read", "candidates", "shortfall", "seconds"];

function isEmpty() {
  return !state.article.trim() && !state.candidates.length;
}

export function setAside() {
  if (isEmpty()) return;
  state.earlier = structuredClone(Object.fromEntries(WORK.map((name) => [name, state[name]])));
}

export function bringBack() {
  const { earlier } = state;
  setAside();
  if (state.earlier === earlier) state.earlier = null;
  Object.assign(state, earlier, { error: null, shown: null, writing: [] });
  remember();
}

export function forget() {
  // Clearing a page that is clear already leaves nothing behind.
  if (isEmpty()) state.earlier = null;
  setAside();
  const fresh = structuredClone(FRESH);
  for (const name of WORK) state[name] = fresh[name];
  Object.assign(state, { pending: null, error: null, shown: null, writing: [] });
  remember();
}

export function length(text) {
  return Array.from(text.trim()).length;
}

// A candidate while it is edited: what it was, what it is, and the way between.
export function open(candidate, generation, place, wanted) {
  return { ...candidate, generation, place, wanted, text: candidate.title, checked: candidate.title, past: [], future: [], typed: 0, choices: [] };
}

// The last choice of a title as it reads now; one of other words stays in the records.
export function lastChoice(candidate) {
  const isTaken = (choice) => state.outbox.some((one) => one.withdraw === choice.number);
  return candidate.choices.findLast((choice) => choice.title === candidate.text.trim() && !isTaken(choice));
}

// The same before it is saved.
export function waiting(candidate) {
  const { generation, place } = candidate;
  return state.outbox.findLast((one) => one.generation === generation && one.place === place && !one.withdrawn);
}

// What was asked for and the title has not, or has no longer.
export function missing({ text, wanted }) {
  return [
    ...(wanted?.must ?? []).filter((word) => !text.includes(word)).map((word) => ["lacks", word]),
    ...(wanted?.must_not ?? []).filter((word) => text.includes(word)).map((word) => ["hasStill", word]),
  ];
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
}

export function undo(candidate) {
  if (!candidate.past.length) return;
  candidate.future.push(candidate.text);
  candidate.text = candidate.past.pop();
  candidate.typed = 0;
}

export function redo(candidate) {
  if (!candidate.future.length) return;
  candidate.past.push(candidate.text);
  candidate.text = candidate.future.pop();
  candidate.typed = 0;
}

export function slots() {
  const all = [...state.slots, { name: "own", max_chars: state.own }];
  return all.map((slot) => ({
    ...slot,
    best: state.candidates.find((candidate) => {
      const size = length(candidate.text);
      return size > 0 && (slot.max_chars === null || size <= slot.max_chars);
    }),
  }));
}
