/** Where TopGun clients keep their data. */
export * as IndexedDbStorage from "./IndexedDbStorage.ts"
