// Questions to the server, whose answers are JSON; a refusal is {error: one sentence}.

export async function ask(question, asked = {}, signal = undefined) {
  const query = new URLSearchParams(Object.entries(asked).filter(([, value]) => value !== "" && value != null));
  try {
    const response = await fetch(`api/${question}?${query}`, { signal });
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return { error: "The page's server does not answer: is `curate browse` still running?" };
  }
}

export async function change(question, asked) {
  try {
    const response = await fetch(`api/${question}`, { method: "POST", body: JSON.stringify(asked) });
    return await response.json();
  } catch {
    return { error: "The page's server does not answer: is `curate browse` still running?" };
  }
}

export const pictureAddress = (uid, large = false) => `picture/${encodeURIComponent(uid)}${large ? "?large" : ""}`;

export const count = (number) => Number(number).toLocaleString("en");

export function showValue(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number" && !Number.isInteger(value)) return String(Number(value.toPrecision(4)));
  return String(value);
}

// What is asked stands in the part of the address behind #, so that going back, reloading and bookmarks work.
export const KINDS = ["where", "words", "meaning", "removes"];

// How something is asked for, and its text.
export const kindOf = (asked) => KINDS.find((kind) => asked[kind]) ?? (Object.keys(asked).length === 1 ? Object.keys(asked)[0] : "where");
export const writePart = (asked) => `${kindOf(asked)}:${asked[kindOf(asked)] ?? ""}`;
export const readPart = (text) => ({ [text.slice(0, text.indexOf(":"))]: text.slice(text.indexOf(":") + 1) });

export function readAddress() {
  const found = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  return { where: found.where ?? "", words: found.words ?? "", meaning: found.meaning ?? "", removes: found.removes ?? "", vs: found.vs ?? "", only: found.only ?? "", like: found.like ?? "", by: found.by ?? "", marked: found.marked ?? "" };
}

export function writeAddress(asked) {
  const parts = Object.entries(asked).filter(([, value]) => value !== "" && value != null);
  const hash = `#${new URLSearchParams(parts)}`;
  if (hash !== location.hash) history.pushState(null, "", hash);
}
