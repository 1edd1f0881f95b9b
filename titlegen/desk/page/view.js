// What the page looks like. lit-html puts every text in as text: nothing that an article or a model wrote is HTML.
import { html, nothing } from "./lit/lit-html.js";
import { live } from "./lit/directives/live.js";
import { repeat } from "./lit/directives/repeat.js";
import { cut, sentences } from "./marks.js";
import { records } from "./records.js";
import { lastChoice, length, missing, slots, state, waiting } from "./state.js";
import { said, t } from "./words.js";

const SHOWN_WARNINGS = new Set(["exchange", "negation", "language", "repetition"]);

export function page(act) {
  return html`
    <header>
      <h1>${t("name")}</h1>
      <nav aria-label=${t("name")}>
        ${["choose", "records"].map(
          (view) => html`<button
            type="button"
            aria-current=${state.view === view ? "page" : "false"}
            @click=${() => act.open(view)}
          >${t(view)}</button>`,
        )}
      </nav>
      <p class="server ${state.status?.ready ? "good" : "bad"}">
        ${state.status?.ready ? `${t("ready")} · ${state.status.model}` : "…"}
      </p>
      <button type="button" @click=${act.switchLanguage}>${t("language")}</button>
      <button type="button" @click=${act.switchTheme}>${t("theme")}</button>
    </header>
    ${state.away ? html`<p class="banner" role="alert">${t(state.away)}</p>` : nothing}
    ${state.unsaved ? html`<p class="banner" role="alert">${t("notSaved")}</p>` : nothing}
    ${state.notice ? html`<p class="notice" aria-hidden="true">${state.notice}</p>` : nothing}
    <main>${state.view === "records" ? records(act) : choose(act)}</main>
  `;
}

function choose(act) {
  return html`
    <section class="write" aria-labelledby="article-label">
      <form @submit=${act.submit} @dragover=${(event) => event.preventDefault()} @drop=${act.drop}>
        <h2><label id="article-label" for="article">${t("article")}</label></h2>
        <textarea
          id="article"
          rows="9"
          maxlength="200000"
          placeholder=${t("articleHint")}
          .value=${live(state.article)}
          @input=${act.typeArticle}
        ></textarea>
        <p class="row">
          <label class="file">${t("file")}
            <input class="said" type="file" accept=".txt,.docx,.html,.htm,text/plain,text/html" @change=${act.openFile} />
          </label>
          <span class="count">${length(state.article)} ${t("chars")}</span>
        </p>
        ${state.status?.fetch_urls ? address(act) : nothing}
        <details ?open=${Boolean(state.must || state.mustNot || state.chars)}>
          <summary>${t("conditions")}</summary>
          ${lengths(act)} ${words("must", act)} ${words("mustNot", act)}
        </details>
        <p class="row">
          <button class="main" type="submit" ?disabled=${state.busy}>${state.busy ? t("writing") : t("write")}</button>
          ${state.busy ? html`<button type="button" @click=${act.stop}>${t("stop")}</button>` : nothing}
          <button type="button" @click=${act.clear}>${t("clear")}</button>
          ${state.earlier && !state.busy ? html`<button type="button" @click=${act.bringBack}>${t("bringBack")}</button>` : nothing}
        </p>
        ${state.error ? html`<p class="error" role="alert">${said(state.error)}<small>${state.error.message}</small></p>` : nothing}
        <p class="hint keys">${t("keys")}</p>
      </form>
    </section>
    <section class="candidates" aria-labelledby="candidates-label" aria-busy=${state.busy}>
      <h2 id="candidates-label">${t("candidates")}</h2>
      ${state.seconds ? html`<p class="hint">${t("all")} ${state.seconds.toFixed(1)} ${t("seconds")}</p>` : nothing}
      ${state.shortfall ? html`<p class="shortfall" role="status">${said(state.shortfall)}</p>` : nothing}
      ${state.writing.map((text) => html`<p class="writing" aria-hidden="true">${text || "…"}</p>`)}
      ${state.candidates.length || state.busy ? nothing : html`<p class="hint">${t("none")}</p>`}
      <ol>
        ${repeat(
          state.candidates,
          (candidate) => candidate.key,
          (candidate, index) => card(candidate, index, act),
        )}
      </ol>
      ${state.candidates.length ? html`<p class="hint">${t("marksHint")}</p>${slotList(act)}` : nothing}
    </section>
    ${state.read ? reading() : nothing}
  `;
}

