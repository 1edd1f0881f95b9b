// Asking for titles, and what is left to do while the server or the desk is away.
import { get, post, writeTitles, DeskError } from "./api.js";
import { recheck } from "./check.js";
import { announce, draw, tell, update } from "./screen.js";
import { open, remember, setAside, state } from "./state.js";
import { said, t } from "./words.js";

// A server that is there and fails again and again is not asked for ever.
const MOST_RETRIES = 3;
let writer = null;
let keys = 0;
let retries = 0;
let failure = null;

export async function write(request) {
  writer?.abort();
  const mine = new AbortController();
  writer = mine;
  Object.assign(state, { pending: request, busy: true, error: null, writing: [], away: "", round: "" });
  const texts = new Map();
  const before = request.more ? state.candidates : [];
  const wanted = { chars: request.body.chars, must: request.body.must, must_not: request.body.must_not };
  const card = (candidate, generation, place) => ({ ...open(candidate, generation, place, wanted), key: `${Date.now()}-${keys++}` });
  update();
  try {
    await writeTitles(request.body, (event) => {
      if (event.event === "read") {
        state.round = event.generation;
        // Once: what was set aside is not overwritten when a broken round is taken up again.
        if (!request.more && state.candidates.length) setAside();
        if (!request.more) Object.assign(state, { read: event.article, candidates: [], shortfall: null, shown: null, seconds: null });
      } else if (event.event === "text") {
        texts.set(event.seed, event.text);
      } else if (event.event === "dropped") {
        texts.delete(event.seed);
      } else if (event.event === "candidate") {
        texts.delete(event.seed);
        state.candidates = [...state.candidates, card(event.candidate, null, state.candidates.length)];
      } else {
        finish(event.result, before, request.more, card);
      }
      state.writing = [...texts.values()];
      draw();
    }, mine.signal);
    state.pending = null;
    retries = 0;
    announce(`${t("candidates")}: ${state.candidates.length}`);
  } catch (error) {
    if (mine.signal.aborted) return;
    failed(error);
    // What an editor has changed is not thrown away with what was cut off.
    if (state.candidates.some((candidate) => !candidate.generation && candidate.text !== candidate.title)) setAside();
    state.candidates = state.candidates.filter((candidate) => candidate.generation);
  } finally {
    if (writer === mine) {
      Object.assign(state, { busy: false, writing: [], round: "" });
      update();
      for (const one of state.candidates.filter(({ keepAs }) => keepAs !== undefined)) keep(one, one.keepAs);
    }
  }
}

// The titles that are written are enough: they are put in order and can be kept.
export async function enough() {
  const mine = writer;
  try {
    if (!state.round) throw new TypeError("nothing is written yet");
    await post("/api/enough", { generation: state.round });
  } catch {
    if (mine === writer && state.busy) stop();
    update();
  }
}

export function stop() {
  writer?.abort();
  Object.assign(state, { busy: false, writing: [], pending: null, round: "" });
  state.candidates = state.candidates.filter((candidate) => candidate.generation);
}

export async function keep(candidate, slot = "") {
  if (!candidate.text.trim()) return;
  // Its place is known once all are written.
  if (!candidate.generation) {
    if (state.busy) candidate.keepAs = slot;
    tell(t(state.busy ? "keptSoon" : "neverMade"));
    return;
  }
  delete candidate.keepAs;
  const { generation, place } = candidate;
  state.outbox = [...state.outbox, { generation, place, title: candidate.text.trim(), slot }];
  update();
  try {
    await sendOutbox();
    if (candidate.kept) tell(t("kept") + candidate.text);
  } catch (error) {
    failed(error);
    tell(t("keptWaiting"));
  }
  draw();
}

// What an editor has changed or focused while the others were written stays as it is.
function finish(result, before, more, card) {
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
  failure = error instanceof DeskError ? error.notice : null;
  state.away = error instanceof DeskError ? "away" : "deskAway";
}

function takeUp() {
  retries += 1;
  if (failure && retries > MOST_RETRIES) {
    Object.assign(state, { error: failure, pending: null });
    retries = 0;
    return;
  }
  write(state.pending);
}

export async function poll() {
  const before = state.away;
  try {
    state.status = await get("/api/status");
    const { slots, lengths, taught } = state.status;
    Object.assign(state, { slots, lengths, taught });
    state.away = state.status.ready ? "" : "away";
    if (state.away) retries = 0;
    await sendOutbox();
  } catch {
    state.status = null;
    state.away = "deskAway";
  }
  if (before && !state.away) {
    announce(t("back"));
    recheck();
    if (state.pending && !state.busy) takeUp();
  }
  draw();
}

let sending = null;

// One at a time: two would send the first choice twice, and drop the second.
export function sendOutbox() {
  sending ??= sendAll().finally(() => {
    sending = null;
  });
  return sending;
}

async function sendAll() {
  while (state.outbox.length) {
    const choice = state.outbox[0];
    try {
      await post("/api/choices", choice);
    } catch (error) {
      // What the desk refuses now it will refuse again.
      if (!(error instanceof DeskError) || error.passing) throw error;
      state.error = error.notice;
    }
    const { generation, place, title } = choice;
    state.outbox = state.outbox.filter((other) => other !== choice);
    // On the disk: not before this the page says that it is kept.
    const one = state.candidates.find((other) => other.generation === generation && other.place === place);
    if (one?.text.trim() === title) one.kept = true;
    remember();
  }
}
