// Asking for titles, and what is left to do while the server or the desk is away.
import { get, post, writeTitles, DeskError } from "./api.js";
import { announce, draw, update } from "./screen.js";
import { open, remember, state } from "./state.js";
import { said, t } from "./words.js";

let writer = null;
let keys = 0;

export async function write(request) {
  writer?.abort();
  const mine = new AbortController();
  writer = mine;
  Object.assign(state, { pending: request, busy: true, error: null, writing: [], away: "" });
  const texts = new Map();
  const before = request.more ? state.candidates : [];
  update();
  try {
    await writeTitles(request.body, (event) => {
      if (event.event === "read") {
        if (!request.more) Object.assign(state, { read: event.article, candidates: [], shortfall: null, shown: null, seconds: null });
      } else if (event.event === "text") {
        texts.set(event.seed, event.text);
      } else if (event.event === "candidate") {
        texts.delete(event.seed);
        state.candidates = [...state.candidates, card(event.candidate, null, state.candidates.length)];
      } else {
        finish(event.result, before, request.more);
      }
      state.writing = [...texts.values()];
      draw();
    }, mine.signal);
    state.pending = null;
    announce(`${t("candidates")}: ${state.candidates.length}`);
  } catch (error) {
    if (mine.signal.aborted) return;
    failed(error);
    state.candidates = state.candidates.filter((candidate) => candidate.generation);
  } finally {
    if (writer === mine) {
      Object.assign(state, { busy: false, writing: [] });
      update();
    }
  }
}

export function stop() {
  writer?.abort();
  Object.assign(state, { busy: false, writing: [], pending: null });
  state.candidates = state.candidates.filter((candidate) => candidate.generation);
}

function card(candidate, generation, place) {
  return { ...open(candidate, generation, place), key: `${Date.now()}-${keys++}` };
}

// What an editor has changed or focused while the others were written stays as it is.
function finish(result, before, more) {
  const known = new Map(state.candidates.filter((one) => !before.includes(one)).map((one) => [one.title, one]));
  const found = result.candidates.map((candidate, place) => {
    const { generation } = result;
    const one = known.get(candidate.title);
    return one ? Object.assign(one, { reasons: candidate.reasons, generation, place }) : card(candidate, generation, place);
  });
  state.candidates = more ? [...before, ...found] : found;
  Object.assign(state, { shortfall: result.shortfall, seconds: result.seconds });
}

export function failed(error) {
  if (error instanceof DeskError && !error.passing) {
    Object.assign(state, { error: error.notice, pending: null });
    announce(said(error.notice));
    return;
  }
  state.away = error instanceof DeskError ? "away" : "deskAway";
}

export async function poll() {
  const before = state.away;
  try {
    state.status = await get("/api/status");
    state.away = state.status.ready ? "" : "away";
    await sendOutbox();
  } catch {
    state.status = null;
    state.away = "deskAway";
  }
  if (before && !state.away) {
    announce(t("back"));
    if (state.pending && !state.busy) write(state.pending);
  }
  draw();
}

export async function sendOutbox() {
  while (state.outbox.length) {
    try {
      await post("/api/choices", state.outbox[0]);
    } catch (error) {
      // What the desk refuses now it will refuse again.
      if (!(error instanceof DeskError) || error.passing) throw error;
      state.error = error.notice;
    }
    const { generation, place, title } = state.outbox[0];
    state.outbox = state.outbox.slice(1);
    // On the disk: not before this the page says that it is kept.
    const one = state.candidates.find((other) => other.generation === generation && other.place === place);
    if (one?.text.trim() === title) one.kept = true;
    remember();
  }
}
