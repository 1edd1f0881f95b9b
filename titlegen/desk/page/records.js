// How often the first candidate was taken, what was wrong, and the log for disclosure.
import { html, nothing } from "./lit/lit-html.js";
import { state } from "./state.js";
import { t } from "./words.js";

export function records() {
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
          <thead><tr>${["time", "model", "written", "asKept"].map((name) => html`<th scope="col">${t(name)}</th>`)}</tr></thead>
          <tbody>${found.log.map(
            (line) => html`<tr>
              <td>${new Date(line.time).toLocaleString(document.documentElement.lang, { dateStyle: "short", timeStyle: "short" })}</td>
              <td>${line.model}<br /><small>${line.model_digest.slice(0, 12)}</small></td>
              <td>${line.place}. ${line.candidate}</td>
              <td>${line.edited ? line.title : t("unchanged")}${line.slot ? html`<br /><small>${t(line.slot)}</small>` : nothing}</td>
            </tr>`,
          )}</tbody>
        </table></div>`
      : html`<p class="hint">${t("nothing")}</p>`}
  </section>`;
}
