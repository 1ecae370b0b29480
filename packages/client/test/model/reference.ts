/**
 * What TopGun promises of a grid, in the simplest words that there are: a list of everything that was written, and for each
 * kind of map a rule that says what of it is to be seen when all is quiet.
 *
 * Each write has a label of its own, which its value is or contains, so that whoever sees a value knows which write it was:
 * the value of a record, the member of a set, the binary digit of a counter.
 */

export type What = "set" | "remove" | "add" | "take" | "count"

/** One thing that a device wrote to a key. */
export interface Written {
  readonly label: string
  readonly device: string
  readonly what: What
  readonly map: string
  readonly key: string
  /** Of `take`: the labels that are taken out of the set. */
  takes: ReadonlyArray<string>
  /** The batch that it is part of. */
  readonly batch: string | undefined
  /** When its value expires, in ms after its stamp. */
  readonly ttlMillis: number | undefined
  /** As text that sorts as stamps do; of records only. */
  stamp: string
  /**
   * `made`: visible on its device. `kept`: the device has said that it's durable there, or must have made it so. `uncertain`:
   * the device crashed, or went, before it said so. `discarded`: refused by a server, and then dropped by the application.
   */
  fate: "made" | "kept" | "uncertain" | "discarded"
  /** It had been refused before, and was tried again. */
  readonly isAgain: boolean
}

/** A record that a server has said it has taken. */
export interface Taken {
  readonly label: string | undefined
  readonly stamp: string
}

/** What is to be seen of a key, or of a counter: all that must be, and nothing but what may be. */
export interface Expected {
  readonly must: ReadonlySet<string>
  readonly may: ReadonlySet<string>
}

/** What is asked of the world, where the list of writes doesn't say it. */
export interface Evidence {
  /** The records of a key that servers have taken. */
  readonly taken: (map: string, key: string) => ReadonlyArray<Taken>
  /** Whether a write stands in its device's list of rejected ones now. */
  readonly isRefused: (written: Written) => boolean
  /** How many of a device's removals of a label were refused. */
  readonly refusedRemovals: (device: string, label: string) => number
}

export class Reference {
  readonly writes: Array<Written> = []
  readonly #byLabel = new Map<string, Written>()

  add(written: Written): Written {
    this.writes.push(written)
    this.#byLabel.set(written.label, written)
    return written
  }

  /** The write of a label; of one that was tried again, the last. */
  get(label: string): Written | undefined {
    return this.#byLabel.get(label)
  }

  of(map: string, key: string): ReadonlyArray<Written> {
    return this.writes.filter((written) => written.map === map && written.key === key)
  }

  /** The batches of a device. */
  batches(device: string): ReadonlyMap<string, ReadonlyArray<Written>> {
    const batches = new Map<string, Array<Written>>()
    for (const written of this.writes) {
      if (written.device !== device || written.batch === undefined) continue
      const batch = batches.get(written.batch)
      if (batch === undefined) batches.set(written.batch, [written])
      else batch.push(written)
    }
    return batches
  }

  /** What the device hasn't said of will never be known. */
  crash(device: string): void {
    for (const written of this.writes) {
      if (written.device === device && written.fate === "made") written.fate = "uncertain"
    }
  }

  /** The device has been well for so long that whatever it wrote is durable there. */
  settle(device: string): void {
    for (const written of this.writes) {
      if (written.device === device && written.fate === "made") written.fate = "kept"
    }
  }

  /** Whether somebody has taken this out of a set, whatever came of it. */
  isTaken(label: string): boolean {
    return this.writes.some(({ takes }) => takes.includes(label))
  }

  /** The device's removal of a label was refused, and is another one from now on. */
  untake(device: string, label: string): void {
    const refused = this.writes.find((written) => written.device === device && written.takes.includes(label))
    if (refused !== undefined) refused.takes = refused.takes.filter((taken) => taken !== label)
  }

  /** Writes of one device to one key, after this one. */
  after(written: Written): ReadonlyArray<Written> {
    return this.writes.slice(this.writes.indexOf(written) + 1).filter(({ device, key, map }) =>
      device === written.device && map === written.map && key === written.key
    )
  }

