/** Light or dark: the system's choice until the reader makes one. */

const KEY = "microformer-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function remembered(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // a page opened from a file may have no storage
  }
}

class Theme {
  private chosen = $state<string | null>(remembered());
  private systemDark = $state(system.matches);

  constructor() {
    system.addEventListener("change", (event) => (this.systemDark = event.matches));
  }

  get dark(): boolean {
    return this.chosen ? this.chosen === "dark" : this.systemDark;
  }

  turn() {
    this.chosen = this.dark ? "light" : "dark";
    try {
      localStorage.setItem(KEY, this.chosen);
    } catch {
      // then it holds until the page is closed
    }
  }
}

export const theme = new Theme();