function address(act) {
  return html`<p class="row">
    <label for="address">${t("address")}</label>
    <input id="address" type="url" maxlength="2000" placeholder="https://" />
    <button type="button" @click=${act.readAddress}>${t("read")}</button>
  </p>`;
}

function lengths(act) {
  const select = (event) => act.set("chars", Number(event.target.value) || null);
  return html`<p>
    <label for="chars">${t("wantedLength")}</label>
    <select id="chars" .value=${live(String(state.chars ?? ""))} @change=${select}>
      <option value="">${t("anyLength")}</option>
      ${state.lengths.map(
        (one) => html`<option value=${one.max_chars} ?selected=${one.max_chars === state.chars}>
          ${one.min_chars}–${one.max_chars} ${t("chars")}${one.slot ? ` · ${t(one.slot)}` : ""}
        </option>`,
      )}
    </select>
  </p>`;
}

function words(name, act) {
  return html`<p>
    <label for=${name}>${t(name)}</label>
    <input id=${name} maxlength="160" .value=${live(state[name])} @input=${(event) => act.set(name, event.target.value)} />
  </p>`;
}

function card(candidate, index, act) {
  const size = length(candidate.text);
  const broken = [
    ...missing(candidate).map(([name, word]) => `${t(name)}「${word}」`),
    ...candidate.checks.filter((check) => !check.passed).map(said),
  ];
  const kept = lastChoice(candidate);
  const soon = waiting(candidate);
  const warnings = candidate.warnings.filter((warning) => SHOWN_WARNINGS.has(warning.kind));
  return html`<li
    id="candidate-${index}"
    class="card ${kept ? "kept" : ""}"
    tabindex="-1"
    aria-label="${t("candidate")} ${index + 1}: ${candidate.text}"
    @keydown=${(event) => act.key(event, candidate)}
  >
    <p class="marked">${cut(candidate.text, candidate.evidence).map((piece) => mark(piece, candidate, act))}</p>
    ${state.shown?.key === candidate.key ? evidence(state.shown.claim) : nothing}
    <p class="row">
      <span class="field" data-text=${candidate.text}>
        <textarea
          class="title"
          rows="1"
          data-key=${candidate.key}
          aria-label="${t("edit")} ${index + 1}"
          maxlength="200"
          autocomplete="off"
          .value=${live(candidate.text)}
          @input=${(event) => act.edit(candidate, event.target.value)}
        ></textarea>
      </span>
      <output class="count" aria-label=${t("chars")}>${size} ${t("chars")}</output>
    </p>
    ${warnings.map((warning) => html`<p class="finding bad">${said(warning)}</p>`)}
    ${candidate.style.map((finding) => styleFinding(candidate, finding, act))}
    ${candidate.style.filter((finding) => finding.replacement !== null).length > 1
      ? html`<button type="button" @click=${() => act.correctAll(candidate)}>${t("correctAll")}</button>`
      : nothing}
    <p class="row actions">
      <button type="button" class="main" @click=${() => act.keep(candidate)}>${t("keep")}</button>
      <button type="button" @click=${() => act.copy(candidate)}>${t("copy")}</button>
      <button type="button" @click=${() => act.more(candidate)} ?disabled=${state.busy}>${t("more")}</button>
      <button type="button" @click=${() => act.undo(candidate)} ?disabled=${!candidate.past.length}>${t("undo")}</button>
      <button type="button" @click=${() => act.redo(candidate)} ?disabled=${!candidate.future.length}>${t("redo")}</button>
      ${kept ? html`<strong class="good">✓ ${t("keptMark")}</strong>` : nothing}
      ${soon ? html`<em>${t("keptWaiting")}</em>` : nothing}
      ${kept || soon || candidate.keepAs !== undefined
        ? html`<button type="button" @click=${(event) => act.takeBack(candidate, event.currentTarget)}>${t("takeBack")}</button>`
        : nothing}
    </p>
    ${candidate.checked === candidate.text ? nothing : html`<p class="hint">${t("checking")}</p>`}
    ${broken.length ? html`<ul class="chips" aria-label=${t("rules")}>${broken.map((rule) => chip(false, rule))}</ul>` : nothing}
    ${candidate.reasons.length && candidate.text === candidate.title
      ? html`<ul class="chips" aria-label=${t("why")}>
          <li aria-hidden="true">${t("why")}</li>
          ${candidate.reasons.map((reason) => chip(reason.good, said(reason)))}
        </ul>`
      : nothing}
  </li>`;
}

