import { defineConfig } from "vite"

export default defineConfig({
  // The packages' sources, so that the page needs no build of theirs; the rest are Vite's own defaults, which a list replaces.
  resolve: { conditions: ["@topgun/source", "module", "browser", "development|production"] },
  build: { target: "es2022" }
})
