/** A panel's drawing as SVG and as PNG: what is on the page, taken as it stands.
 *
 * Boxes become rectangles, words become words, canvases become images within; SVG stays what it is. So a panel draws
 * once, with HTML, SVG and canvas as each is best, and still leaves as one picture.
 */

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = 14;
const STYLES = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-family", "font-size"];
const MORE_STYLES = ["font-weight", "text-anchor", "dominant-baseline", "fill-opacity", "stroke-opacity"];

/** The element's place with some paper around it. */
function framed(element: HTMLElement): DOMRect {
  const { left, top, width, height } = element.getBoundingClientRect();
  return new DOMRect(left - MARGIN, top - MARGIN, width + 2 * MARGIN, height + 2 * MARGIN);
}

export function toSvg(element: HTMLElement): string {
  const box = framed(element);
  const root = made("svg", { xmlns: SVG, width: box.width, height: box.height });
  root.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
  const paper = getComputedStyle(document.body).backgroundColor;
  root.append(made("rect", { width: box.width, height: box.height, fill: paper }));
  draw(element, root, box);
  return new XMLSerializer().serializeToString(root);
}

/** At twice the size, for screens and slides that show more pixels. */
export async function toPng(element: HTMLElement): Promise<Blob> {
  const svg = toSvg(element);
  const { width, height } = framed(element);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = 2 * width;
  canvas.height = 2 * height;
  const context = canvas.getContext("2d") as CanvasRenderingContext2D;
  context.scale(2, 2);
  context.drawImage(image, 0, 0);
  return await new Promise((done, fail) =>
    canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error("the browser made no picture"))), "image/png"),
  );
}

function made(name: string, attributes: Record<string, string | number>): SVGElement {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  return element;
}

function draw(node: Element, into: Element, origin: DOMRect) {
  const style = getComputedStyle(node);
  if (style.display === "none" || style.visibility === "hidden" || node.hasAttribute("data-no-export")) return;
  if (style.clipPath === "inset(50%)") return; // what only a screen reader is told
  const box = node.getBoundingClientRect();
  const at = { x: box.left - origin.left, y: box.top - origin.top, width: box.width, height: box.height };
  if (node instanceof SVGSVGElement) {
    const copy = styled(node) as Element;
    for (const [key, value] of Object.entries(at)) copy.setAttribute(key, String(value));
    into.append(copy);
    return;
  }
  const sides = ["Top", "Right", "Bottom", "Left"] as const;
  const drawn = sides.filter(
    (one) =>
      style[`border${one}Width`] !== "0px" &&
      style[`border${one}Style`] !== "none" &&
      visible(style[`border${one}Color`]),
  );
  const border = drawn.length === 4;
  const gradient = faded(style.backgroundImage, into);
  if (visible(style.backgroundColor) || border || gradient) {
    const fill = gradient ?? (visible(style.backgroundColor) ? style.backgroundColor : "none");
    const rectangle = made("rect", { ...at, rx: Number.parseFloat(style.borderRadius) || 0, fill });
    if (border) rectangle.setAttribute("stroke", style.borderTopColor);
    into.append(rectangle);
  }
  if (!border && drawn.includes("Top"))
    into.append(made("path", { d: `M ${at.x} ${at.y} h ${at.width}`, stroke: style.borderTopColor }));
  if (node instanceof HTMLCanvasElement) {
    const image = made("image", { ...at, href: node.toDataURL(), preserveAspectRatio: "none" });
    image.setAttribute("style", "image-rendering: pixelated");
    into.append(image);
    return;
  }
  for (const child of node.childNodes) {
    if (child instanceof Element) draw(child, into, origin);
    else if (child instanceof Text) words(child, style, into, origin);
  }
}

/** A background that goes from colour to colour, left to right, as SVG has it; null where it is none. */
function faded(background: string, into: Element): string | null {
  if (!background.startsWith("linear-gradient(to right")) return null;
  const colours = background.match(/rgba?\([^)]*\)/g) ?? [];
  const id = `faded-${into.childElementCount}`;
  const gradient = made("linearGradient", { id });
  for (const [i, colour] of colours.entries())
    gradient.append(made("stop", { offset: i / Math.max(1, colours.length - 1), "stop-color": colour }));
  into.append(gradient);
  return `url(#${id})`;
}

/** The words of a text node, a line each. */
function words(node: Text, style: CSSStyleDeclaration, into: Element, origin: DOMRect) {
  const range = document.createRange();
  let line: { text: string; left: number; bottom: number; top: number } | null = null;
  const finish = () => {
    if (!line?.text.trim()) return;
    const text = made("text", {
      x: line.left - origin.left,
      y: line.bottom - origin.top - 0.24 * (line.bottom - line.top),
    });
    text.setAttribute("fill", style.color);
    text.setAttribute("font-family", style.fontFamily);
    text.setAttribute("font-size", style.fontSize);
    text.setAttribute("font-weight", style.fontWeight);
    text.setAttribute("xml:space", "preserve");
    text.textContent = line.text;
    into.append(text);
  };
  for (let i = 0; i < node.data.length; i++) {
    range.setStart(node, i);
    range.setEnd(node, i + 1);
    const box = range.getClientRects()[0];
    if (!box || !box.width) continue;
    if (line && Math.abs(box.bottom - line.bottom) < 2) line.text += node.data[i];
    else {
      finish();
      line = { text: node.data[i] as string, left: box.left, bottom: box.bottom, top: box.top };
    }
  }
  finish();
}

/** A copy of an SVG whose looks no longer depend on the page's style sheet. */
function styled(node: Element): Node {
  const copy = node.cloneNode(false) as Element;
  const style = getComputedStyle(node);
  for (const name of [...STYLES, ...MORE_STYLES]) {
    const value = style.getPropertyValue(name);
    if (value) copy.setAttribute(name, value);
  }
  copy.removeAttribute("class");
  for (const child of node.childNodes) copy.append(child instanceof Element ? styled(child) : child.cloneNode());
  return copy;
}

function visible(colour: string): boolean {
  return colour !== "transparent" && !/[,/]\s*0\)$/.test(colour);
}

/** Lets the reader keep a blob as a file. */
export function download(blob: Blob, name: string) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
