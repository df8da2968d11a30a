/** How tokens and numbers are spelled. */

import { format } from "d3-format";

const SIGNS: Record<string, string> = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍" };

/** A token as it can be seen: spaces, tabs and newlines have signs. */
export function visible(token: string): string {
  return token === "" ? "∅" : token.replace(/[ \n\t\r]/g, (one) => SIGNS[one] ?? one);
}

export const NATS_TO_BITS = 1 / Math.LN2;

/** A number to so many digits; NaN and infinities as they are, and nothing without a sign. */
export function number(value: number, digits = 2): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const said = value.toFixed(digits);
  return Number(said) === 0 ? said.replace("-", "") : said.replace("-", "−");
}

/** A change, with its sign; what rounds to nothing has none. */
export function signed(value: number, digits = 2): string {
  return value > 0 && Number(value.toFixed(digits)) !== 0 ? `+${number(value, digits)}` : number(value, digits);
}

/** A share of 1. */
export function percent(value: number): string {
  if (!Number.isFinite(value)) return number(value);
  if (value > 0 && value < 0.001) return "<0.1%";
  return `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)}%`;
}

/** A count. */
export const count = format(",d");

/** As a string of Python. */
export function pythonString(text: string): string {
  return JSON.stringify(text).replace(/[\u007f-\uffff]/g, (one) => one);
}
