/** A panel's drawing as SVG and as PNG: what is on the page, taken as it stands.
 *
 * Boxes become rectangles, words become words, canvases become images within; SVG stays what it is. So a panel draws
 * once, with HTML, SVG and canvas as each is best, and still leaves as one picture.
 */

const SVG = "http://www.w3.org/2000/svg";
const STYLES = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-family", "font-size"];
const MORE_STYLES = ["font-weight", "text-anchor", "dominant-baseline", "fill-opacity", "stroke-opacity"];

export function toSvg(element: HTMLElement): string {
  const box = element.getBoundingClientRect();
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
  const { width, height } = element.getBoundingClientRect();
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
  const box = node.getBoundingClientRect();
  const at = { x: box.left - origin.left, y: box.top - origin.top, width: box.width, height: box.height };
  if (node instanceof SVGSVGElement) {
    const copy = styled(node) as Element;
    for (const [key, value] of Object.entries(at)) copy.setAttribute(key, String(value));
    into.append(copy);
    return;
  }
  const border = style.borderTopWidth !== "0px" && style.borderTopStyle !== "none";
  if (visible(style.backgroundColor) || (border && visible(style.borderTopColor))) {
    const fill = visible(style.backgroundColor) ? style.backgroundColor : "none";
    const rectangle = made("rect", { ...at, rx: Number.parseFloat(style.borderRadius) || 0, fill });
    if (border) rectangle.setAttribute("stroke", style.borderTopColor);
    into.append(rectangle);
  }
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
