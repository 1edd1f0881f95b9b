// Requests to the desk itself; nothing else is ever asked.

export class DeskError extends Error {
  constructor(notice, passing) {
    super(notice.message);
    this.notice = notice;
    this.passing = passing;
  }
}

async function failure(response) {
  if (response.status === 401) location.replace("/login");
  const notice = await response.json().catch(() => null);
  const plain = { message: `the desk answered ${response.status}`, message_zh: `標題桌回覆 ${response.status}` };
  return new DeskError(notice?.message ? notice : plain, response.status >= 500);
}

async function ask(path, options) {
  const response = await fetch(path, options);
  if (!response.ok) throw await failure(response);
  return response;
}

export async function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return (await ask(path, { method: "POST", headers, body: JSON.stringify(body), signal })).json();
}

const GET_MS = 60_000;

export async function get(path) {
  return (await ask(path, { signal: AbortSignal.timeout(GET_MS) })).json();
}

export async function readFile(file) {
  const path = `/api/document?name=${encodeURIComponent(file.name.slice(-200))}`;
  const headers = { "Content-Type": "application/octet-stream" };
  return (await (await ask(path, { method: "POST", headers, body: file })).json()).text;
}

// Calls `on` with each event as it comes; throws what ends them early.
export async function writeTitles(request, on, signal) {
  const headers = { "Content-Type": "application/json", Accept: "application/x-ndjson" };
  const response = await ask("/api/titles", { method: "POST", headers, body: JSON.stringify(request), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new TypeError("the answer was cut off");
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const event of lines.filter(Boolean).map((line) => JSON.parse(line))) {
      if (event.event === "error") throw new DeskError(event.notice, event.passing);
      on(event);
      if (event.event === "result") {
        // A try that is not needed any more may still be running: nobody waits for its end.
        reader.cancel();
        return;
      }
    }
  }
}
