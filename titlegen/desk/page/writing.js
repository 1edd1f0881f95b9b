// Asking for titles, and what is left to do while the server or the desk is away.
import { get, post, writeTitles, DeskError } from "./api.js";
import { recheck } from "./check.js";
import { announce, draw, tell, update } from "./screen.js";
import { lastChoice, open, remember, setAside, state, waiting } from "./state.js";
import { said, t } from "./words.js";

// A server that is there and fails again and again is not asked for ever.
const MOST_RETRIES = 3;
const BROKEN = { message: "the desk broke off its answer again and again; see where it runs", message_zh: "標題桌一再中斷回應，請查看執行它的畫面" };
let writer = null;
let keys = 0;
let retries = 0;
let failure = BROKEN;

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
    if (lastChoice(candidate)) tell(t("kept") + candidate.text);
  } catch (error) {
    failed(error);
    tell(t("keptWaiting"));
  }
  draw();
}

// The last choice of a title is taken back; what is on the disk already stays in the log.
export async function takeBack(candidate) {
  if (candidate.keepAs !== undefined) {
    delete candidate.keepAs;
    tell(t("takenBack") + candidate.text);
    return;
  }
  const unsaved = waiting(candidate);
  if (unsaved) {
    // It may be under way.
    unsaved.withdrawn = true;
    tell(t("takenBack") + unsaved.title);
    update();
    return;
  }
  const choice = lastChoice(candidate);
  if (choice) await withdraw(choice.number, choice.title);
}

export async function withdraw(number, title) {
  state.outbox = [...state.outbox, { withdraw: number }];
  update();
  try {
    await sendOutbox();
    tell(t("takenBack") + title);
  } catch (error) {
    failed(error);
    tell(t("takenBackWaiting"));
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
  failure = error instanceof DeskError ? error.notice : BROKEN;
  state.away = error instanceof DeskError ? "away" : "deskAway";
}

function takeUp() {
  retries += 1;
  if (retries > MOST_RETRIES) {
    Object.assign(state, { error: failure, pending: null });
    retries = 0;
    return;
  }
  write(state.pending);
}

let polling = false;

// One at a time: a browser has few connections, and a desk that answers late would get more and more to do.
export async function poll() {
  if (polling) return;
  polling = true;
  const before = state.away;
  try {
    state.status = await get("/api/status");
    const { slots, lengths } = state.status;
    Object.assign(state, { slots, lengths });
    state.away = state.status.ready ? "" : "away";
    if (state.away) retries = 0;
    await sendOutbox();
  } catch {
    state.status = null;
    state.away = "deskAway";
    retries = 0;
  } finally {
    polling = false;
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
    const one = state.outbox[0];
    try {
      await (one.withdraw ? sendWithdrawal(one.withdraw) : sendChoice(one));
    } catch (error) {
      // What the desk refuses now it will refuse again.
      if (!(error instanceof DeskError) || error.passing) throw error;
      state.error = error.notice;
    }
    state.outbox = state.outbox.filter((other) => other !== one);
    remember();
  }
}

async function sendChoice(choice) {
  const { generation, place, title, slot } = choice;
  if (choice.withdrawn && !choice.tried) return;
  // The desk may save it and end before it answers.
  choice.tried = true;
  remember();
  const { choice: number } = await post("/api/choices", { generation, place, title, slot });
  // Taken back meanwhile: it is on the disk, and so is that.
  if (choice.withdrawn) {
    await sendWithdrawal(number);
    return;
  }
  // Not before this the page says that it is kept.
  state.candidates.find((one) => one.generation === generation && one.place === place)?.choices.push({ number, title });
}

async function sendWithdrawal(number) {
  await post("/api/withdrawals", { choice: number });
  for (const one of state.candidates) one.choices = one.choices.filter((choice) => choice.number !== number);
}
