// How often the first candidate was taken, what was wrong, and the log for disclosure.
import { html, nothing } from "./lit/lit-html.js";
import { state } from "./state.js";
import { t } from "./words.js";

export function records(act) {
  const found = state.statistics;
  if (!found) return html`<p>…</p>`;
  const percent = (share) => `${Math.round(100 * share)}%`;
  const kinds = (counts) =>
    Object.entries(counts).map(([kind, number]) => `${t(kind === "name" ? "nameKind" : kind)} ${number}`).join("、") || "0";
  const figures = [
    ["made", found.made],
    ["chosen", found.chosen],
    ["firstTaken", percent(found.first_taken)],
    ["edited", percent(found.edited)],
    ["changed", percent(found.characters_changed)],
    ["wrong", kinds(found.wrong)],
    ["wrongKept", kinds(found.wrong_kept)],
  ];
  const when = (time) => new Date(time).toLocaleString(document.documentElement.lang, { dateStyle: "short", timeStyle: "short" });
  return html`<section class="records">
    <h2>${t("records")}</h2>
    <dl>${figures.map(([name, value]) => html`<div><dt>${t(name)}</dt><dd>${value}</dd></div>`)}</dl>
    <h3>${t("export")}</h3>
    <p class="row">
      <a href="/api/choices.jsonl" download>${t("exportJson")}</a>
      <a href="/api/choices.csv" download>${t("exportCsv")}</a>
      <a href="/api/preferences.jsonl" download>${t("exportPairs")}</a>
    </p>
    <h3 id="log-label">${t("disclosure")}</h3>
    ${found.log.length
      ? html`<div class="scroll" tabindex="0" role="region" aria-labelledby="log-label"><table>
          <thead><tr>${["time", "model", "written", "asKept", "takeBack"].map((name) => html`<th scope="col">${t(name)}</th>`)}</tr></thead>
          <tbody>${found.log.map(
            (line) => html`<tr class=${line.withdrawn ? "withdrawn" : nothing}>
              <td>${when(line.time)}</td>
              <td>${line.model}<br /><small>${line.model_digest.slice(0, 12)}</small></td>
              <td>${line.place}. ${line.candidate}</td>
              <td>
                <span class="title">${line.edited ? line.title : t("unchanged")}</span>
                ${line.slot ? html`<br /><small>${t(line.slot)}</small>` : nothing}
              </td>
              <td>${line.withdrawn
                ? html`<small>${t("takenBackAt")} ${when(line.withdrawn)}</small>`
                : html`<button type="button" aria-label="${t(state.asking === line.number ? "takeBackSure" : "takeBack")} ${line.title}" @click=${() => act.withdraw(line)}>${t(state.asking === line.number ? "takeBackSure" : "takeBack")}</button>`}</td>
            </tr>`,
          )}</tbody>
        </table></div>`
      : html`<p class="hint">${t("nothing")}</p>`}
  </section>`;
}
