import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// Built into the package, under fixed names, so that a build of the same source is the same files. One script and one
// style sheet: a saved view holds both within itself.
export default defineConfig({
  plugins: [svelte()],
  base: "./",
  build: {
    outDir: "../microformer/inspection/static",
    emptyOutDir: true,
    modulePreload: false,
    cssCodeSplit: false,
    assetsInlineLimit: 1_000_000,
    rollupOptions: {
      output: {
        inlineDynamicImports: true,
        entryFileNames: "app.js",
        assetFileNames: "app.[ext]",
      },
    },
  },
});
