/** Where the parts of a model stand in its figure: the residual stream runs down, what is added to it stands beside it.
 *
 *   the stream ─┬→ norm → attention ─┐      A wide figure has a branch's parts side by side, a narrow one under each
 *               ⊕ ←──────────────────┘      other. Knows boxes and lines, and neither colours nor numbers.
 */

/** A part, as the view `model` tells it (microformer/inspection/anatomy.py). */
export interface Box {
  id: string;
  label: string;
  parent: string | null;
  shape: (string | number)[];
  parameters: number;
  formula: string;
  file: string;
  line: number;
  /** `own` where it is the user's. */
  code: string;
  tap: string | null;
}

export type Kind = "embedding" | "norm" | "attention" | "feedforward" | "unembedding" | "layer" | "beside";

export interface Placed {
  box: Box;
  kind: Kind;
  /** A layer's frame, open or shut; the frame around attention; a part; one of a single line. */
  as: "open" | "shut" | "frame" | "part" | "slim";
  x: number;
  y: number;
  width: number;
  height: number;
  layer: number | null;
}

export interface Wire {
  d: string;
  arrow: boolean;
  stream: boolean;
}

/** A small bar that says how large an activation is: to the left of the stream, or over what is added to it. */
export interface Gauge {
  tap: string;
  x: number;
  y: number;
  side: "left" | "right";
}

export interface Figure {
  width: number;
  height: number;
  placed: Placed[];
  wires: Wire[];
  plus: { x: number; y: number }[];
  gauges: Gauge[];
  /** What goes in at the top and comes out at the bottom. */
  ends: { x: number; y: number; words: string }[];
  /** Where the stream runs. */
  stream: number;
}

export interface Plan {
  boxes: Box[];
  width: number;
  /** The layers that are drawn open. */
  open: ReadonlySet<number>;
  parallel: boolean;
  input: string;
  output: string;
}

export const layerOf = (id: string): number | null => {
  const found = /^blocks\.(\d+)/.exec(id);
  return found ? Number(found[1]) : null;
};

export function kindOf(id: string): Kind {
  if (/^blocks\.\d+$/.test(id)) return "layer";
  if (/norm|^ln_final$/.test(id)) return "norm";
  if (/\.attn/.test(id)) return "attention";
  if (/\.mlp/.test(id)) return "feedforward";
  if (id === "embed" || id === "ngrams") return "embedding";
  return id === "unembed" ? "unembedding" : "beside";
}

/** What a layer is made of, as one string: layers that are alike have the same. */
export function likeness(boxes: Box[], layer: number): string {
  const own = `blocks.${layer}`;
  return boxes
    .filter((box) => box.id.startsWith(`${own}.`))
    .map((box) => `${box.id.slice(own.length)}|${box.label}|${box.shape}|${box.file}`)
    .join("\n");
}

export const SMALLEST_WIDE = 560;
const ARROW = 5;

