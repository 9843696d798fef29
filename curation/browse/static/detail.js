// All that the root says of one picture.
import { html, useEffect, useState } from "./preact.js";
import { ask, pictureAddress, showValue } from "./api.js";

const TITLES = { samples: "Metadata", downloads: "Download", duplicates: "Duplicates", selection: "Selection", train_index: "Train shards" };

export function Detail({ uid, revealed, isMarked, onReveal, onClose, onOpen, onLike, onMark, tables }) {
  const [found, setFound] = useState({});
  useEffect(() => {
    const abort = new AbortController();
    setFound({});
    ask("picture", { uid }, abort.signal).then(setFound, () => {});
    return () => abort.abort();
  }, [uid]);
  return html`<aside class="detail" aria-label="The picture and what is known of it">
    <header>
      <code title="uid: click to copy" class="copy" onClick=${() => navigator.clipboard?.writeText(uid)}>${uid}</code>
      <button type="button" class="plain" title="Close (Esc)" aria-label="Close" onClick=${onClose}>✕</button>
    </header>
    ${found.error && html`<p class="error" role="alert">${found.error}</p>`}
    ${found.columns ? html`<${Facts} ...${{ found, revealed, isMarked, onReveal, onOpen, onLike, onMark, tables }} />`
      : !found.error && html`<div class="ghost large" />`}
  </aside>`;
}

function Facts({ found, revealed, isMarked, onReveal, onOpen, onLike, onMark, tables }) {
  const { uid, columns, decisions, group } = found;
  const row = Object.assign({}, ...Object.values(columns));
  const isVeiled = !found.is_safe && row.status === "ok" && !revealed.has(uid);
  return html`
    <button type="button" class=${`large${isVeiled ? " veiled" : ""}`} aria-label=${isVeiled ? "Show the blurred picture" : "The picture"}
      onClick=${() => isVeiled && onReveal(uid)}>
      <img src=${pictureAddress(uid, true)} alt=${isVeiled ? "" : row.caption ?? ""} />
      ${isVeiled && html`<span class="veil">No score calls it safe: click to show</span>`}
    </button>
    <p class="text">${row.caption || html`<em>no caption</em>`}</p>
    <p class="actions">
      ${row.status === "ok" && tables.map((table, place) => html`<button type="button" onClick=${() => onLike(uid, table)}
        title=${`Nearest by the vectors of ${table}${place ? "" : " (n)"}`}>Similar${place ? ` by ${table.replace("embeddings_", "")}` : ""}</button>`)}
      ${row.phash && html`<button type="button" onClick=${() => onLike(uid, "hash")} title="Nearest by perceptual hash (h)">Same hash</button>`}
      ${onMark && html`<button type="button" aria-pressed=${isMarked} onClick=${() => onMark(uid)} title="Mark (x)">${isMarked ? "Marked ✓" : "Mark"}</button>`}
    </p>
    <h2>Decisions</h2>
    <ol class="decisions">${decisions.map((one) => html`<${Decision} one=${one} />`)}</ol>
    ${group.length > 0 && html`<h2>Copies of one picture</h2>
      <div class="group">${group.map((one) => html`<${Member} one=${one} isThis=${one.uid === uid} isVeiled=${!one.is_safe && !revealed.has(one.uid)} onOpen=${onOpen} />`)}</div>`}
    <h2>Where it came from</h2>
    <${Table} rows=${found.origin} />
    ${Object.entries(columns).map(([table, values]) => html`<details open=${table.startsWith("scores")}>
      <summary>${TITLES[table] ?? table.replace(/^scores_/, "")}</summary><${Table} rows=${values} /></details>`)}`;
}

function Decision({ one }) {
  const mark = one.passed === null ? "·" : one.passed ? "✓" : "✕";
  const kind = one.passed === null ? "unasked" : one.passed ? "passed" : "refused";
  const said = one.passed === null && one.is_rule ? " (not asked here: it depends on other rows, or on a list or score that is not here)" : "";
  return html`<li class=${`${kind}${one.is_reason ? " reason" : ""}`}>
    <span class="sign" aria-label=${kind}>${mark}</span>
    <div><b>${one.step}</b>${one.is_reason && html` <span class="pill">the reason</span>`}
      <div class="why">${one.is_rule ? html`<code>${one.why}</code>` : one.why}${said}</div>
      ${Object.entries(one.values).map(([name, value]) => html`<span class="value"><i>${name}</i> ${showValue(value)}</span>`)}
    </div></li>`;
}

function Member({ one, isThis, isVeiled, onOpen }) {
  const said = one.tier ? `${one.tier} ${showValue(one.similarity)}` : "kept";
  return html`<button type="button" class=${`member${isThis ? " this" : ""}${isVeiled ? " veiled" : ""}`} onClick=${() => onOpen(one.uid)}
    aria-label=${`${said}: ${one.caption}`}>
    <img src=${pictureAddress(one.uid)} alt="" loading="lazy" /><span>${said}${isThis ? " · this one" : ""}</span></button>`;
}

function Table({ rows }) {
  return html`<table><tbody>${Object.entries(rows).map(([name, value]) => html`<tr class=${value === null ? "null" : ""}>
    <th scope="row">${name}</th><td>${showValue(value)}</td></tr>`)}</tbody></table>`;
}
