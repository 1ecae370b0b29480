import { project } from "../../vitest.shared.ts"

export default project("testing", { build: "packages", browser: true })