export function draw({ boxes, width, open, parallel, input, output }: Plan): Figure {
  const wide = width >= SMALLEST_WIDE;
  const stream = wide ? 84 : 50;
  const start = stream + (wide ? 36 : 30);
  const right = width - 2;
  const end = right - (wide ? 30 : 14);
  const figure: Figure = { width, height: 0, placed: [], wires: [], plus: [], gauges: [], ends: [], stream };
  const { placed, wires, plus, gauges } = figure;
  const by = new Map(boxes.map((box) => [box.id, box]));
  let y = 14;
  // From where the stream is not drawn yet.
  let from = y;

  function put(box: Box, as: Placed["as"], x: number, top: number, breadth: number, height: number): Placed {
    const kind = as === "open" || as === "shut" ? "layer" : kindOf(box.id);
    const made = { box, kind, as, x, y: top, width: breadth, height, layer: layerOf(box.id) };
    placed.push(made);
    return made;
  }
  const wire = (d: string, arrow = true, isStream = false) => wires.push({ d, arrow, stream: isStream });
  /** The stream down to `to`; into something where it has an arrow. */
  function run(to: number, arrow = false) {
    wire(`M${stream} ${from}V${to - (arrow ? ARROW : 0)}`, arrow, true);
    from = to;
  }
  function add(at: number) {
    run(at - 8);
    plus.push({ x: stream, y: at });
    from = at + 8;
  }
  /** A part that the stream goes through. */
  function through(box: Box, height: number, x = 2, breadth = wide ? 196 : 168) {
    run(y, true);
    put(box, height < 34 ? "slim" : "part", x, y, breadth, height);
    y += height;
    from = y;
  }

  // ------------------------------------------------------------------------------------------------ before the layers

  figure.ends.push({ x: stream, y, words: input });
  y += 12;
  from = y;
  y += 16;
  const first = y;
  through(by.get("embed")!, 46);
  const beside = wide ? 236 : 184;
  const breadth = Math.min(210, right - beside);
  let row = first;
  const added = (box: Box) => box.tap !== null || box.id === "ngrams";
  const others = boxes.filter((box) => ["positions", "memory", "ngrams"].includes(box.id));
  for (const box of others.filter((one) => !added(one))) {
    put(box, "part", beside, row, breadth, 46);
    row += 54;
  }
  y += 14;
  for (const box of others.filter(added)) {
    row = Math.max(row, y);
    put(box, "part", beside, row, breadth, 46);
    wire(`M${beside} ${row + 23}H${stream + 8 + ARROW}`);
    add(row + 23);
    y = row + 54;
    row = y;
  }
  y = Math.max(y, row) + 4;

  // ---------------------------------------------------------------------------------------------------- a layer's half

  /** The parts of a branch and the lines between them; gives the y where what comes out is added. */
  function branch(layer: number, body: "attn" | "mlp", norm: Box | undefined, after: Box | undefined) {
    const main = by.get(`blocks.${layer}.${body}`)!;
    const inside = boxes.filter((box) => box.parent === main.id);
    const of = (name: string) => inside.find((box) => box.id.endsWith(`.${name}`));
    const parts = ["W_QKV", "kernel", "W_O"].map(of).filter((box) => box !== undefined);
    const slims = ["qk_norm", "retrieval", "W_G"].map(of).filter((box) => box !== undefined);
    let [bottom, out] = wide ? acrossThe(parts, slims) : downThe(parts, slims);
    if (after && !wide) {
      wire(`M${out}V${bottom + 12 - ARROW}`);
      put(after, "slim", start, bottom + 12, end - start, 28);
      bottom += 40;
      out = `${(start + end) / 2} ${bottom}`;
    }
    const lane = bottom + 20;
    wire(`M${out}V${lane}H${toLane(lane)}`);
    gauges.push({ tap: `blocks.${layer}.hook_${body}_out`, x: stream + 20, y: lane - 5, side: "right" });
    add(lane);
    y = lane + 8;

    /** Where the way back to the stream ends: at the ⊕, or at a norm that stands before it. */
    function toLane(at: number): number {
      if (!after || !wide) return stream + 8 + ARROW;
      const x = start + 96;
      put(after, "slim", x, at - 12, 104, 24);
      wire(`M${x} ${at}H${stream + 8 + ARROW}`);
      return x + 104 + ARROW;
    }

    function acrossThe(parts: Box[], slims: Box[]): [number, string] {
      const height = parts.length ? 24 + 64 + (slims.length ? 32 : 0) + 10 : 66;
      const middle = y + (parts.length ? 24 + 32 : height / 2);
      let x = start;
      if (norm) {
        put(norm, "part", x, middle - 22, 92, 44);
        wire(`M${stream} ${middle}H${x - ARROW}`);
        x += 92;
        wire(`M${x} ${middle}H${x + 18 + (parts.length ? 10 : 0) - ARROW}`);
        x += 18;
      } else {
        const shared = parallel && body === "mlp" ? by.get(`blocks.${layer}.norm_1`) : undefined;
        const before = placed.find((one) => one.box === shared);
        const turn = before ? before.x + before.width / 2 : stream;
        x = before ? before.x + before.width + 18 : start;
        const down = before ? `M${turn} ${before.y + before.height}V${middle}` : `M${turn} ${middle}`;
        wire(`${down}H${x + (parts.length ? 10 : 0) - ARROW}`);
      }
      put(main, parts.length ? "frame" : "part", x, y, end - x, height);
      const out = `${end} ${middle}H${end + 14}`;
      if (!parts.length) return [y + height, out];
      const room = end - x - 20 - 18 * (parts.length - 1);
      const shares = parts.map((box) => ({ W_QKV: 0.37, kernel: 0.37, W_O: 0.26 })[lastOf(box.id)] ?? 0.3);
      const total = shares.reduce((sum, one) => sum + one, 0);
      let at = x + 10;
      for (const [i, box] of parts.entries()) {
        const broad = (room * shares[i]!) / total;
        put(box, "part", at, y + 24, broad, 64);
        const under = slims.find((one) => UNDER[lastOf(one.id)] === lastOf(box.id));
        if (under) {
          put(under, "slim", at, y + 96, broad, 24);
          wire(`M${at + broad / 2} ${y + 96}V${y + 88}`, false);
        }
        at += broad;
        if (i < parts.length - 1) wire(`M${at} ${middle}H${at + 18 - ARROW}`);
        else wire(`M${at} ${middle}H${end}`, false);
        at += 18;
      }
      return [y + height, out];
    }

    function downThe(parts: Box[], slims: Box[]): [number, string] {
      const centre = (start + end) / 2;
      let at = y;
      if (norm) {
        put(norm, "slim", start, at, end - start, 28);
        wire(`M${stream} ${at + 14}H${start - ARROW}`);
        at += 28;
        wire(`M${centre} ${at}V${at + 14 - ARROW}`);
        at += 14;
      } else {
        const shared = parallel && body === "mlp" ? by.get(`blocks.${layer}.norm_1`) : undefined;
        const before = placed.find((one) => one.box === shared);
        if (before) wire(`M${end} ${before.y + 14}H${end + 8}V${at + 22}H${end + ARROW}`);
        else wire(`M${stream} ${at + 22}H${start - ARROW}`);
      }
      if (!parts.length) {
        put(main, "part", start, at, end - start, 64);
        return [at + 64, `${centre} ${at + 64}`];
      }
      const order = ["W_QKV", "qk_norm", "kernel", "retrieval", "W_G", "W_O"];
      const every = [...parts, ...slims].sort((a, b) => order.indexOf(lastOf(a.id)) - order.indexOf(lastOf(b.id)));
      const heights = every.map((box) => (slims.includes(box) ? 24 : 62));
      const height = 24 + heights.reduce((sum, one) => sum + one + 12, 0) - 2;
      put(main, "frame", start, at, end - start, height);
      const top = at;
      at += 24;
      for (const [i, box] of every.entries()) {
        put(box, slims.includes(box) ? "slim" : "part", start + 8, at, end - start - 16, heights[i]!);
        at += heights[i]!;
        if (i < every.length - 1) wire(`M${centre} ${at}V${at + 12 - ARROW}`);
        at += 12;
      }
      return [top + height, `${centre} ${top + height}`];
    }
  }

  // -------------------------------------------------------------------------------------------------------- the layers

  const layers = boxes.filter((box) => kindOf(box.id) === "layer");
  for (const [layer, box] of layers.entries()) {
    const top = y;
    const frame = put(box, open.has(layer) ? "open" : "shut", 2, top, right - 2, 34);
    gauges.push({ tap: `blocks.${layer}.hook_resid_pre`, x: stream - 9, y: top + 17, side: "left" });
    y += 34;
    if (open.has(layer)) {
      const own = (name: string) => by.get(`blocks.${layer}.${name}`);
      for (const [half, body] of (["attn", "mlp"] as const).entries()) {
        const norm = own(`norm_${half + 1}`);
        // In the order of the boxes, as they are gone through: a norm after its half is on the stream itself.
        const before = norm && boxes.indexOf(norm) < boxes.indexOf(own(body)!);
        y += 6;
        branch(layer, body, before ? norm : undefined, own(`norm_${half + 1}_after`));
        if (norm && !before) {
          y += 14;
          through(norm, 28, 12, wide ? 150 : 130);
        }
        if (half === 0) {
          y += 18;
          gauges.push({ tap: `blocks.${layer}.hook_resid_mid`, x: stream - 9, y, side: "left" });
          y += 10;
        }
      }
      y += 12;
      frame.height = y - top;
    }
    y += 8;
  }

  // ------------------------------------------------------------------------------------------------------ after them

  y += 10;
  if (layers.length)
    gauges.push({ tap: `blocks.${layers.length - 1}.hook_resid_post`, x: stream - 9, y, side: "left" });
  y += 18;
  const norm = by.get("ln_final");
  if (norm) {
    through(norm, 46);
    y += 16;
  }
  const last = by.get("unembed");
  if (last) through(last, 46);
  y += 18;
  run(y, true);
  y += 12;
  figure.ends.push({ x: stream, y, words: output });
  figure.height = y + 14;
  return figure;
}

/** Where the point of an arrow stands at the end of a line, and how far it is turned, in degrees. */
export function tip(d: string): [x: number, y: number, turn: number] {
  let [x, y, turn] = [0, 0, 0];
  for (const [, way, a, b] of d.matchAll(/([MHV])(-?[\d.]+)(?: (-?[\d.]+))?/g)) {
    const to = Number(a);
    if (way === "M") [x, y] = [to, Number(b)];
    else if (way === "H") [x, turn] = [to, to < x ? 180 : 0];
    else [y, turn] = [to, to < y ? -90 : 90];
  }
  return [x, y, turn];
}

export const lastOf = (id: string): string => id.slice(id.lastIndexOf(".") + 1);

// Under which part of attention a part of a single line stands.
const UNDER: Record<string, string> = { qk_norm: "W_QKV", retrieval: "kernel", W_G: "W_O" };

/** Words that fit into so many pixels, cut short where they don't. `size`: of the type; `share`: of it, how wide a letter is. */
export function fitting(words: string, room: number, size: number, share = 0.53): string {
  const most = Math.floor(room / (share * size));
  return words.length <= most ? words : `${words.slice(0, Math.max(1, most - 1))}…`;
}
