// The bar on top: a condition after WHERE or words, the columns to ask about, and the counts of the funnel to click.
import { html, useLayoutEffect, useRef, useState } from "./preact.js";
import { count, kindOf } from "./api.js";

const MODES = {
  where: ["SQL", "WHERE", "Condition, as after WHERE", "kept and aesthetic > 5 order by aesthetic desc"],
  words: ["Words", "caption", "Words of the caption", "words of the caption"],
  removes: ["Rule", "removed by", "A rule, as in a recipe", "aesthetic >= 5"],
  meaning: ["Meaning", "shows", "What the picture shows", "a red bicycle against a wall"],
};

// `name` is the id of its field; `isSecond` searches what is compared, which no meaning can be.
export function Search({ asked, total, onAsk, summary, understands, name = "search", isSecond = false }) {
  const [mode, setMode] = useState(kindOf(asked));
  const [text, setText] = useState(asked[kindOf(asked)] ?? "");
  const field = useRef(null);
  // Before the field is there to type into: an effect after painting would take away what was typed meanwhile.
  useLayoutEffect(() => {
    setMode(kindOf(asked));
    setText(asked[kindOf(asked)] ?? "");
  }, [asked.words, asked.where, asked.meaning, asked.removes]);
  const submit = (event) => {
    event.preventDefault();
    field.current.blur(); // so that keys move on the wall
    onAsk({ [mode]: text.trim() });
  };
  const insert = (column) => {
    const name = column === "offset" ? '"offset"' : column; // SQL has a word of that name
    const input = field.current, at = input.selectionEnd ?? text.length;
    const joined = `${text.slice(0, at)}${at && text[at - 1] !== " " ? " " : ""}${name} `;
    setMode("where");
    setText(joined + text.slice(at));
    input.focus();
  };
  return html`<form class="search" role="search" onSubmit=${submit}>
    <div class="modes" role="radiogroup" aria-label="How to search">
      ${Object.entries(MODES).filter(([value]) => value !== "meaning" || (understands && !isSecond)).map(([value, [name]]) => html`<button type="button" role="radio"
        aria-checked=${mode === value} onClick=${() => { setMode(value); field.current.select(); }}>${name}</button>`)}
    </div>
    <label class="field"><span class="prefix">${MODES[mode][1]}</span>
      <input id=${name} ref=${field} value=${text} onInput=${(event) => setText(event.target.value)} autocomplete="off" autocapitalize="off"
        spellcheck=${false} class=${mode === "removes" ? "where" : mode} aria-label=${MODES[mode][2]} placeholder=${MODES[mode][3]} />
    </label>
    <button type="submit" class=${isSecond ? "" : "go"}>Search</button>
    <${Columns} summary=${summary} onPick=${insert} />
    <output class="total" aria-live="polite">${total}</output>
  </form>`;
}

function Columns({ summary, onPick }) {
  const box = useRef(null);
  if (!summary?.columns) return null;
  const tables = [...new Set(summary.columns.map((column) => column.table))];
  const pick = (name) => { box.current.open = false; onPick(name); };
  return html`<details class="columns" ref=${box} onKeyDown=${(event) => { if (event.key === "Escape") box.current.open = false; }}>
    <summary>Columns</summary>
    <div class="sheet"><div class="lists">${tables.map((table) => html`<section><h3>${table}</h3>
      ${summary.columns.filter((column) => column.table === table).map((column) => html`<button type="button" class="plain"
        title=${column.type.toLowerCase()} onClick=${() => pick(column.name)}>${column.name}</button>`)}</section>`)}</div></div>
  </details>`;
}

const quote = (text) => `'${text.replaceAll("'", "''")}'`;

export function listChips(summary) {
  if (!summary?.funnel) return [];
  const chips = [], add = (name, number, where, kind, title) => chips.push({ name, number, where, kind, title });
  for (const { stage, reason, count: number, detail } of summary.funnel) {
    if (stage === "samples" && !reason) add("all", number, "true", "stage", "every row of the root");
    if (stage === "pictures" && !reason) add("pictures", number, "status = 'ok'", "stage", "rows whose picture came");
    if (stage === "kept" && !reason) add("kept", number, "kept", "kept", "rows that every rule keeps");
    if (stage === "pictures" && reason && number && reason !== "pending") add(reason, number, `reason = ${quote(reason)}`, "rule", detail);
    if (stage === "samples" && reason && number && reason !== "pending") add(reason, number, `status = ${quote(reason)}`, "lost", "no picture came");
  }
  const order = ["stage", "kept", "rule", "lost"];
  return chips.sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind));
}

export function Chips({ summary, where, onAsk, marked, isMarked }) {
  const chips = listChips(summary);
  const isMore = (kind, place) => place > 0 && chips[place - 1].kind !== kind && kind !== "kept";
  return html`<nav class="chips" aria-label="Decisions">
    ${marked > 0 && html`<button type="button" class="chip" aria-pressed=${isMarked} onClick=${() => onAsk({ marked: "1" })}>marked <small>${count(marked)}</small></button>`}
    ${chips.map((chip, place) => html`
    ${isMore(chip.kind, place) && html`<span class="gap">${chip.kind === "rule" ? "not kept" : chip.kind === "lost" ? "no picture" : ""}</span>`}
    <button type="button" class=${`chip ${chip.kind}`} aria-pressed=${where === chip.where} title=${chip.title}
      onClick=${() => onAsk({ where: chip.where })}>${chip.name} <small>${count(chip.number)}</small></button>`)}
    ${summary?.error ? html`<span class="said">${summary.error}</span>` : !summary?.funnel && html`<span class="gap">counting…</span>`}
  </nav>`;
}
