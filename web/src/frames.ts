/** Frames: a JSON header and arrays of numbers, as the server packs them (microformer/inspection/frames.py).
 *
 *   4 bytes, length of the header · the header · arrays, each at a multiple of 8
 */

export type Numbers = Float32Array | Int32Array | Uint8Array;

export interface Frame {
  /** What is plain: names, labels, lists of words. */
  data: any;
  arrays: Record<string, Numbers>;
  shapes: Record<string, number[]>;
}

const KINDS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array } as const;

interface Described {
  dtype: keyof typeof KINDS;
  shape: number[];
  at: number;
}

/** Unpacks a frame; the arrays look at the buffer itself. */
export function decode(buffer: ArrayBuffer): Frame {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const arrays: Record<string, Numbers> = {};
  const shapes: Record<string, number[]> = {};
  for (const [name, { dtype, shape, at }] of Object.entries<Described>(header.arrays)) {
    const size = shape.reduce((product, one) => product * one, 1);
    arrays[name] = new KINDS[dtype](buffer, 4 + length + at, size);
    shapes[name] = shape;
  }
  return { data: header.data, arrays, shapes };
}

/** JSON with its keys in order and no spaces: equal values are equal strings. */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value).filter(([, one]) => one !== undefined);
    entries.sort(([a], [b]) => (a < b ? -1 : 1));
    return `{${entries.map(([name, one]) => `${JSON.stringify(name)}:${canonical(one)}`).join(",")}}`;
  }
  return JSON.stringify(value);
}
