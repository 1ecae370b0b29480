/** Where TopGun clients keep their data. */
export * as EncryptedStorage from "./EncryptedStorage.ts"
export * as IndexedDbStorage from "./IndexedDbStorage.ts"