function chip(good, text) {
  return html`<li class=${good ? "good" : "bad"}>
    <span aria-hidden="true">${good ? "✓" : "✗"}</span><span class="said">${good ? t("passed") : t("failed")}</span> ${text}
  </li>`;
}

function evidence(claim) {
  const piece = claim.sentence ? sentences({ text: claim.sentence.text, sentences: [[0, Array.from(claim.sentence.text).length]] }, {
    sentence: { start: 0 },
    place: claim.place?.map((place) => place - claim.sentence.start),
  })[1] : null;
  return html`<div class="evidence ${claim.supported ? "good" : "bad"}">
    <p>${said(claim)}</p>
    ${piece
      ? html`<p class="hint">${t(claim.supported ? "backed" : "nearest")}</p>
          <blockquote>${piece.head}${piece.words ? html`<mark>${piece.words}</mark>` : nothing}${piece.tail}</blockquote>`
      : nothing}
  </div>`;
}

function mark(piece, candidate, act) {
  if (!piece.claim) return html`<span>${piece.text}</span>`;
  const kind = piece.claim.supported ? "good" : "bad";
  return html`<button
    type="button"
    class="claim ${kind}"
    title=${said(piece.claim)}
    aria-label="${piece.text} ${said(piece.claim)}"
    aria-pressed=${String(state.shown?.key === candidate.key && state.shown.claim.start === piece.claim.start)}
    @click=${() => act.show(piece.claim, candidate)}
  >${piece.text}</button>`;
}

function styleFinding(candidate, finding, act) {
  return html`<p class="finding row">
    <span>${t("style")}：${said(finding)}</span>
    ${finding.replacement === null
      ? html`<em>${t("byHand")}</em>`
      : html`<button type="button" @click=${() => act.correct(candidate, finding)}>${t("correct")} ${finding.replacement}</button>`}
  </p>`;
}

function slotList(act) {
  return html`<h3 id="slots-label">${t("slots")}</h3>
    <ul class="slots" aria-labelledby="slots-label">
      ${slots().map(
        (slot) => html`<li>
          <strong>${t(slot.name)}</strong>
          <span class="hint">${slot.name === "own" ? ownLimit(act) : slot.max_chars === null ? t("free") : `${t("upTo")} ${slot.max_chars}`}</span>
          <span class="best">${slot.best ? slot.best.text : html`<em>${t("tooLong")}</em>`}</span>
          ${slot.best
            ? html`<button type="button" aria-label="${t("copy")} ${t(slot.name)}" @click=${() => act.copy(slot.best)}>${t("copy")}</button>
                <button type="button" aria-label="${t("keep")} ${t(slot.name)}" @click=${() => act.keep(slot.best, slot.name)}>${t("keep")}</button>`
            : nothing}
          ${!slot.best && state.lengths.some((one) => one.max_chars === slot.max_chars)
            ? html`<button type="button" aria-label="${t("ask")} ${t(slot.name)}" ?disabled=${state.busy} @click=${() => act.fill(slot)}>${t("ask")}</button>`
            : nothing}
        </li>`,
      )}
    </ul>`;
}

function ownLimit(act) {
  return html`<input
    type="number"
    min="1"
    max="200"
    aria-label=${t("ownLimit")}
    .value=${live(String(state.own))}
    @change=${(event) => act.set("own", Math.min(Math.max(Number(event.target.value) || 20, 1), 200))}
  />`;
}

function reading() {
  const shown = state.shown?.claim;
  return html`<section class="reading" aria-labelledby="reading-label">
    <h2 id="reading-label">${t("reading")}</h2>
    ${state.read.trimmed ? html`<p class="hint">${t("trimmed")}</p>` : nothing}
    <div id="text" class="text" tabindex="0" role="group" aria-labelledby="reading-label">${sentences(state.read, shown).map((piece) =>
      piece.before !== undefined
        ? piece.before
        : html`<span class=${piece.shown ? (shown.supported ? "sentence good" : "sentence near") : nothing}>${piece.head}${piece.words ? html`<mark>${piece.words}</mark>` : nothing}${piece.tail}</span>`,
    )}</div>
  </section>`;
}
