/** Tells an element's inner width, at first and whenever it changes. The browser says it when it has laid out the page;
 * to ask for it would have the page laid out once for each that asks. */
export const widthOf = (tell: (width: number) => void) => (element: Element) => {
  const observer = new ResizeObserver(([entry]) => tell(Math.round(entry!.contentRect.width)));
  observer.observe(element);
  return () => observer.disconnect();
};
