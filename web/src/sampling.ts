/** How an id is chosen from its distribution: microformer/generation.py's Sampler, in the browser.
 *
 *   p = softmax(logits / temperature), cut by top-k, min-p and top-p
 */

export interface Sampler {
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
}

/** The probabilities that are drawn from; they sum to 1. */
export function distribution(logits: ArrayLike<number>, { temperature, topK, topP, minP }: Sampler): Float64Array {
  const n = logits.length;
  const p = new Float64Array(n);
  let best = 0;
  for (let i = 1; i < n; i++) if (logits[i]! > logits[best]!) best = i;
  if (temperature === 0) {
    p[best] = 1;
    return p;
  }
  // By rank, and among equals the first come first, as there.
  const order = Array.from({ length: n }, (_, i) => i).sort((a, b) => logits[b]! - logits[a]! || a - b);
  const kept = topK > 0 && topK < n ? order.slice(0, topK) : order;
  for (const i of kept) p[i] = Math.exp((logits[i]! - logits[best]!) / Math.max(temperature, 1e-30));
  scale(p);
  const least = minP * p[best]!;
  if (minP > 0) for (let i = 0; i < n; i++) if (p[i]! < least) p[i] = 0;
  if (topP < 1) {
    const enough = topP * p.reduce((sum, one) => sum + one, 0);
    let before = 0;
    for (const i of order) {
      const here = p[i]!;
      if (before >= enough) p[i] = 0;
      before += here;
    }
  }
  return scale(p);
}

function scale(p: Float64Array): Float64Array {
  const sum = p.reduce((total, one) => total + one, 0);
  for (let i = 0; i < p.length; i++) p[i]! /= sum;
  return p;
}
