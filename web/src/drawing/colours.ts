/** From numbers to colours. Amounts go from the paper's colour to a strong one; changes from one strong one, over the
 * paper's, to another. Exact zeros and NaNs have colours of their own, because they are findings. */

import { interpolateRgbBasis } from "d3-interpolate";
import { rgb } from "d3-color";

export type Colour = [number, number, number];
export type Ramp = (share: number) => Colour;

// A colour of no ramp.
export const NOT_A_NUMBER: Colour = [214, 51, 132];

function ramp(stops: string[]): Ramp {
  const between = interpolateRgbBasis(stops);
  // A table: heat maps ask for a colour a cell.
  const table = Array.from({ length: 256 }, (_, i) => {
    const { r, g, b } = rgb(between(i / 255));
    return [Math.round(r), Math.round(g), Math.round(b)] as Colour;
  });
  return (share) =>
    Number.isNaN(share) ? NOT_A_NUMBER : (table[Math.max(0, Math.min(255, Math.round(share * 255)))] as Colour);
}

const LIGHT = {
  amount: ramp(["#fbfaf7", "#d9e4f2", "#8fb4dd", "#3f7fbf", "#164a86", "#0a2a55"]),
  loss: ramp(["#fbfaf7", "#fdebc8", "#f8b86a", "#e5743c", "#b3261e", "#6e0f18"]),
  change: ramp(["#0b6e6e", "#5fb3a8", "#d3ebe6", "#fbfaf7", "#fbdcc4", "#ee8f5b", "#b3341a"]),
};
const DARK = {
  amount: ramp(["#1b1d22", "#1f3350", "#2b5c97", "#4d93d9", "#9dc8f5", "#eef6ff"]),
  loss: ramp(["#1b1d22", "#4a2b14", "#8f4a17", "#d9772b", "#f7ae5c", "#ffe9c4"]),
  change: ramp(["#7fe0d2", "#2f9a8f", "#1d4a49", "#1b1d22", "#52301f", "#c0622f", "#ffb184"]),
};

export const ramps = (dark: boolean) => (dark ? DARK : LIGHT);
/** An exact zero of a sparse pattern: no shade of the amounts, so that it is not taken for a small one. */
export const zero = (dark: boolean): Colour => (dark ? [52, 50, 47] : [233, 228, 217]);

export function css([r, g, b]: Colour): string {
  return `rgb(${r} ${g} ${b})`;
}

/** Black or white, whichever is read better on a colour (WCAG's relative luminance). */
export function inkOn(colour: Colour): string {
  const [r, g, b] = colour.map((one) => {
    const share = one / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }) as Colour;
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}