  /** A record: of what servers have taken, the greatest stamp wins. What crashed in the middle may have come through. */
  record(
    map: string,
    key: string,
    { taken }: Evidence
  ): { readonly least: Taken | undefined; readonly may: Set<string> } {
    const records = taken(map, key)
    const isSure = ({ label }: Taken) => label !== undefined && this.get(label)?.fate === "kept"
    const least = records.filter(isSure).reduce<Taken | undefined>(
      (greatest, each) => greatest === undefined || each.stamp > greatest.stamp ? each : greatest,
      undefined
    )
    return { least, may: new Set(records.map(({ stamp }) => stamp).filter((stamp) => stamp > (least?.stamp ?? ""))) }
  }

  /** A set: what was added, without what was taken out by who had seen it, and for as long as it was to be there. */
  members(map: string, key: string, evidence: Evidence): Expected {
    const must = new Set<string>()
    const may = new Set<string>()
    for (const [at, added] of this.writes.entries()) {
      const { fate, isAgain, label } = added
      if (added.map !== map || added.key !== key || added.what !== "add" || this.get(label) !== added) continue
      // One before it was tried again was another one's.
      const removals = this.#removals(label, this.writes.slice(at), evidence)
      const isRefused = fate === "discarded" || evidence.isRefused(added)
      if ((isRefused && !isAgain) || removals === "some") continue
      may.add(label)
      if (fate === "kept" && !isRefused && removals === "none" && added.ttlMillis === undefined) must.add(label)
    }
    return { must, may }
  }

  /** Whether a label was taken out by some device that isn't refused it. */
  #removals(label: string, writes: ReadonlyArray<Written>, { refusedRemovals }: Evidence): "none" | "perhaps" | "some" {
    const removals = writes.filter(({ takes }) => takes.includes(label))
    const isBeyond = (some: ReadonlyArray<Written>): boolean =>
      some.some(({ device }) => some.filter((each) => each.device === device).length > refusedRemovals(device, label))
    return isBeyond(removals.filter(({ fate }) => fate === "kept")) ? "some" : isBeyond(removals) ? "perhaps" : "none"
  }

  /** A counter: each change once. */
  counted(map: string, evidence: Evidence): Expected {
    const must = new Set<string>()
    const may = new Set<string>()
    for (const counted of this.writes) {
      if (counted.map !== map || counted.what !== "count" || this.get(counted.label) !== counted) continue
      const { fate, isAgain, label } = counted
      const isRefused = fate === "discarded" || evidence.isRefused(counted)
      if (isRefused && !isAgain) continue
      may.add(label)
      if (fate === "kept" && !isRefused) must.add(label)
    }
    return { must, may }
  }
}

/**
 * A counter's changes are powers of two, each used once, with a sign that is known: so a sum of some of them says which, and
 * that each was counted once.
 */
export class Digits {
  readonly #changes: Array<{ readonly label: string; readonly sign: 1 | -1 } | undefined> = Array(50).fill(undefined)
  readonly #roll: (sides: number) => number

  constructor(roll: (sides: number) => number) {
    this.#roll = roll
  }

  get isFull(): boolean {
    return !this.#changes.includes(undefined)
  }

  /** The change of the next label: small ones come after great ones as well as before. */
  next(label: string, sign: 1 | -1): number {
    const free = this.#changes.flatMap((change, digit) => change === undefined ? [digit] : [])
    const digit = free[this.#roll(free.length)]!
    this.#changes[digit] = { label, sign }
    return sign * 2 ** digit
  }

  /** The labels whose changes make a sum; `undefined` when it isn't such a sum. */
  read(sum: number): ReadonlySet<string> | undefined {
    const labels = new Set<string>()
    let rest = BigInt(sum)
    for (const change of this.#changes) {
      if (rest % 2n !== 0n) {
        if (change === undefined) return undefined
        labels.add(change.label)
        rest -= BigInt(change.sign)
      }
      rest /= 2n
    }
    return rest === 0n ? labels : undefined
  }
}
