/** The keys that work everywhere but in a field: they move the selection that all panels share. */

import { edits, selection } from "./selection.svelte";

export const KEYS: [string, string][] = [
  ["← →", "the token before, after"],
  ["[ ]", "the head before, after"],
  ["{ }", "the layer before, after"],
  ["m", "mute the head, or give it its voice back"],
  ["z  Z", "undo, redo an edit"],
  ["Esc", "let go of the token"],
];

/** What bounds the moves; set by the page when it knows the model and the text. */
export const bounds = { tokens: 0, layers: 0, heads: 0 };

const between = (value: number, end: number) => Math.max(0, Math.min(end - 1, value));

export function onkeydown(event: KeyboardEvent) {
  const at = event.target as HTMLElement;
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName)) return;
  const head = `L${selection.layer}H${selection.head}`;
  switch (event.key) {
    case "ArrowLeft":
    case "ArrowRight": {
      const by = event.key === "ArrowLeft" ? -1 : 1;
      selection.position = between((selection.position ?? bounds.tokens - (by > 0 ? 1 : 0)) + by, bounds.tokens);
      break;
    }
    case "[":
    case "]":
      selection.head = between(selection.head + (event.key === "[" ? -1 : 1), bounds.heads);
      break;
    case "{":
    case "}":
      selection.layer = between(selection.layer + (event.key === "{" ? -1 : 1), bounds.layers);
      break;
    case "m":
      edits.put(head, edits.of(head) ? null : "zero");
      break;
    case "z":
      edits.undo();
      break;
    case "Z":
      edits.redo();
      break;
    case "Escape":
      selection.position = null;
      break;
    default:
      return;
  }
  event.preventDefault();
}

const STEPS: Record<string, [number, number]> = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
};

/** Where an arrow key leads in a grid, taken from the page, which would scroll; null for another key. */
export function stepped(event: KeyboardEvent, row: number, column: number, rows: number, columns: number) {
  const step = STEPS[event.key];
  if (!step) return null;
  event.preventDefault();
  event.stopPropagation();
  return { row: between(row + step[0], rows), column: between(column + step[1], columns) };
}
