/** The mutants of this repository. `node packages/testing/run-mutants.mjs` runs them; each must be killed by its test. */
import type { Mutant } from "../src/mutants.ts"

const core = (file: string, test: string) => ({
  file: `packages/core/src/${file}.ts`,
  test: `packages/core/test/${test}.test.ts`
})

const client = (file: string, test: string) => ({
  file: `packages/client/src/${file}.ts`,
  test: `packages/client/test/${test}.test.ts`
})

const server = (file: string, test: string) => ({
  file: `packages/server/src/${file}.ts`,
  test: `packages/server/test/${test}.test.ts`
})

const adapters = (file: string, test: string) => ({
  file: `packages/adapters/src/${file}.ts`,
  test: `packages/adapters/test/${test}.test.ts`
})

/** A fault of core that a test of the client finds. */
const coreByClient = (file: string, test: string) => ({
  file: `packages/core/src/${file}.ts`,
  test: `packages/client/test/${test}.test.ts`
})

/** A fault of core that a test of the server finds. */
const coreByServer = (file: string, test: string) => ({
  file: `packages/core/src/${file}.ts`,
  test: `packages/server/test/${test}.test.ts`
})

/** A fault of the server that a test of the client finds. */
const serverByClient = (file: string, test: string) => ({
  file: `packages/server/src/${file}.ts`,
  test: `packages/client/test/${test}.test.ts`
})

/** A fault that a test with real server processes finds. */
const inProcesses = (file: string, test: string) => ({
  file: `packages/server/src/${file}.ts`,
  test: `packages/testing/test/${test}.test.ts`
})

/** A fault that a test in a real browser finds. */
const inBrowser = (file: string, test: string) => ({
  file: `packages/${file}.ts`,
  test: `packages/testing/test/browser/${test}.test.ts`
})

export const mutants: ReadonlyArray<Mutant> = [
  {
    id: "CLK-1",
    breaks: "the clock follows the wall clock backwards",
    ...core("Timestamp", "Hlc"),
    find: "  wallMillis > last.millis",
    replace: "  wallMillis !== last.millis",
    fails: "issues ever greater stamps, whatever happens to the wall clock"
  },
  {
    id: "CLK-1",
    breaks: "a writer taken over from storage begins below what it has issued",
    ...core("Hlc", "Hlc"),
    find: "      const start = { millis: issuedUpToMillis, counter: Timestamp.counterMax, nodeId }",
    replace: "      const start = { millis: issuedUpToMillis, counter: 0, nodeId }",
    fails: "goes on as the writer that its storage remembers"
  },
  {
    id: "CLK-2",
    breaks: "stamps beyond the drift bound are accepted",
    ...core("Timestamp", "Timestamp"),
    find: "  return ahead > driftMillisMax ? ahead : 0",
    replace: "  return ahead > 2 * driftMillisMax ? ahead : 0",
    fails: "accepts a stamp at the drift bound and refuses one a millisecond beyond"
  },
  {
    id: "CLK-2",
    breaks: "a refused stamp moves the clock",
    ...core("Hlc", "Hlc"),
    find: "      Either.map(Timestamp.receive(last, remote, wallMillis()), (next) => {",
    replace:
      "      Either.map(Timestamp.receive(last = Timestamp.raise(last, remote), remote, wallMillis()), (next) => {",
    fails: "isn't moved by a stamp that it refuses"
  },
  {
    id: "CLK-3",
    breaks: "a node id of any characters counts as one",
    ...core("Timestamp", "Timestamp"),
    find: "const nodeIdGrammar = /^[0-9a-z]{16}$/",
    replace: "const nodeIdGrammar = /^.{16}/",
    fails: "knows a valid stamp from others"
  },
  {
    id: "CLK-3",
    breaks: "an exhausted counter repeats its stamp",
    ...core("Timestamp", "Timestamp"),
    find: "    : { millis: millisAfter(last.millis), counter: 0, nodeId: last.nodeId }",
    replace: "    : { millis: last.millis, counter: last.counter, nodeId: last.nodeId }",
    fails: "moves on to the next millisecond when the counter is used up"
  },
  {
    id: "CLK-3",
    breaks: "a record with a bad node id is accepted",
    ...core("LwwRecord", "LwwRecord"),
    find: "    if (!(byte >= 0x30 && byte <= 0x39) && !(byte >= 0x61 && byte <= 0x7a)) {",
    replace: "    if (byte === 0) {",
    fails: "refuses rows that are too short, of a bad node id or of an unknown kind"
  },
  {
    id: "CLK-4",
    breaks: "node ids are ordered the wrong way round",
    ...core("Timestamp", "Timestamp"),
    find: "    : a.nodeId < b.nodeId",
    replace: "    : a.nodeId > b.nodeId",
    fails: "orders stamps as their text and their bytes"
  },
  {
    id: "CRDT-1",
    breaks: "of two records of one stamp the one that came first stays",
    ...core("LwwMap", "LwwMap"),
    find: "    return compareRanges(record.row, 0, record.row.length, this.#rows.bytesOf(address), start, end)",
    replace: "    return compareRanges(record.row, 0, 24, this.#rows.bytesOf(address), start, start + 24)",
    fails: "whatever the order and repetition of its operations"
  },
  {
    id: "CRDT-1",
    breaks: "of two records of one stamp either may win",
    ...core("LwwRecord", "LwwRecord"),
    find: "    : Value.compareBytes(a.row, b.row)",
    replace: "    : 0",
    fails: "orders records as databases order their rows"
  },
  {
    id: "CRDT-1",
    breaks: "a put beats a delete of the same stamp",
    ...core("LwwRecord", "LwwMap"),
    find: "const DELETE = 0x20",
    replace: "const DELETE = 0x0f",
    fails: "lets a delete win over a put of the same stamp"
  },
  {
    id: "CRDT-1",
    breaks: "the older of two confirmed records stays below a write",
    ...core("LwwMap", "LwwMap"),
    find:
      "      if (base === NOTHING || (base !== SAME && this.#compare(record, base) > 0)) this.#setBase(slot, record)",
    replace: "      if (base === NOTHING) this.#setBase(slot, record)",
    fails: "is what a naive model is after any writes, merges, confirmations and reverts"
  },
  {
    id: "FLOW-3",
    breaks: "the memory of records that are written again and again grows with the writes",
    ...core("internal/RowSlabs", "LwwMap"),
    find: "      const room = Math.min((slab?.bytes.length ?? 0) * 2, this.#alive * roomFactor)",
    replace: "      const room = (slab?.bytes.length ?? 0) * 2",
    fails: "of few records, written again and again, holds a few times what they need"
  },
  {
    id: "FLOW-3",
    breaks: "rows that move count as two, and what a map may hold grows with the writes",
    ...core("internal/RowSlabs", "LwwMap"),
    find: "    this.#alive -= slab.alive",
    replace: "    this.#alive -= 0",
    fails: "of few records, written again and again, holds a few times what they need"
  },
  {
    id: "FLOW-1",
    breaks: "events for who doesn't read pile up until he is cut off",
    ...server("Outbound", "load"),
    find: "    eventsBytesMax: outboundBytesMax / 4,",
    replace: "    eventsBytesMax: outboundBytesMax * 4,",
    fails: "holds next to nothing for those who read, and little for one who doesn't"
  },
  {
    id: "ACK-1",
    breaks: "what is refused overtakes the acknowledgements of what came before it",
    ...server("Outbound", "Session"),
    find: "    if (this.#acknowledged.length > 0) this.#putAcknowledged()",
    replace: "",
    fails: "is acknowledged with those around it, but before whatever else is answered"
  },
  {
    id: "SYNC-1",
    breaks: "the digest leaves the row's content out",
    ...core("MerkleTree", "LwwMap"),
    find: "): void => hashBytes(row, start, end, keyHi, keyLo, out)",
    replace: "): void => hashBytes(row, start, start + 25, keyHi, keyLo, out)",
    fails: "digests values, not only stamps and keys"
  },
  {
    id: "SYNC-1",
    breaks: "a key that is taken out stays in its nodes' hashes",
    ...core("MerkleTree", "MerkleTree"),
    find: "    this.#count(fields[at + KEY_HI]!, -1, -fields[at + DIGEST_HI]!, -fields[at + DIGEST_LO]!)",
    replace: "    this.#count(fields[at + KEY_HI]!, -1, 0, 0)",
    fails: "is after any insertions, updates and removals what it would be if built anew"
  },
  {
    id: "SYNC-1",
    breaks: "an update reaches one lane of the hashes only",
    ...core("MerkleTree", "MerkleTree"),
    find:
      "    this.#count(fields[at + KEY_HI]!, 0, digestHi - fields[at + DIGEST_HI]!, digestLo - fields[at + DIGEST_LO]!)",
    replace: "    this.#count(fields[at + KEY_HI]!, 0, 0, digestLo - fields[at + DIGEST_LO]!)",
    fails: "is after any insertions, updates and removals what it would be if built anew"
  },
  {
    id: "SYNC-1",
    breaks: "writes that aren't confirmed are digested",
    ...core("LwwMap", "LwwMap"),
    find: "      this.#insert(key, record, NOTHING)",
    replace: "      this.#insert(key, record, SAME)",
    fails: "its tree digests confirmed records only"
  },
  {
    id: "SYNC-2",
    breaks: "keys of a leaf that only the asking side has are not offered",
    ...core("MerkleSync", "MerkleSync"),
    find: "    else (hashIsListed ? found.doubtful : found.offers).add(keys[slot]!)",
    replace: "    else if (hashIsListed) found.doubtful.add(keys[slot]!)",
    fails: "finds records that only the asking side has"
  },
  {
    id: "SYNC-2",
    breaks: "partitions that only the peer has are not pulled",
    ...core("MerkleSync", "MerkleSync"),
    find: "    if (root === undefined) found.pulls.push({ partition, path: rootPath })",
    replace: "    if (root === undefined) continue",
    fails: "offers everything to an empty peer, and takes everything into an empty map"
  },
  {
    id: "SYNC-2",
    breaks: "records that the asking side has newer are not offered",
    ...core("MerkleSync", "MerkleSync"),
    find: "    for (const [key] of losers) found.offers.add(key)",
    replace: "    for (const [key] of losers) found.offers.delete(key)",
    fails: "makes any two maps equal"
  },
  {
    id: "SYNC-3",
    breaks: "equal maps are walked",
    ...core("MerkleSync", "MerkleSync"),
    find: "    else if ((root.hi & 0xffff) !== hi || root.lo !== lo) found.nodes.push({ partition, path: rootPath })",
    replace: "    else found.nodes.push({ partition, path: rootPath })",
    fails: "asks as many questions as the tree has levels to find one difference"
  },
  {
    id: "SYNC-3",
    breaks: "a cursor that doesn't move is followed for ever",
    ...core("MerkleSync", "MerkleSync"),
    find: "(isUnder(next.hi, next.lo, path) && (after === undefined || compareCursors(next, after) > 0))",
    replace: "isUnder(next.hi, next.lo, path)",
    fails: "fails with MalformedMessage at answers of no known form"
  },
  {
    id: "SYNC-4",
    breaks: "the walk forgets the pages after the first",
    ...core("MerkleSync", "MerkleSync"),
    find: "      rest = rest.slice(at)",
    replace: "      return",
    fails: "sends records in pages, when it fetches and when it pulls"
  },
  {
    id: "FLOW-2",
    breaks: "a write that `throw` refuses enters all the same",
    ...core("Backpressure", "Backpressure"),
    find: "      if (!this.#slides) return false",
    replace: "      if (!this.#slides) return this.#chunks.at(-1)!.push(item) < 0 * this.#length++",
    fails: "refuses under `throw` when full, tells nobody and changes nothing"
  },
  {
    id: "FLOW-2",
    breaks: "what `drop-oldest` lets go isn't reported",
    ...core("Backpressure", "Backpressure"),
    find: "      this.#listener.onDrop(this.#take())",
    replace: "      this.#take()",
    fails: "lets go of the oldest under `drop-oldest`, and reports it"
  },
  {
    id: "FLOW-2",
    breaks: "the high water mark is told at each write above it",
    ...core("Backpressure", "Backpressure"),
    find: "      this.#high = true",
    replace: "      this.#high = false",
    fails: "tells of each crossing of a water mark once"
  },
  {
    id: "FLOW-4",
    breaks: "reconnecting has no longest delay",
    ...core("Backoff", "Backoff"),
    find: "    Schedule.union(Schedule.spaced(options.cap ?? \"30 seconds\")),",
    replace: "    Schedule.union(Schedule.spaced(\"3 days\")),",
    fails: "waits half a second, then half as much again each time"
  },
  {
    id: "FLOW-4",
    breaks: "all who reconnect do so at once",
    ...core("Backoff", "Backoff"),
    find: "    Schedule.jittered",
    replace: "    (schedule) => schedule",
    fails: "spreads those who wait equally long"
  },
  {
    id: "STO-1",
    breaks: "a commit that fails half-way leaves its first half",
    ...core("StorageAdapter", "Storage"),
    find: "      const known = writes.map(({ key, space, value }) => ({ space, key, value }))",
    replace: "      const known = writes",
    fails: "changes nothing when a commit fails half-way"
  },
  {
    id: "IN-1",
    breaks: "fields that the protocol doesn't know are let pass",
    ...core("Protocol", "Protocol"),
    find: "    if (names.length > expected.length + 1) {",
    replace: "    if (names.length > 1e9) {",
    fails: "refuses a message with a field that it doesn't know"
  },
  {
    id: "IN-1",
    breaks: "a frame isn't scanned before it is unpacked",
    ...core("Protocol", "Protocol"),
    find: "  scanFrame(bytes, scanLimits)",
    replace: "  void scanFrame",
    fails: "refuses MessagePack's extensions, even where they would make a message"
  },
  {
    id: "IN-1",
    breaks: "a record's value is taken unchecked",
    ...core("LwwRecord", "LwwRecord"),
    find: "    Value.validate(row, header)",
    replace: "    void Value.validate",
    fails: "refuses puts without a canonical value"
  },
  {
    id: "ACK-2",
    breaks: "a lower level is taken for PERSISTED",
    ...core("WriteConcern", "WriteConcern"),
    find: "  concern === \"REPLICATED\" ? level === \"REPLICATED\" : ranks[level] >= ranks[concern]",
    replace: "  concern === \"REPLICATED\" ? level === \"REPLICATED\" : ranks[level] >= Math.min(2, ranks[concern])",
    fails: "takes each level for itself and what lies below"
  },
  {
    id: "TTL-1",
    breaks: "a value is shown at the moment that it expires",
    ...core("LwwMap", "LwwMap"),
    find: "    return expiresAt === 0 || expiresAt > this.#now()",
    replace: "    return expiresAt === 0 || expiresAt >= this.#now()",
    fails: "hides a value from the moment that it expires"
  },
  {
    id: "CLK-1",
    breaks: "a writer that starts again forgets how far its stamps may have come",
    ...client("Replica", "Journal"),
    find: "  hlc.unsafeAdopt(known.nodeId, reserved.millis)",
    replace: "  hlc.unsafeAdopt(known.nodeId, 0)",
    fails: "never issues a stamp again, be there nothing left of it but the reservation"
  },
  {
    id: "CLK-1",
    breaks: "what is sent again leaves before its stamps are reserved",
    ...client("SyncEngine", "Journal"),
    find: "        yield* reservedFor(operations)",
    replace: "        void reservedFor",
    fails: "lets nothing leave beyond what is reserved, on no later connection either"
  },
  {
    id: "CONV-3",
    breaks: "a change that a listener makes is told of before the one it hears of",
    ...client("Announcements", "Replica"),
    find: "    if (telling) return",
    replace: "    void telling",
    fails: "hear of changes in their order, though one of them writes"
  },
  {
    id: "OPL-2",
    breaks: "an operation ends with its acknowledgement, durable or not",
    ...client("Outbox", "Outbox"),
    find: "        if (isFinal || operation.offered) {",
    replace: "        if (isFinal || operation.stage === \"flight\") {",
    fails: "lets an operation go for its own durable acknowledgement or rejection, and for nothing else"
  },
  {
    id: "OPL-2",
    breaks: "a durable mark ends what was never acknowledged",
    ...client("Outbox", "Outbox"),
    find: "        if (operation.sequence > sequence || !operation.acked) continue",
    replace: "        if (operation.sequence > sequence) continue",
    fails: "lets an operation go for its own durable acknowledgement or rejection, and for nothing else"
  },
  {
    id: "OPL-4",
    breaks: "one map that is refused ends the connection each time",
    ...client("MapSync", "SyncEngine"),
    find: "          Effect.catchTag(reconciled, \"Refusal\", ({ cause, reason }) =>",
    replace: "          Effect.catchTag(reconciled, \"\" as never, ({ cause, reason }: Record<string, string>) =>",
    fails: "doesn't depend on one map that the server refuses to open"
  },
  {
    id: "OPL-4",
    breaks: "a connection that went silent is kept",
    ...client("SyncEngine", "SyncEngine"),
    find: "      silentMillis += Protocol.pingMillis",
    replace: "      silentMillis += 0",
    fails: "that went silent is noticed though the wall clock was set back"
  },
  {
    id: "OPL-5",
    breaks: "a refused write stays visible",
    ...client("Replica", "Outbox"),
    find: "apply(map, cells.revert(cell, remaining?.record), cell, \"local\")",
    replace: "undefined",
    fails: "gives way to a refusal anywhere: told of once, undone, and the others go on"
  },
  {
    id: "OPL-5",
    breaks: "a refusal takes the writes before it along",
    ...client("Outbox", "Outbox"),
    find: "    listener.onUndone(operation, remaining, failure)",
    replace: "    listener.onUndone(operation, undefined, failure)",
    fails: "drops back to the write before, where that one is still on its way"
  },
  {
    id: "FLOW-2",
    breaks: "who waits for room when the client closes waits for ever",
    ...client("Outbox", "Outbox"),
    find: "      line.close()",
    replace: "      void line.close",
    fails: "refuses those who wait for room when the client closes"
  },
  {
    id: "FLOW-2",
    breaks: "an update that throws when there is room takes the operations before it along",
    ...client("Writing", "Outbox"),
    find: "        write.admit(isRefusal(fault) ? Exit.fail(fault) : Exit.die(fault))",
    replace: "        throw fault",
    fails: "sends what it took, though an update that waited for room throws"
  },
  {
    id: "FLOW-4",
    breaks: "a state has no exit",
    ...client("SyncState", "SyncEngine"),
    find: "  ERROR: { connect: \"CONNECTING\", disconnect: \"DISCONNECTED\" }",
    replace: "  ERROR: {}",
    fails: "leads from every state to every other"
  },
  {
    id: "FLOW-4",
    breaks: "who wants a connection while one is being ended gets none",
    ...client("SyncEngine", "SyncEngine"),
    find: "    connect: inTurn(connect),",
    replace: "    connect,",
    fails: "comes back when it's ended and wanted again at once"
  },
  {
    id: "FLOW-4",
    breaks: "a client is CONNECTED before its log is drained",
    ...client("SyncEngine", "Outbox"),
    find: "          yield* progress.until(() => outbox.isDrained(bound))",
    replace: "          yield* progress.until(() => true || outbox.isDrained(bound))",
    fails: "lets an operation go for its own durable acknowledgement or rejection, and for nothing else"
  },
  {
    id: "ACK-2",
    breaks: "a write that was sent is taken for one that never was",
    ...client("Outbox", "TopGunClient"),
    find: "    isSent(waiter.sequence)",
    replace: "    !isSent(waiter.sequence)",
    fails: "of a write that was sent and not answered: indeterminate"
  },
  {
    id: "CRDT-2",
    breaks: "a removal leaves all tags of the value but one",
    ...core("OrMap", "OrMap"),
    find: "    for (const tombstone of tombstones) this.merge(key, tombstone)",
    replace: "    for (const tombstone of tombstones.slice(0, 1)) this.merge(key, tombstone)",
    fails: "removes all tags of a value that it has seen, and nothing of another value or key"
  },
  {
    id: "CRDT-2",
    breaks: "a removal takes all values of the key",
    ...core("OrMap", "OrMap"),
    find:
      "      .filter((record) => !record.isTombstone && (valueBytes === undefined || this.#isOf(record, valueBytes)))",
    replace: "      .filter((record) => !record.isTombstone)",
    fails: "shows the additions less the removals that a replica has seen"
  },
  {
    id: "CRDT-2",
    breaks: "an addition that comes after its removal undoes it",
    ...core("LwwRecord", "OrMap"),
    find: "const DELETE = 0x20",
    replace: "const DELETE = 0x0f",
    fails: "doesn't show an addition that arrives after its removal"
  },
  {
    id: "CRDT-3",
    breaks: "of two additions under one tag the one that came first stays",
    ...core("LwwMap", "OrMap"),
    find: "    return compareRanges(record.row, 0, record.row.length, this.#rows.bytesOf(address), start, end)",
    replace: "    return compareRanges(record.row, 0, 25, this.#rows.bytesOf(address), start, start + 25)",
    fails: "decides between two additions under one tag by their bytes, the same way everywhere"
  },
  {
    id: "CRDT-3",
    breaks: "two nodes' tags of one moment are taken for one",
    ...core("OrMap", "OrMap"),
    find: "export const cellOf = (key: string, stamp: Timestamp.Timestamp): string => Timestamp.format(stamp) + key",
    replace:
      "export const cellOf = (key: string, stamp: Timestamp.Timestamp): string => Timestamp.format({ ...stamp, nodeId: \"0\".repeat(16) }) + key",
    fails: "keeps the tags of one moment by different nodes apart"
  },
  {
    id: "CRDT-4",
    breaks: "fields are encoded in the order in which an object has them",
    ...core("internal/fieldOrder", "Value"),
    find: "names.sort(compareNames)",
    replace: "names",
    fails: "has the same bytes whatever the order of its fields"
  },
  {
    id: "CRDT-4",
    breaks: "-0 comes back as 0",
    ...core("internal/valueWriter", "Value"),
    find: "  if (value >= 0 && value <= 0xffffffff && value >>> 0 === value && !Object.is(value, -0)) {",
    replace: "  if (value >= 0 && value <= 0xffffffff && value >>> 0 === value) {",
    fails: "comes back as it was"
  },
  {
    id: "CRDT-4",
    breaks: "a set holds equal objects of another order of fields twice",
    ...core("internal/fieldOrder", "OrMap"),
    find: "names.sort(compareNames)",
    replace: "names",
    fails: "takes values for one when their canonical bytes are, whatever the order of their fields"
  },
  {
    id: "CRDT-4",
    breaks: "a counter's totals lose the bits above the 32nd",
    ...core("PnCounter", "PnCounter"),
    find: "    rest = Math.floor(rest / 256)",
    replace: "    rest = rest >>> 8",
    fails: "comes back from its row as it was"
  },
  {
    id: "CRDT-1",
    breaks: "of a node's rows one with more decrements alone doesn't win",
    ...core("PnCounter", "PnCounter"),
    find: "    const change = this.cells.merge(cellOf(this.name, row), row)",
    replace:
      "    const change = (this.getRow(row.nodeId)?.increments ?? -1) >= row.increments ? undefined : this.cells.merge(cellOf(this.name, row), row)",
    fails: "counts each change that a replica has heard of once"
  },
  {
    id: "CRDT-1",
    breaks: "a counter's row is refused for what the sum of all rows is by then",
    ...core("PnCounter", "PnCounter"),
    find: "    const change = this.cells.merge(cellOf(this.name, row), row)",
    replace:
      "    const change = this.#exact() + netOf(row) > VALUE_MAX ? undefined : this.cells.merge(cellOf(this.name, row), row)",
    fails: "whatever the order and repetition of its operations"
  },
  {
    id: "SYNC-1",
    breaks: "a removal doesn't reach the digest of its tag",
    ...core("LwwMap", "OrMap"),
    find: "      this.tree.update(fields[at + PARTITION]!, slot, hash.hi, hash.lo)",
    replace: "",
    fails: "has the digest and counts of a map built anew, after any records and prunings"
  },
  {
    id: "TTL-1",
    breaks: "a value of a set is shown after it has expired",
    ...core("OrMap", "OrMap"),
    find: "    const visible = cells.filter((cell) => this.cells.has(cell))",
    replace: "    const visible = cells.filter((cell) => !this.cells.getRecord(cell)!.isTombstone)",
    fails: "hides a value from the moment that it expires, and keeps its record and digest"
  },
  {
    id: "TTL-1",
    breaks: "what was read of a set before a value expired is shown again",
    ...core("OrMap", "OrMap"),
    find: "shown.revision === this.cells.revision && !this.cells.hasExpiring) return",
    replace: "shown.revision === this.cells.revision) return",
    fails: "hides a value from the moment that it expires, and keeps its record and digest"
  },
  {
    id: "IN-1",
    breaks: "a counter's row with a bad node id is accepted",
    ...core("PnCounter", "PnCounter"),
    find: "  if (!Timestamp.isNodeId(read.nodeId)) {",
    replace: "  if (read.nodeId === \"\") {",
    fails: "refuses rows of another length, kind or node id, with a time, and totals beyond the safe integers"
  },
  {
    id: "IN-2",
    breaks: "a field named __proto__ becomes the value's prototype",
    ...core("internal/valueReader", "OrMap"),
    find:
      "  if (isInherited) Object.defineProperty(object, text, { value, configurable: true, enumerable: true, writable: true })",
    replace:
      "  if (text === \"\") Object.defineProperty(object, text, { value, configurable: true, enumerable: true, writable: true })",
    fails: "keeps names of Object.prototype as plain keys, values and fields"
  },
  {
    id: "SYNC-2",
    breaks: "what one half of the hashes hides is never looked for in the other",
    ...core("MerkleSync", "MerkleSync"),
    find: "  if (foundNothing(found)) yield* walk(first === 0 ? 1 : 0)",
    replace: "",
    fails: "finds by the other lane what one lane can't tell apart"
  },
  {
    id: "SYNC-2",
    breaks: "a key is taken for the peer's other one of its hash",
    ...core("MerkleSync", "MerkleSync"),
    find: "  for (const key of found.doubtful) found.offers.add(key)",
    replace: "",
    fails: "offers a key though the peer has another of its hash, and nothing that the peer has too"
  },
  {
    id: "SYNC-3",
    breaks: "hashes travel with both lanes",
    ...core("MerkleSync", "MerkleSync"),
    find: "      if ((present >>> digit & 1) === 1) writer.lane(children[digit * childFields + 1 + lane]!)",
    replace:
      "      if ((present >>> digit & 1) === 1) { writer.lane(children[digit * childFields + 1 + lane]!); writer.lane(0) }",
    fails: "finds 100 differences among 100,000 keys by less than 17 kB"
  },
  {
    id: "CRDT-1",
    breaks: "a base that moved in memory is lost",
    ...core("LwwMap", "LwwMap"),
    find: "    this.#keys.fields[at + (this.#keys.fields[at + ROW] === from ? ROW : BASE)] = to",
    replace: "    this.#keys.fields[at + ROW] = to",
    fails: "is what a naive model is after any writes, merges, confirmations and reverts"
  },
  {
    id: "CRDT-1",
    breaks: "a revert keeps the write that it takes back",
    ...core("LwwMap", "LwwMap"),
    find: "    this.#place(slot, base)",
    replace: "",
    fails: "is what a naive model is after any writes, merges, confirmations and reverts"
  },
  {
    id: "CLK-3",
    breaks: "after the last stamp there is comes the first",
    ...core("Timestamp", "Timestamp"),
    find: "  if (millis >= millisMax) throw new RangeError(",
    replace: "  if (false) throw new RangeError(",
    fails: "has none after the greatest: that is told, not wrapped around"
  },
  {
    id: "CLK-5",
    breaks: "a device whose clock was wrong keeps its stamps under its new id",
    ...core("Hlc", "Hlc"),
    find: "      last = nodeId === last.nodeId ? Timestamp.raise(last, start) : start",
    replace: "      last = Timestamp.raise({ ...last, nodeId }, start)",
    fails: "wins over nobody, moves nobody's clock, and is forgotten under a new node id once it is right"
  },
  {
    id: "CLK-5",
    breaks: "a stamp from the future moves the clock of who judges it",
    ...core("Hlc", "Hlc"),
    find: "      Either.map(Timestamp.receive(last, remote, wallMillis()), (next) => {",
    replace: "      Either.map(Timestamp.receive(last, remote, wallMillis() + 10 ** 9), (next) => {",
    fails: "wins over nobody, moves nobody's clock, and is forgotten under a new node id once it is right"
  },
  {
    id: "CLK-1",
    breaks: "who becomes the writer that it is already may step back",
    ...core("Hlc", "Hlc"),
    find: "      last = nodeId === last.nodeId ? Timestamp.raise(last, start) : start",
    replace: "      last = start",
    fails: "takes no step back as the writer that it is already"
  },
  {
    id: "CLK-4",
    breaks: "the counter comes before the millis in a row",
    ...coreByServer("LwwRecord", "RowOrder"),
    find: "  a.millis !== b.millis",
    replace: "  a.counter !== b.counter ? a.counter - b.counter : a.millis !== b.millis",
    fails: "orders and merges records as memory does"
  },
  {
    id: "CLK-4",
    breaks: "a stamp's text has no fixed width",
    ...coreByServer("Timestamp", "RowOrder"),
    find: ".padStart(12, \"0\")",
    replace: "",
    fails: "orders the text of stamps as memory does stamps"
  },
  {
    id: "CRDT-1",
    breaks: "of two puts of one stamp memory keeps the lesser value",
    ...coreByServer("LwwRecord", "RowOrder"),
    find: "    : Value.compareBytes(a.row, b.row)",
    replace: "    : Value.compareBytes(b.row, a.row)",
    fails: "orders and merges records as memory does"
  },
  {
    id: "SYNC-3",
    breaks: "what is missing is asked for part by part, however small the parts",
    ...core("MerkleSync", "MerkleSync"),
    find: "  if (mineBelow <= leafKeysMax && missing >= fanout / 2) {",
    replace: "  if (mineBelow < 0) {",
    fails: "asks with one question for a part of the tree of which it has next to nothing"
  },
  {
    id: "IN-1",
    breaks: "one node can be asked for many times in one message",
    ...core("MerkleSync", "MerkleSync"),
    find:
      "    if (before?.partition === partition && compareHashes(hi, lo, before.path.hi, before.path.lo) <= 0) reader.refuse()",
    replace: "",
    fails: "refuses questions of no known form"
  },
  {
    id: "TTL-1",
    breaks: "listeners are told of the expiry of a value that another one has replaced",
    ...coreByClient("ExpiryHeap", "Expiry"),
    find: "      if (this.#isCurrent(first)) due.push(first)",
    replace: "      due.push(first)",
    fails: "lives on when another write takes its place, with that one's lifetime or none"
  },
  {
    id: "TTL-1",
    breaks: "a lifetime counts from the value before",
    ...client("Writing", "Expiry"),
    find: "ttlMs === undefined ? 0 : stamp.millis + ttlMs)",
    replace: "ttlMs === undefined ? 0 : stamp.millis + 2 * ttlMs)",
    fails: "is gone on every device when that has passed, which listeners are told of once"
  },
  {
    id: "FLOW-2",
    breaks: "the status doesn't say that the backlog is low again",
    ...client("SyncStatus", "TopGunClient"),
    find: "        backlog = \"low\"",
    replace: "        backlog = \"high\"",
    fails: "is high from four fifths of the room on until half of it is free, whoever looks"
  },
  {
    id: "STO-1",
    breaks: "memory that keeps a value keeps the whole buffer that it was part of",
    ...core("StorageAdapter", "Storage"),
    find: "      return { key, value: this.#rows.rowAt(address).slice() }",
    replace: "      return { key, value: this.#rows.rowAt(address) }",
    fails: "keeps only the part of a larger buffer that a value is"
  },
  {
    id: "CLK-5",
    breaks: "what was refused while the clock was wrong for a moment stays away",
    ...client("MapSync", "clocks"),
    find: "          if (!takeIn(map, decodeRecords(map, crdt, records))) return false",
    replace: "          if (!takeIn(map, decodeRecords(map, crdt, records))) return true",
    fails: "makes the device catch up with what it refused meanwhile"
  },
  {
    id: "CLK-5",
    breaks: "what was written under a wrong clock keeps its stamps",
    ...client("Restamping", "clocks"),
    find: "  for (const operation of operations) {",
    replace: "  for (const operation of operations.slice(0, 0)) {",
    fails: "ten years ahead writes what everybody gets"
  },
  {
    id: "CLK-5",
    breaks: "a clock that was behind is no reason to stamp anew",
    ...client("SyncEngine", "clocks"),
    find: "      return Math.abs(error) > driftMillisMax ? error : undefined",
    replace: "      return -error > driftMillisMax ? error : undefined",
    fails: "ten years behind writes what everybody gets"
  },
  {
    id: "CLK-5",
    breaks: "the clock's own stamps from beyond the bound raise the new one",
    ...client("Restamping", "clocks"),
    find: "    if (record.millis <= boundMillis) hlc.unsafeRaise(record)",
    replace: "    hlc.unsafeRaise(record)",
    fails: "keeps the order of its writes, and each key's last word"
  },
  {
    id: "CLK-5",
    breaks: "the new stamp of a write that was sent may lose to its old one",
    ...client("Restamping", "clocks"),
    find: "    if (!due.has(operation) || operation.stage === \"flight\") raise(operation.record)",
    replace: "    if (!due.has(operation)) raise(operation.record)",
    fails: "never comes back in place of the one after it"
  },
  {
    id: "CLK-5",
    breaks: "what lost to somebody's later write is written again over it",
    ...client("Restamping", "clocks"),
    find: "(kind !== \"or\" && LwwRecord.compare(confirmed, record) < 0 &&",
    replace: "(kind !== \"or\" && LwwRecord.compare(confirmed, record) !== 0 &&",
    fails: "isn't written again over what others have written after it"
  },
  {
    id: "CLK-5",
    breaks: "stamps anew in the order of the sequence numbers",
    ...client("Restamping", "clocks"),
    find: "operations.slice().sort((a, b) => LwwRecord.compare(a.record, b.record) || a.sequence - b.sequence)",
    replace: "operations.slice().sort((a, b) => a.sequence - b.sequence)",
    fails: "stamps in the order of writing"
  },
  {
    id: "CLK-5",
    breaks: "stamps anew in no order",
    ...client("Restamping", "clocks"),
    find: "operations.slice().sort((a, b) => LwwRecord.compare(a.record, b.record) || a.sequence - b.sequence)",
    replace: "operations.slice().reverse()",
    fails: "keeps the order of its writes, and each key's last word"
  },
  {
    id: "CLK-5",
    breaks: "a lifetime counts from the wrong time",
    ...client("Restamping", "clocks"),
    find: "record.expiresAt === 0 ? 0 : Math.max(1, record.expiresAt + stamp.millis - record.millis)",
    replace: "record.expiresAt",
    fails: "gives a value the lifetime that it was written with"
  },
  {
    id: "CLK-5",
    breaks: "a clock that ran ahead stays there when nothing waits",
    ...client("Replica", "clocks"),
    find: "        if (due.length === 0 && hlc.unsafeLatest().millis <= boundMillis) return Effect.succeed(false)",
    replace: "        if (due.length === 0) return Effect.succeed(false)",
    fails: "of a device whose stamps ran ahead writes at once"
  },
  {
    id: "CLK-5",
    breaks: "a refused stamp is a rejected write at once",
    ...client("SyncEngine", "clocks"),
    find: "message.cause === \"ClockSkewTooLarge\" && outbox.tooEarly(message.sequence)",
    replace: "false",
    fails: "back and forth and right again"
  },
  {
    id: "CLK-5",
    breaks: "a refused stamp is tried again for ever",
    ...client("Outbox", "clocks"),
    find: "operation.offered || operation.early) return false",
    replace: "operation.offered) return false",
    fails: "gets each write twice, and then it is a rejected one"
  },
  {
    id: "CLK-5",
    breaks: "a clock that is set goes unnoticed until somebody writes",
    ...client("SyncEngine", "clocks"),
    find: "          const error = isCorrected ? errorOf(message.serverMillis) : undefined",
    replace: "          const error = undefined as number | undefined",
    fails: "is noticed, and the status says by how much it differs"
  },
  {
    id: "CLK-6",
    breaks: "a new writer's name isn't kept",
    ...client("Journal", "clocks"),
    find: "      stageRow({ space: spaces.meta, key: nodeIdKey, value: Value.encode(nodeId) })",
    replace: "",
    fails: "goes on under another name, which its stamps and its storage agree on"
  },
  {
    id: "CLK-6",
    breaks: "a new writer goes by the reservation of the one before",
    ...client("Journal", "clocks"),
    find: "      reserved = { millis: 0, sequence: reserved.sequence }",
    replace: "",
    fails: "goes on under another name, which its stamps and its storage agree on"
  },
  {
    id: "CLK-6",
    breaks: "the same writer's time runs back",
    ...client("Replica", "clocks"),
    find: "        return Effect.map(Hlc.makeNodeId, (writer) => {",
    replace: "        return Effect.map(Effect.as(Hlc.makeNodeId, hlc.nodeId()), (writer) => {",
    fails: "goes on under another name, which its stamps and its storage agree on"
  },
  {
    id: "CLK-6",
    breaks: "a reservation of the writer before counts for the new one",
    ...client("Journal", "Journal"),
    find: "      if (reservation !== undefined && writer === writers) reserved = reservation",
    replace: "      if (reservation !== undefined) reserved = reservation",
    fails: "reserves for a new writer, whatever was under way for the one before"
  },
  {
    id: "CLK-5",
    breaks: "operations in the log keep their old stamps",
    ...client("Outbox", "clocks"),
    find: "    restamp: (operation: Pending, record: LwwRecord, cell = operation.cell): void => {",
    replace:
      "    restamp: (operation: Pending, record: LwwRecord, cell = operation.cell): void => { if (operation.record !== record) { operation.record = record; return }",
    fails: "after a crash at any transaction"
  },
  {
    id: "CLK-5",
    breaks: "the record in storage keeps its old stamp",
    ...client("Restamping", "clocks"),
    find: "    if (live === undefined || LwwRecord.compare(live, record) !== 0) continue",
    replace: "    if (live !== undefined) continue",
    fails: "ten years ahead writes what everybody gets"
  },
  {
    id: "CLK-5",
    breaks: "a write that was stamped anew counts as superseded",
    ...client("Write", "clocks"),
    find: "  operation.written !== record && operation.kind",
    replace: "  operation.record !== record && operation.kind",
    fails: "as itself, not as superseded"
  },
  {
    id: "CLK-5",
    breaks: "what goes out under another writer's stamp waits for a reservation for ever",
    ...client("SyncEngine", "clocks"),
    find: "      record.millis <= millis || record.nodeId !== replica.nodeId()",
    replace: "      record.millis <= millis",
    fails: "of what a device has added whose clock was ahead, within bounds, is sent at once"
  },
  {
    id: "CRDT-2",
    breaks: "a removal takes back nothing of what waits to be confirmed",
    ...core("OrMap", "OrMap"),
    find: "      onForgotten: (cell) => this.#forget(cell)",
    replace: "      onForgotten: () => {}",
    fails: "takes back an addition that wasn't confirmed, and of a removal the tags that were"
  },
  {
    id: "CRDT-2",
    breaks: "a tag that comes late stands last among its key's",
    ...core("OrMap", "OrMap"),
    find: "    else cells.splice(placeOf(cells, cell), 0, cell)",
    replace: "    else cells.push(cell)",
    fails: "shows each value once, in the order of its earliest tag, however the tags came"
  },
  {
    id: "CRDT-1",
    breaks: "a counter goes on from what is confirmed, not from what it has counted",
    ...core("PnCounter", "PnCounter"),
    find: "    const record = this.cells.getRecord(nodeId + this.name)",
    replace: "    const record = this.cells.getConfirmed(nodeId + this.name)",
    fails: "goes on from what isn't confirmed yet, and is where it was when that is taken back"
  },
  {
    id: "CRDT-1",
    breaks: "a counter's value is what it was before its rows changed elsewhere",
    ...core("PnCounter", "PnCounter"),
    find: "    if (this.#summed !== this.cells.revision) {",
    replace: "    if (this.#summed < 0) {",
    fails: "counts what isn't confirmed too, digests only what is, and goes back to that"
  },
  {
    id: "SYNC-1",
    breaks: "a tag is in a partition of its own, not in its key's",
    ...core("OrMap", "OrMap"),
    find: "      prefixLength,",
    replace: "",
    fails: "has the tree of an LwwMap of its tags, each in its key's partition"
  },
  {
    id: "SYNC-2",
    breaks: "keys of one hash in two partitions are taken for one page's end",
    ...core("MerkleSync", "MerkleSync"),
    find: "rest.findIndex((want) => want.partition === partition && sameHash(want, next))",
    replace: "rest.findIndex((want) => sameHash(want, next))",
    fails: "tells keys of one hash in several partitions apart, over pages as well"
  },
  {
    id: "SYNC-2",
    breaks: "a page's cursor is taken for one in every partition",
    ...core("MerkleSync", "MerkleSync"),
    find: "        from = undefined",
    replace: "",
    fails: "tells keys of one hash in several partitions apart, over pages as well"
  },
  {
    id: "SYNC-2",
    breaks: "a tag is asked for in the partition of its hash",
    ...core("MerkleSync", "MerkleSync"),
    find: "    writer.uint16(partition)",
    replace: "    writer.uint16(Partition.ofHash(hi, lo) + 0 * partition)",
    fails: "makes any two maps of tags and any two counters equal, cell by cell"
  },
  {
    id: "IN-1",
    breaks: "keys are asked for in partitions that there are not",
    ...core("MerkleSync", "MerkleSync"),
    find: "        if (partition >= Partition.partitionCount) throw refusal(\"the keys asked for\")",
    replace: "",
    fails: "refuses questions of no known form"
  },
  {
    id: "IN-1",
    breaks: "a counter's row is taken under any key",
    ...core("Cell", "Cell"),
    find: "  if (key !== map) throw",
    replace: "  if (key === \"\\u0000\") throw",
    fails: "of a counter has its name for a key, and no other"
  },
  {
    id: "IN-1",
    breaks: "a map is given out as another kind than it is",
    ...core("CrdtStore", "CrdtStore"),
    find: "          if (map.kind !== kind) throw",
    replace: "          if (map.kind === undefined) throw",
    fails: "keeps a map of the kind that it was first used as"
  },
  {
    id: "IN-1",
    breaks: "a kind that nobody knows is let pass",
    ...core("Protocol", "Protocol"),
    find: "const Kind = field(\"Kind\", isMapKind)",
    replace: "const Kind = field(\"Kind\", (value): value is \"lww\" => isText(value) || isMapKind(value))",
    fails: "refuses numbers that are no sequence, hashes that are none, and lists beyond their limits"
  },
  {
    id: "FLOW-2",
    breaks: "who waits for several places enters when there is one",
    ...core("Backpressure", "Backpressure"),
    find: "ring.length() + first.places > options.capacity",
    replace: "ring.length() + 1 > options.capacity",
    fails: "admits who waits for several places when there are so many, and nobody before him"
  },
  {
    id: "ACK-2",
    breaks: "who waits for what became part of a later operation is told of the one before",
    ...core("WriteConcern", "WriteConcern"),
    find: "    this.#bySequence.delete(from)",
    replace: "",
    fails: "lets who waits for an operation wait for the one that it became part of"
  },
  {
    id: "CRDT-1",
    breaks: "the database takes an older record for a newer one",
    ...server("SqliteStore", "Persistence"),
    find: " WHERE excluded.row > records.row`",
    replace: "`",
    fails: "keeps the newer record, in whatever order the two are committed"
  },
  {
    id: "CRDT-1",
    breaks: "PostgreSQL takes an older record for a newer one",
    ...server("PostgresStore", "Persistence"),
    find: " WHERE excluded.row > records.row`",
    replace: "`",
    fails: "keeps the newer record, in whatever order the two are committed"
  },
  {
    id: "CRDT-1",
    breaks: "one statement touches a record twice",
    ...server("PostgresStore", "Persistence"),
    find: "    const id = `${map} ${row.cell}`",
    replace: "    const id = `${map} ${row.cell} ${this.rows.size}`",
    fails: "keeps the newest of the records of one transaction, wherever in it that is"
  },
  {
    id: "CRDT-1",
    breaks: "the last record of a statement is kept for the greatest",
    ...server("PostgresStore", "Persistence"),
    find: "row.record.row, other[1].record.row) <= 0) return",
    replace: "row.record.row, other[1].record.row) > 2) return",
    fails: "keeps the newest of the records of one transaction, wherever in it that is"
  },
  {
    id: "CLU-5",
    breaks: "what is forgotten is forgotten before what came before it",
    ...server("PostgresStore", "Persistence"),
    find: "    records.push(...upsert.takeAll(), {",
    replace: "    records.push({",
    fails: "forgets records as they are and no others, in the order of what comes with them"
  },
  {
    id: "ACK-1",
    breaks: "commits are on the disk when the database's defaults have them there",
    ...server("PostgresStore", "PostgresStore"),
    find: "ELSE 'on' END",
    replace: "ELSE current_setting('synchronous_commit') END",
    fails: "has commits that needn't be on disk asks for such as are"
  },
  {
    id: "ACK-1",
    breaks: "a database that loses what is committed is used",
    ...server("PostgresStore", "PostgresStore"),
    find: "        if (off.length === 0) return",
    replace: "        if (off.length >= 0) return",
    fails: "runs with fsync = off isn't used"
  },
  {
    id: "CLU-5",
    breaks: "a server commits into a database that another has taken",
    ...server("PostgresStore", "PostgresStore"),
    find: "WHERE name = 'owner' AND value = $1 FOR SHARE`",
    replace: "WHERE name = 'owner' AND $1 <> '' FOR SHARE`",
    fails: "is another's commits nothing, over the session that it has had all the time"
  },
  {
    id: "CLU-5",
    breaks: "a server takes a database back that another has taken",
    ...server("PostgresStore", "PostgresStore"),
    find: "    if (taken !== undefined) return taken",
    replace: "",
    fails: "is another's commits nothing, over the session that it has had all the time"
  },
  {
    id: "CLU-5",
    breaks: "a server that was away takes the database from who has it since",
    ...server("PostgresStore", "PostgresStore"),
    find: "own(made, \"split_part(value, '/', 1) = $2\", [server])",
    replace: "own(made, \"$2 <> ''\", [server])",
    fails: "was taken by another while it was out of reach never commits again, and says so"
  },
  {
    id: "CLU-5",
    breaks: "two servers write to one database",
    ...server("PostgresStore", "Persistence"),
    find: "`SELECT pg_try_advisory_lock(${lockKey}) AS locked`",
    replace: "\"SELECT true AS locked\"",
    fails: "is one server's at a time"
  },
  {
    id: "CLU-5",
    breaks: "a lost session is made anew when a write needs it only",
    ...server("PostgresStore", "PostgresStore"),
    find: "    Effect.zipRight(mutex.withPermits(1)(current)),",
    replace: "",
    fails: "ends its session holds it again without a write to need it"
  },
  {
    id: "CLU-5",
    breaks: "a commit into a database that hangs is waited for",
    ...server("PostgresStore", "PostgresStore"),
    find: "        duration: commitTimeout,",
    replace: "        duration: \"1 hour\",",
    fails: "hangs tells the writer after the commit timeout, and saves it when it goes on"
  },
  {
    id: "CLU-5",
    breaks: "a session that hangs keeps the database from its successor",
    ...server("PostgresStore", "PostgresStore"),
    find: "      if (backend !== undefined) yield* ask(made, endBackend, [backend.pid, backend.since])",
    replace: "",
    fails: "holds up a commit ends the session that waits, and goes on over another"
  },
  {
    id: "CLU-5",
    breaks: "what a lost commit has done isn't known to the next session",
    ...server("PostgresStore", "PostgresStore"),
    find: "isOwned ? readMaps(made) : takenByAnother",
    replace: "isOwned ? Effect.void : takenByAnother",
    fails: "is cut off after COMMIT saves a write once, and acknowledges it when that is known"
  },
  {
    id: "CLU-5",
    breaks: "a transaction that was rolled back counts as committed",
    ...server("internal/PostgresSession", "PostgresStore"),
    find: "      if (error) first ??= error",
    replace: "      if (error && first === undefined) return",
    fails: "is read-only says so, and commits nothing until it isn't any more"
  },
  {
    id: "CRDT-2",
    breaks: "a tag is loaded to where nobody looks for it",
    ...server("Partitions", "Durability"),
    find: "          cellsFor(mapFor(name, kind), name, partition).merge(cell, record)",
    replace: "          cellsFor(mapFor(name, kind), name, router.partitionOf(cell)).merge(cell, record)",
    fails: "holds after a restart the tags, removals and totals of maps of every kind, and their kinds"
  },
  {
    id: "CRDT-2",
    breaks: "events of tags go out under their cells",
    ...server("Subscriptions", "Partitions"),
    find: "rows.map(({ cell, record }) => [Cell.keyOf(kind, cell), record.row] as const)",
    replace: "rows.map(({ cell, record }) => [cell, record.row] as const)",
    fails: "of each kind takes writes over a WebSocket, and shows them to those who opened it"
  },
  {
    id: "CRDT-2",
    breaks: "a put is shown as an addition to who opened the map as one of sets",
    ...server("Subscriptions", "Partitions"),
    find: "          if (subscriber === writer || kind !== batch.kind) continue",
    replace: "          if (subscriber === writer) continue",
    fails: "shows nothing to those who opened it as another kind before anyone had written to it"
  },
  {
    id: "SYNC-2",
    breaks: "tags are answered under their cells",
    ...server("Reading", "Partitions"),
    find: "  records.map(([cell, record]) => [keyOf(kind, cell), record.row])",
    replace: "  records.map(([cell, record]) => [kind === undefined ? \"\" : cell, record.row])",
    fails: "of tags is reconciled with a replica both ways, in pages"
  },
  {
    id: "IN-1",
    breaks: "a map is written to as another kind than it has",
    ...server("Partitions", "Partitions"),
    find: "    return map === undefined || map.kind === kind",
    replace: "    return true",
    fails: "keeps the kind of its first write: writes of another are refused"
  },
  {
    id: "ACK-1",
    breaks: "PERSISTED is said before the commit",
    ...server("WriteAcks", "Durability"),
    find: "        if (concern !== \"PERSISTED\") acknowledge(\"APPLIED\")",
    replace: "        acknowledge(concern === \"PERSISTED\" ? \"PERSISTED\" : \"APPLIED\")",
    fails: "acknowledges PERSISTED after the commit only, for a write that lost as well"
  },
  {
    id: "ACK-1",
    breaks: "an atomic batch is called PERSISTED before its commit",
    ...server("WriteAcks", "Durability"),
    find: "        if (concern !== \"PERSISTED\") acknowledge(\"APPLIED\")",
    replace: "        acknowledge(concern === \"PERSISTED\" && atomic !== \"no\" ? \"PERSISTED\" : \"APPLIED\")",
    fails: "commits an atomic batch in one transaction, and acknowledges none of it before"
  },
  {
    id: "ACK-3",
    breaks: "what follows a refused operation has no result",
    ...server("Partitions", "Session"),
    find: "        continue",
    replace: "        break",
    fails: "from too far in the future is refused by itself"
  },
  {
    id: "ACK-3",
    breaks: "a refused operation is acknowledged with the others of its batch",
    ...server("Partitions", "Session"),
    find: "        rejected.push({ sequence, cause: checked._tag, reason: checked.message })",
    replace: "        accepted.push(sequence)",
    fails: "from too far in the future is refused by itself"
  },
  {
    id: "ACK-3",
    breaks: "an atomic batch is taken without what is refused of it",
    ...server("Partitions", "AtomicBatch"),
    find: "        if (\"_tag\" in checked) return refuse(sequence, checked)",
    replace: "        if (\"_tag\" in checked) continue",
    fails: "with one operation that is refused is refused whole, wherever that one stands"
  },
  {
    id: "ACK-3",
    breaks: "of a refused atomic batch what came first stays",
    ...server("Partitions", "AtomicBatch"),
    find: "        if (\"_tag\" in checked) return refuse(sequence, checked)",
    replace: "        if (\"_tag\" in checked) return refuse(sequence, checked); merge(part.map, part.kind, checked)",
    fails: "with one operation that is refused is refused whole, wherever that one stands"
  },
  {
    id: "ACK-3",
    breaks: "of a refused atomic batch one operation alone is told so",
    ...server("Partitions", "AtomicBatch"),
    find: "      rejected: sequences.map((sequence) =>",
    replace: "      rejected: sequences.slice(0, 1).map((sequence) =>",
    fails: "is refused whole for one map of another kind, also where the batch itself would make it twice"
  },
  {
    id: "ACK-3",
    breaks: "an atomic batch makes a map of two kinds",
    ...server("Partitions", "AtomicBatch"),
    find: "      if (other !== kind) return",
    replace: "      if (other === undefined) return",
    fails: "is refused whole for one map of another kind, also where the batch itself would make it twice"
  },
  {
    id: "ACK-3",
    breaks: "each message of an atomic batch is a batch",
    ...server("Session", "AtomicBatch"),
    find: "      if (batch.atomic === \"no\") return this.#carryOut([batch])",
    replace: "      if (batch.atomic !== \"end\") return this.#carryOut([batch])",
    fails: "is one write, whatever its maps and kinds, and however many messages and frames it takes"
  },
  {
    id: "ACK-3",
    breaks: "other messages come between those of an atomic batch",
    ...server("Session", "AtomicBatch"),
    find: "      if (begun !== undefined && !goesOn) return",
    replace: "      if (begun !== undefined && !goesOn && message._tag === \"OpBatch\") return",
    fails: "is given up with its connection when something else comes between"
  },
  {
    id: "FLOW-3",
    breaks: "an atomic batch holds as many bytes as who sends it likes",
    ...server("Session", "AtomicBatch"),
    find: "|| bytes > Protocol.frameBytesMax) {",
    replace: "|| bytes < 0) {",
    fails: "has as many bytes of keys and records as fit into a frame, and no more"
  },
  {
    id: "FLOW-3",
    breaks: "an atomic batch goes on for ever, by messages without operations",
    ...server("Session", "AtomicBatch"),
    find: "      if (batch.ops.length === 0) return",
    replace: "      if (batch.ops.length < 0) return",
    fails: "is given up with its connection when something else comes between"
  },
  {
    id: "FLOW-3",
    breaks: "an atomic batch makes as many maps as it likes",
    ...server("Partitions", "AtomicBatch"),
    find: "    return maps.size + created.size > mapsMax ? fullOfMaps() : undefined",
    replace: "    return undefined",
    fails: "is refused whole where it would make one map more than there may be"
  },
  {
    id: "FLOW-1",
    breaks: "a client that is behind is sent events all the same",
    ...server("Outbound", "Session"),
    find: "    if (this.#host.connection.bufferedBytes() > this.#shared.eventsBytesMax) return false",
    replace: "",
    fails: "costs no more than its room, however many maps and bytes others write"
  },
  {
    id: "FLOW-1",
    breaks: "events go on after a gap, whose cursor hides what was left out",
    ...server("Outbound", "Session"),
    find: "    if (this.#gaps.has(map) || this.offer(event)) return",
    replace: "    if (this.#gaps.get(map) === \"untold\" || this.offer(event)) return",
    fails: "is spared events while it is behind, and is told once to open each map again of which there were any"
  },
  {
    id: "FLOW-1",
    breaks: "a client is told of a gap that it has closed",
    ...server("Reading", "Session"),
    find: "    this.#reader.closeGap(map)",
    replace: "",
    fails: "that opens a map again by itself isn't told to"
  },
  {
    id: "FLOW-1",
    breaks: "a client is told of all its gaps at once",
    ...server("Outbound", "Session"),
    find: "        if (this.#bytes > this.#shared.eventFrameBytes) break",
    replace: "        if (this.#bytes < 0) break",
    fails: "costs no more than its room, however many maps and bytes others write"
  },
  {
    id: "FLOW-1",
    breaks: "a client that doesn't read keeps what waits for it for ever",
    ...server("Outbound", "Session"),
    find: "    const callOff = this.#host.after(this.#shared.drainMillisMax, this.#host.onStuck)",
    replace: "    const callOff = this.#host.after(this.#shared.drainMillisMax, () => {})",
    fails: "is cut off with 1013 when it doesn't read in time, events or answers, and not a moment before"
  },
  {
    id: "FLOW-1",
    breaks: "acknowledgements wait for a client to read its events",
    ...server("Outbound", "Session"),
    find: "    repliesBytesMax: outboundBytesMax / 2,",
    replace: "    repliesBytesMax: outboundBytesMax / 4,",
    fails: "gets acknowledgements and pongs while its events are left out"
  },
  {
    id: "FLOW-1",
    breaks: "a socket that isn't read holds whatever is sent",
    ...server("Gateway", "Gateway"),
    find: "    bufferedBytes: () => raw.writableLength,",
    replace: "    bufferedBytes: () => 0,",
    fails: "cuts off a reader that stops reading, and serves the others meanwhile"
  },
  {
    id: "FLOW-1",
    breaks: "a map with a gap counts as in step",
    ...client("MapSync", "again"),
    find: "          if (synced.delete(map)) onChange()",
    replace: "          if (synced.has(map)) onChange()",
    fails: "opens the map again with its cursor, is not in step meanwhile, and hears of everything"
  },
  {
    id: "FLOW-1",
    breaks: "a gap that comes while a map is reconciled is forgotten",
    ...client("MapSync", "again"),
    find: "          } while (gaps.has(map))",
    replace: "          } while (gaps.size < 0)",
    fails: "while it was opening the map opens it once more, and keeps a cursor that doesn't hide what was left out"
  },
  {
    id: "FLOW-4",
    breaks: "a server that stops has all clients come back at once",
    ...server("Session", "Session"),
    find: "(yield* Random.nextIntBetween(0, spread + 1))",
    replace: "(yield* Random.nextIntBetween(0, 1))",
    fails: "tells each client to come back at another time, the more there are the more spread out"
  },
  {
    id: "FLOW-4",
    breaks: "a client comes back to a server that stops when it likes",
    ...client("SyncEngine", "again"),
    find: "          comeBackMillis === undefined",
    replace: "          comeBackMillis !== null",
    fails: "ms that it's told, in the place of a delay of its own"
  },
  {
    id: "FLOW-4",
    breaks: "a server keeps its clients away for ever",
    ...client("SyncEngine", "again"),
    find: "Math.min(message.retryMillis, comeBackMillisMax)",
    replace: "message.retryMillis",
    fails: "waits no longer than 5 minutes, whatever it's told"
  },
  {
    id: "FLOW-4",
    breaks: "a server that stops doesn't say so before",
    ...server("Gateway", "Gateway"),
    find: "        phase.leaving()",
    replace: "        phase.serves()",
    fails: "says that it will stop before it does: it isn't ready any more, and serves for as long as it's told to"
  },
  {
    id: "AUTH-3",
    breaks: "strangers' messages are kept up to the largest that there is",
    ...server("Gateway", "hostile/frames"),
    find: "    if (bytes > strangersBytesMax) onTooMuch()",
    replace: "    if (bytes < 0) onTooMuch()",
    fails: "is read no further than an Auth is long: a frame for which there is room only later isn't waited for"
  },
  {
    id: "AUTH-3",
    breaks: "strangers of one address take all places",
    ...server("Admission", "Admission"),
    find: "        if (place.strangers >= settings.unauthenticatedPerAddressMax) {",
    replace: "        if (place.strangers < 0) {",
    fails: "that aren't authenticated are counted by address and in all"
  },
  {
    id: "AUTH-3",
    breaks: "who is let in stays a stranger",
    ...server("Admission", "Admission"),
    find: "          count(-1)",
    replace: "          void count",
    fails: "that aren't authenticated are counted by address and in all"
  },
  {
    id: "AUTH-3",
    breaks: "tokens may be guessed in a circle",
    ...server("Admission", "Admission"),
    find: "        if (failed > 0) return",
    replace: "        if (failed < 0) return",
    fails: "are refused to an address whose tokens were, until it has waited"
  },
  {
    id: "AUTH-3",
    breaks: "a client chooses its address itself",
    ...server("ClientAddress", "ClientAddress"),
    find: ".at(-proxies)",
    replace: ".at(0)",
    fails: "believes the nearest proxies, as many as there are, and nothing that the client wrote"
  },
  {
    id: "AUTH-3",
    breaks: "a header names the address though there is no proxy",
    ...server("ClientAddress", "ClientAddress"),
    find: "  const entry = proxies === 0 ? undefined : ",
    replace: "  const entry = ",
    fails: "believes no header where no proxy is said to write it"
  },
  {
    id: "AUTH-3",
    breaks: "a request's body is read",
    ...server("Gateway", "hostile/http"),
    find: "    return refuseWith(413)",
    replace: "    return handler(request, response)",
    fails: "a body that is announced"
  },
  {
    id: "AUTH-3",
    breaks: "any method will do",
    ...server("Gateway", "hostile/http"),
    find: "  if (request.method !== \"GET\" && request.method !== \"HEAD\") return",
    replace: "  if (request.method === \"\") return",
    fails: "DELETE"
  },
  {
    id: "FLOW-3",
    breaks: "a user has as many connections as he likes",
    ...server("Admission", "Admission"),
    find: "            if (users.entry(userId).connections >= settings.connectionsPerUserMax) {",
    replace: "            if (users.entry(userId).connections < 0) {",
    fails: "of one user are counted wherever they come from; a device that comes again takes its own place"
  },
  {
    id: "FLOW-3",
    breaks: "an address has as many connections as it likes",
    ...server("Admission", "Admission"),
    find: "        if (place.connections >= settings.connectionsPerAddressMax) {",
    replace: "        if (place.connections < 0) {",
    fails: "of one address are counted, over IPv6 by network; another's aren't, and one that ends makes room"
  },
  {
    id: "FLOW-3",
    breaks: "a connection that ends keeps its place",
    ...server("Admission", "Admission"),
    find: "    if (entry === undefined || --entry.connections > 0) return",
    replace: "    if (entry === undefined || entry.connections > 0) return",
    fails: "of one address are counted, over IPv6 by network; another's aren't, and one that ends makes room"
  },
  {
    id: "FLOW-3",
    breaks: "an address connects as often as it likes",
    ...server("Admission", "Admission"),
    find: "        place.connects.take(1, now())",
    replace: "        place.connects.take(0, now())",
    fails: "of one address come at a rate, and are told when to come again"
  },
  {
    id: "FLOW-3",
    breaks: "a user's operations aren't counted",
    ...server("Session", "Admission"),
    find: "          this.#seat.spend(message.ops.length)",
    replace: "          this.#seat.spend(0)",
    fails: "of a user have a rate on whichever connection: who writes more isn't read until then, and loses nothing"
  },
  {
    id: "FLOW-3",
    breaks: "connecting again begins a new count",
    ...server("Admission", "Admission"),
    find: "    this.#held.delete(key)",
    replace: "    if (this.#held.delete(key)) return",
    fails: "aren't had sooner by connecting again"
  },
  {
    id: "FLOW-3",
    breaks: "everybody who has ever come is remembered",
    ...server("Admission", "Admission"),
    find: "    if (this.#idle.size <= rememberedMax) return",
    replace: "    if (this.#idle.size > 0) return",
    fails: "of addresses and users is bounded, and doesn't forget who is there"
  },
  {
    id: "FLOW-3",
    breaks: "a clock that is set back fills a bucket",
    ...server("TokenBucket", "TokenBucket"),
    find: "      this.#level = Math.min(this.#rate.burst, this.#level +",
    replace: "      this.#level = Math.max(0, this.#level +",
    fails: "lets through no more than its burst, its rate and one debt, whatever is asked and however the clock is set"
  },
  {
    id: "FLOW-3",
    breaks: "records are made though the memory is used up",
    ...server("Partitions", "Capacity"),
    find: "    let left = isFull ? 0 : capacity",
    replace: "    let left = capacity",
    fails:
      "takes no new records and connections, goes on with those that are there, and takes all again when there is room"
  },
  {
    id: "FLOW-3",
    breaks: "connections are accepted though the memory is used up",
    ...server("Gateway", "Capacity"),
    find: "    if (capacity.isFull()) return",
    replace: "    if (capacity.recordsMax < 0) return",
    fails:
      "takes no new records and connections, goes on with those that are there, and takes all again when there is room"
  },
  {
    id: "FLOW-3",
    breaks: "a batch makes more records than there is room for",
    ...server("Partitions", "Capacity"),
    find: "      left--",
    replace: "      void left",
    fails: "overwrites and removes those, and takes exactly as many as there is room for"
  },
  {
    id: "IN-1",
    breaks: "a handshake of HTTP/1.0 is taken",
    ...server("Gateway", "hostile/handshake"),
    find: "    if (request.httpVersion !== \"1.1\")",
    replace: "    if (request.httpVersion === \"\")",
    fails: "by HTTP/1.0"
  },
  {
    id: "IN-1",
    breaks: "a text frame ends a connection as if all were well",
    ...server("Gateway", "hostile/frames"),
    find: "    if (!isBinary) return close(Protocol.closeCodes.malformed,",
    replace: "    if (!isBinary) return close(Protocol.closeCodes.done,",
    fails: "a text"
  },
  {
    id: "IN-1",
    breaks: "a request waits to be asked for its body",
    ...server("Gateway", "hostile/http"),
    find: "  server.on(\"checkContinue\", handler)",
    replace: "",
    fails: "a body that waits for a word"
  },
  {
    id: "CLK-6",
    breaks: "whoever names a device is it",
    ...server("Devices", "Devices"),
    find: "if (shown < 0 || (known?.userId",
    replace: "if ((known?.userId",
    fails: "tell a copy from its original, whichever comes second"
  },
  {
    id: "CLK-6",
    breaks: "the secret before the stored one still lets a copy in",
    ...server("Devices", "Devices"),
    find: "devices.set(nodeId, { ...known, secrets: known.secrets.slice(stored) })",
    replace: "devices.set(nodeId, { ...known })",
    fails: "let nobody in by a secret that is replaced"
  },
  {
    id: "CLK-6",
    breaks: "a device that died before it said what it had stored is taken for a copy",
    ...server("Devices", "Devices"),
    find: "const later = known?.secrets.slice(shown + 1).slice(2 - secretsMax) ?? []",
    replace: "const later: ReadonlyArray<string> = []",
    fails: "let a device in by any that it may have stored since the one that it showed"
  },
  {
    id: "CLK-6",
    breaks: "a copy goes on counting in its original's name",
    ...client("Restamping", "copies"),
    find: "PnCounter.totals(writer, increments - before.increments, decrements - before.decrements)",
    replace: "PnCounter.totals(former, increments, decrements)",
    fails: "becomes a device of its own, and nothing that either wrote is lost"
  },
  {
    id: "CLK-6",
    breaks: "a copy's additions keep tags that its original has given too",
    ...client("Restamping", "copies"),
    find: "    ({ counter, millis }) => ({ millis, counter, nodeId: writer }),",
    replace: "    ({ counter, millis }) => ({ millis, counter, nodeId: former }),",
    fails: "becomes a device of its own, and nothing that either wrote is lost"
  },
  {
    id: "CLK-6",
    breaks: "a copy writes what it had waiting as of now",
    ...client("Restamping", "copies"),
    find: "    ({ counter, millis }) => ({ millis, counter, nodeId: writer }),",
    replace: "    () => hlc.unsafeTick(),",
    fails: "over nothing that the original wrote later"
  },
  {
    id: "SYNC-3",
    breaks: "a device gets back what it has written itself",
    ...server("Reading", "Changes"),
    find: "      record.nodeId !== this.#reader.nodeId() || (kind === \"or\" && record.isTombstone)",
    replace: "      record !== undefined || kind === \"or\"",
    fails: "gets what has changed since, and not what it has written itself"
  },
  {
    id: "SYNC-4",
    breaks: "changes that are forgotten count as none",
    ...server("Changes", "Changes"),
    find: "      if (at <= this.#count - this.#max || cells.size >= limit) return undefined",
    replace: "      if (at <= this.#count - this.#max || cells.size >= limit) return cells",
    fails: "are those since a number, each cell once, or unknown, whatever was written"
  },
  {
    id: "SYNC-4",
    breaks: "numbers of another run of the server count as its own",
    ...server("Reading", "Changes"),
    find: "    if (cursor?.[0] !== this.#shared.partitions.run) return undefined",
    replace: "    if (cursor === null) return undefined",
    fails: "gets what has changed since, and not what it has written itself"
  },
  {
    id: "SYNC-4",
    breaks: "a mark moves before its map is in step",
    ...client("MapSync", "marks"),
    find: "        if (synced.has(map)) markTold(map)",
    replace: "        markTold(map)",
    fails: "in storage says nothing that isn't there"
  },
  {
    id: "SYNC-4",
    breaks: "a mark is written with the first part of what it says",
    ...client("Journal", "Journal"),
    find: "      if (staged.remote.size > 0) staged.marks.add(map)",
    replace: "      if (staged.remote.size < 0) staged.marks.add(map)",
    fails: "tells a write that it is durable, however much is merged from the server meanwhile"
  },
  {
    id: "SYNC-4",
    breaks: "the changes since a mark are believed without looking at the roots",
    ...client("MapSync", "marks"),
    find:
      "            return isEqual(merged, root) ? Effect.succeed(undefined) : compareRoots(map, crdt, merged, undefined)",
    replace:
      "            return merged.length > 0 ? Effect.succeed(undefined) : compareRoots(map, crdt, merged, undefined)",
    fails: "is none the worse for a mark that lies"
  },
  {
    id: "SYNC-5",
    breaks: "a reset takes along what is on its way",
    ...client("Replica", "resync"),
    find: "      const change = cells.revert(cell, outbox.pendingRecord(name, cell))",
    replace: "      const change = cells.revert(cell)",
    fails: "shows no reader an empty map meanwhile"
  },
  {
    id: "SYNC-5",
    breaks: "a reset drops nothing",
    ...client("Replica", "resync"),
    find: "      if (has.has(cell) || present === undefined || LwwRecord.compare(present, record) !== 0) continue",
    replace: "      if (has.size >= 0 || present === undefined || LwwRecord.compare(present, record) !== 0) continue",
    fails: "takes its maps over anew, and keeps what it hasn't sent"
  },
  {
    id: "SYNC-5",
    breaks: "a reset empties the map first",
    ...client("MapSync", "resync"),
    find: "        const before = new Map(crdt.cells.confirmed())",
    replace: "        const before = new Map(crdt.cells.confirmed()); replica.dropLost(map, before, new Set())",
    fails: "shows no reader an empty map meanwhile"
  },
  {
    id: "FLOW-4",
    breaks: "a device tries to connect without a network",
    ...client("SyncEngine", "NetworkEvents"),
    find: "      if (network.isOnline()) {",
    replace: "      if (network !== undefined) {",
    fails: "spends no tries while there is none, be it from the start"
  },
  {
    id: "FLOW-4",
    breaks: "a flapping network is a storm of connections",
    ...client("SyncEngine", "NetworkEvents"),
    find: "const triesMillisMin = 1_000",
    replace: "const triesMillisMin = 10",
    fails: "tries once a second at most, and leaks nothing"
  },
  {
    id: "FLOW-4",
    breaks: "a page that is closed still hears of its network",
    ...client("NetworkEvents", "NetworkEvents"),
    find: "        platform.removeEventListener?.(\"online\", onOnline)",
    replace: "        void platform.removeEventListener",
    fails: "are heard until nobody wants to"
  },
  {
    id: "CONV-1",
    breaks: "what others write is taken note of, and not merged",
    ...client("MapSync", "model"),
    find: "          if (!takeIn(map, decodeRecords(map, crdt, records))) return false",
    replace: "          if (!takeIn(map, decodeRecords(map, crdt, records).slice(1))) return false",
    fails: "keep what they promise, whatever happens"
  },
  {
    id: "CONV-2",
    breaks: "what a walk finds missing on the server isn't offered",
    ...client("Outbox", "model"),
    find: "      for (const cell of cells) offer(map, kind, cell)",
    replace: "      for (const cell of cells.slice(1)) offer(map, kind, cell)",
    fails: "keep what they promise, whatever happens"
  },
  {
    id: "CONV-3",
    breaks: "what was refused stays in sight of listeners",
    ...client("Replica", "model"),
    find: "apply(map, cells.revert(cell, remaining?.record), cell, \"local\")",
    replace: "apply(map, void cells.revert(cell, remaining?.record), cell, \"local\")",
    fails: "keep what they promise, whatever happens"
  },
  {
    id: "OPL-1",
    breaks: "a write is durable before its record is",
    ...client("Journal", "Batch"),
    find: "    for (const [map, cells] of batch.local) for (const cell of cells) addWrites(map, cell)",
    replace: "    for (const [map, cells] of batch.local) for (const cell of cells) addCell(staged.remote, map, cell)",
    fails: "after a crash at any transaction of storage is there as a whole, or not at all"
  },
  {
    id: "OPL-3",
    breaks: "what was on its way when a connection ended isn't sent again",
    ...client("SyncEngine", "model"),
    find: "      for (const operations of chunksOf(unanswered)) {",
    replace: "      for (const operations of chunksOf(unanswered.slice(1))) {",
    fails: "keep what they promise, whatever happens"
  },
  {
    id: "OPL-3",
    breaks: "a counter's change is sent before it is stored",
    ...client("SyncEngine", "Counter"),
    find: "      if (operations.some(({ kind, offered }) => kind === \"counter\" && !offered))",
    replace: "      if (operations.some(({ kind, offered }) => kind === \"lww\" && !offered))",
    fails: "sends no change that a crash could still take back"
  },
  {
    id: "CONV-1",
    breaks: "what a refused write stood for isn't offered any more",
    ...client("Outbox", "Outbox"),
    find: "    if (withheld.delete(nameOf(operation.map, operation.cell)))",
    replace: "    if (withheld.has(\"\"))",
    fails: "gets a record again though a later write to it, or count, is refused"
  },
  {
    id: "CONV-3",
    breaks: "a key that changes twice in a step is told of with what nobody has seen",
    ...client("Announcements", "Replica"),
    find: "if (!byKey.has(change.key)) byKey.set(change.key, seenBefore(change, now))",
    replace: "byKey.set(change.key, seenBefore(change, now))",
    fails: "hear once of a key that several records of one step are about"
  },
  {
    id: "CLK-5",
    breaks: "a write loses to what is there by the time that a server tells",
    ...client("Writing", "clocks"),
    find: "      exceed(name, key)",
    replace: "      void key",
    fails: "is no reason for a write to lose to what is there already"
  },
  {
    id: "CRDT-2",
    breaks: "an addition that others have taken out is back under another tag",
    ...client("Restamping", "OrMap"),
    find: "  kind === \"or\" && stage === \"flight\" && record.millis <= boundMillis && record.expiresAt === 0",
    replace: "  kind === \"or\" && stage === \"line\" && record.millis <= boundMillis && record.expiresAt === 0",
    fails: "keeps the tag of an addition that others may have seen"
  },
  {
    id: "OPL-5",
    breaks: "a refused write that is tried again is in its list until that is stored",
    ...client("Drafts", "Outbox"),
    find: "  if (write.isAdmitted) replica.rejected.take(rejected.id)",
    replace: "  if (!write.isAdmitted) replica.rejected.take(rejected.id)",
    fails: "are tried again once, however often one asks"
  },
  {
    id: "TTL-1",
    breaks: "a value that came after its time is told to go",
    ...client("Replica", "Expiry"),
    find: "record.expiresAt > seenAt) expire(",
    replace: "record.expiresAt > 0) expire(",
    fails: "is nothing that a listener hears of when it comes too late"
  },
  {
    id: "STO-1",
    breaks: "what couldn't be stored is forgotten",
    ...client("Journal", "HostileServer"),
    find: "    restore(batch)",
    replace: "    void restore",
    fails: "loses nothing: it is told of, all is sent, and stored later"
  },
  {
    id: "IN-1",
    breaks: "a time that no clock shows is believed",
    ...client("SyncEngine", "HostileServer"),
    find: "      if (serverMillis < 0 || serverMillis > millisMax - driftMillisMax)",
    replace: "      if (serverMillis < -1e300)",
    fails: "says at the handshake that it is"
  },
  {
    id: "ENC-1",
    breaks: "the keys of rows are in the clear",
    ...adapters("internal/RowCipher", "encrypted"),
    find: "toBase64(half) + toBase64(await hmac(text))",
    replace: "toBase64(half) + key",
    fails: "shows nothing of values, keys and names of spaces to who has no key"
  },
  {
    id: "ENC-2",
    breaks: "a row isn't bound to its place",
    ...adapters("internal/RowCipher", "encrypted"),
    find: "  writeText(name, bound, writeText(place, bound, ivAt))",
    replace: "  writeText(name, bound, ivAt)",
    fails: "is none in the place of another, be it of its space or not"
  },
  {
    id: "ENC-2",
    breaks: "a row isn't bound to the name of its storage",
    ...adapters("internal/RowCipher", "encrypted"),
    find: "  writeText(name, bound, writeText(place, bound, ivAt))",
    replace: "  writeText(place, bound, ivAt)",
    fails: "is none under the key of another storage, or another name's with the same keys"
  },
  {
    id: "ENC-2",
    breaks: "what isn't encrypted is taken as it is",
    ...adapters("internal/RowCipher", "encrypted"),
    find: "      if (key === undefined) return unsealed",
    replace: "      if (key === undefined) return Promise.resolve({ key: place, value: stored })",
    fails: "is none when it isn't encrypted, whatever form it has"
  },
  {
    id: "ENC-2",
    breaks: "a row that can't be read hides that it's there",
    ...adapters("encrypted", "encrypted"),
    find: "rows.set(standIn + place, unreadable)",
    replace: "void unreadable",
    fails: "is none, whichever bit of it is turned"
  },
  {
    id: "ENC-3",
    breaks: "a key is used more often than is noted on disk",
    ...adapters("encrypted", "encrypted"),
    find: "    if (used > currentKey(state.ring).reserved) {",
    replace: "    if (used > currentKey(state.ring).reserved + 500) {",
    fails: "is noted on disk before it is spent, whatever fails, and however often it's opened anew"
  },
  {
    id: "ENC-3",
    breaks: "what was used before a crash isn't counted",
    ...adapters("encrypted", "encrypted"),
    find: "      used: currentKey(ring).reserved,",
    replace: "      used: 0,",
    fails: "is noted on disk before it is spent, whatever fails, and however often it's opened anew"
  },
  {
    id: "ENC-3",
    breaks: "a key has no end",
    ...adapters("encrypted", "encrypted"),
    find: "    if (used > 2 * rowsPerKey) {",
    replace: "    if (used > 2e12) {",
    fails: "ends writing when there can be no more keys, which a rotation mends"
  },
  {
    id: "ENC-3",
    breaks: "random numbers that repeat themselves are good enough",
    ...adapters("internal/Randomness", "encrypted"),
    find: "piece.every((byte, i) => byte === last[i])",
    replace: "false",
    fails: "isn't drawn on with random numbers that repeat themselves: nothing is written any more"
  },
  {
    id: "ENC-4",
    breaks: "one round of PBKDF2 is believed to be what was chosen",
    ...adapters("internal/KeyDerivation", "encrypted"),
    find: "Number(value) >= iterationsMin",
    replace: "Number(value) >= 1",
    fails:
      "that asks for fewer rounds than are safe, or more than can be waited for, is refused before a key is derived"
  },
  {
    id: "ENC-4",
    breaks: "a storage whose header is gone begins anew",
    ...adapters("encrypted", "encrypted"),
    find: "    return rows.length > 0 ?",
    replace: "    return rows.length > 9 ?",
    fails: "that is gone, with rows still there, isn't made anew"
  },
  {
    id: "ENC-4",
    breaks: "a second header is overlooked",
    ...adapters("encrypted", "encrypted"),
    find: "    if (others.length > 0 ||",
    replace: "    if (others.length > 9 ||",
    fails: "isn't alone where others have written: neither a second one nor what isn't encrypted is gone over"
  },
  {
    id: "ENC-4",
    breaks: "the old key goes when a part of the rows is under the new one",
    ...adapters("encrypted", "encrypted"),
    find: "    while (after !== undefined)",
    replace: "    while (after === \"\")",
    fails: "of rows encrypts all of them anew, and makes the old key useless"
  },
  {
    id: "ENC-4",
    breaks: "the old key stays when all rows are under the new one",
    ...adapters("encrypted", "encrypted"),
    find: "keys: state.ring.keys.filter(({ id }) => id >= state.ring.outdated)",
    replace: "keys: state.ring.keys",
    fails: "of rows encrypts all of them anew, and makes the old key useless"
  },
  {
    id: "ENC-4",
    breaks: "another passphrase is added to the old one",
    ...adapters("encrypted", "encrypted"),
    find: "    await commitInner(state, [await headerWrite({ ...state, derivation, master })], [])",
    replace: "    void master",
    fails: "to another passphrase is one commit, after which the old one opens nothing"
  },
  {
    id: "STO-1",
    breaks: "a connection that the browser has lost isn't opened again",
    ...adapters("indexeddb", "indexeddb"),
    find: "        if (!isLost(fault) || millis === undefined) throw faultOf(fault, called)",
    replace: "        throw faultOf(fault, called)",
    fails: "does everything once and in order when "
  },
  {
    id: "STO-1",
    breaks: "no room counts as any other trouble",
    ...adapters("indexeddb", "indexeddb"),
    find: "  if (isNamed(fault, \"QuotaExceededError\")) {",
    replace: "  if (isNamed(fault, \"NoSuchError\")) {",
    fails: "says that there is no room, wherever the browser says so"
  },
  {
    id: "STO-1",
    breaks: "where there is no room, what is stored isn't shown either",
    ...adapters("indexeddb", "indexeddb"),
    find: "      if (!isNamed(fault, \"QuotaExceededError\")) throw fault",
    replace: "      throw fault",
    fails: "shows what is stored where there is no room to take it over"
  },
  {
    id: "STO-1",
    breaks: "a database that is opened too late stays open",
    ...adapters("indexeddb", "indexeddb"),
    find: "      opening.then((database) => database.close(), () => {})",
    replace: "      opening.catch(() => {})",
    fails: "gives up opening, and closes what comes too late"
  },
  {
    id: "STO-2",
    breaks: "a client goes on in the empty database that its own was replaced by",
    ...adapters("indexeddb", "indexeddb"),
    find: "          isDeleted = !isNew",
    replace: "          isDeleted = false",
    fails: "makes way for a deletion, and doesn't go on in an empty database"
  },
  {
    id: "STO-2",
    breaks: "the first to open a database that was deleted and made anew counts as its owner before",
    ...adapters("indexeddb", "indexeddb"),
    find: "  return (high! & 0x1f_ffff) * 2 ** 32 + low!",
    replace: "  return Math.min(1, high! + low!)",
    fails: "doesn't take another's database, made after its own was deleted, for its own"
  },
  {
    id: "STO-2",
    breaks: "rows that were deleted count as somebody else's",
    ...adapters("indexeddb", "indexeddb"),
    find: "        if (present.owner === undefined) throw new StorageFault(\"evicted\"",
    replace: "        if (present.owner === undefined) throw new StorageFault(\"superseded\"",
    fails: "takes rows that were deleted under it for what they are"
  },
  {
    id: "STO-2",
    breaks: "what a newer version has written counts as out of order",
    ...adapters("indexeddb", "indexeddb"),
    find: "  if (isNamed(fault, \"VersionError\")) {",
    replace: "  if (isNamed(fault, \"NoSuchError\")) {",
    fails: "leaves what a newer version has written as it is"
  },
  {
    id: "STO-1",
    breaks: "in a browser, a value is stored with the whole buffer that it is a part of",
    ...inBrowser("adapters/src/indexeddb", "storage"),
    find: "value: value && ownOf(value) }))",
    replace: "value }))",
    fails: "keeps only the part of a larger buffer that a value is"
  },
  {
    id: "STO-1",
    breaks: "a client without a storage that it could have done without doesn't open",
    ...coreByClient("Storage", "StorageGuardian"),
    find: "(failure) => adapter.durable && isPassable(failure)",
    replace: "(failure) => !adapter.durable && isPassable(failure)",
    fails: "goes on in memory, and says so: "
  },
  {
    id: "STO-1",
    breaks: "a client goes on in memory beside a storage that isn't for it",
    ...coreByClient("Storage", "StorageGuardian"),
    find: "(failure) => adapter.durable && isPassable(failure)",
    replace: "() => adapter.durable",
    fails: "refuses to be opened, writes nothing and sends nothing"
  },
  {
    id: "STO-1",
    breaks: "nobody is told that a client goes on in memory",
    ...client("Replica", "StorageGuardian"),
    find: "  if (storage.fault !== undefined) found.push(storage.fault)",
    replace: "",
    fails: "goes on in memory, and says so: "
  },
  {
    id: "STO-1",
    breaks: "the fault of a full storage is told of at each try",
    ...client("Replica", "StorageGuardian"),
    find: "      const isNews = fault?._tag !== storageFault?._tag",
    replace: "      const isNews = true",
    fails: "says so to who writes, keeps all in memory, and stores it when there is room"
  },
  {
    id: "STO-1",
    breaks: "a browser is asked not to delete at each write",
    ...client("StorageGuardian", "StorageGuardian"),
    find: "      isAsked = true",
    replace: "      isAsked = false",
    fails: "is asked once not to delete what is stored"
  },
  {
    id: "STO-1",
    breaks: "a browser that never answers isn't asked again",
    ...client("StorageGuardian", "StorageGuardian"),
    find: "  }).pipe(Effect.timeoutOption(answerWithin))",
    replace: "  })",
    fails: "is asked how much room there is, now and then"
  },
  {
    id: "STO-2",
    breaks: "rows of a newer format are read as if they were of this one",
    ...client("Remembered", "StorageGuardian"),
    find: "  if (storedFormat !== undefined && storedFormat !== format && storedFormat !== 1) {",
    replace: "  if (storedFormat !== undefined && storedFormat === -1) {",
    fails: "leaves rows of a newer format as they are"
  },
  {
    id: "STO-2",
    breaks: "storage that was deleted under a client gets only what is written after that",
    ...client("Replica", "StorageGuardian"),
    find: "    renew: Effect.zipRight(storage.reopen, Effect.sync(() => stageAll()))",
    replace: "    renew: storage.reopen",
    fails: "stores all that it has anew, is told of once, and goes on as the same node"
  },
  {
    id: "STO-2",
    breaks: "a write that found its storage deleted isn't promised to be in the new one",
    ...client("Journal", "StorageGuardian"),
    find: "    if (isAgain) postponed = waiters",
    replace: "    if (isAgain) waiters.forEach((each) => Deferred.unsafeDone(each, outcome))",
    fails: "stores all that it has anew, is told of once, and goes on as the same node"
  },
  {
    id: "STO-2",
    breaks: "rejected writes don't come to the new storage",
    ...client("Replica", "StorageGuardian"),
    find: "    rejected.stageAgain()",
    replace: "",
    fails: "keeps its rejected writes"
  },
  {
    id: "STO-2",
    breaks: "an empty storage is taken for that of a new device",
    ...client("Replica", "StorageGuardian"),
    find: "  if (known.isNew && storage.isOwned?.() !== false && guardian.wasThere()) {",
    replace: "  if (known.isNew && !guardian.wasThere()) {",
    fails: "is told of it, becomes another node, and takes everything from the server"
  },
  {
    id: "STO-2",
    breaks: "a logout counts as a deletion",
    ...client("Replica", "StorageGuardian"),
    find: "                if (what !== \"keep\") guardian.isGone()",
    replace: "",
    fails: "is told of nothing after a logout, unless something was kept"
  },
  {
    id: "STO-2",
    breaks: "the new storage has operations whose records come later",
    ...client("Replica", "StorageGuardian"),
    find: "        journal.stageCell(name, cell, isOwn ? \"local\" : \"remote\")",
    replace: "        journal.stageCell(name, cell, isOwn ? \"remote\" : \"remote\")",
    fails: "has all that is unsent in the first transaction, whatever becomes of the device after it"
  },
  {
    id: "IN-1",
    breaks: "an operation's number is believed wherever it is stored",
    ...client("Outbox", "Journal"),
    find: "storageKey(sequence) !== storedAs) return undefined",
    replace: "storageKey(sequence) === \"\") return undefined",
    fails: "of an operation under another's number, or one that nobody gets to, isn't taken for one"
  },
  {
    id: "CLK-1",
    breaks: "a device whose note of issued stamps can't be read begins anew with them",
    ...client("Remembered", "Journal"),
    find: "  return isSound ? { millis, sequence } : undefined",
    replace: "  return isSound ? { millis, sequence } : { millis: 0, sequence: 0 }",
    fails: "of what stamps were issued stops the client where it can't be read"
  },
  {
    id: "IN-1",
    breaks: "what isn't bytes is read as if it were",
    ...adapters("indexeddb", "indexeddb"),
    find: "value: value instanceof Uint8Array ? value : unreadable }",
    replace: "value: value as Uint8Array }",
    fails: "gives nothing that no decoder refuses for what somebody else has put there"
  },
  {
    id: "OPL-1",
    breaks: "in a browser, a write is durable before its record is",
    ...inBrowser("client/src/Journal", "client"),
    find: "    for (const [map, cells] of batch.local) for (const cell of cells) addWrites(map, cell)",
    replace: "    for (const [map, cells] of batch.local) for (const cell of cells) addCell(staged.remote, map, cell)",
    fails: "has what it was said to have, and of each write record and operation or neither"
  },
  {
    id: "STO-1",
    breaks: "in a browser that is full, what couldn't be stored is forgotten",
    ...inBrowser("client/src/Journal", "client"),
    find: "    restore(batch)",
    replace: "    void restore",
    fails: "is never said to have saved what it hasn't, and saves that when it has"
  },
  {
    id: "STO-2",
    breaks: "in a browser that deletes storage, a client keeps in the new one only what is written after that",
    ...inBrowser("client/src/Replica", "client"),
    find: "    renew: Effect.zipRight(storage.reopen, Effect.sync(() => stageAll()))",
    replace: "    renew: storage.reopen",
    fails: "stores all that its pages have anew, be the server away, and loses nothing that is unsent"
  },
  {
    id: "CLK-6",
    breaks: "in a browser, a copied profile goes on as the node that it was copied from",
    ...inBrowser("server/src/Devices", "client"),
    find: "if (shown < 0 || (known?.userId",
    replace: "if ((known?.userId",
    fails: "makes two devices of one, which lose nothing that either wrote"
  },
  {
    id: "CLK-6",
    breaks: "a tab that takes over writes as the one before, which may not know yet that it has lost its part",
    ...client("Mirror", "tabs"),
    find: "        journal.adopt(writer)",
    replace: "        hlc.unsafeAdopt(known.nodeId, hlc.unsafeLatest().millis)",
    fails: "write under node ids of their own, whoever leads"
  },
  {
    id: "CLK-6",
    breaks: "a tab that follows goes on as the node that it was as the leader",
    ...client("Mirror", "tabs"),
    find: "      isFollowing = true",
    replace: "      if (isFollowing ||= true) return yield* outbox.relay((operation) => !journal.isStaged(operation))",
    fails: "write under node ids of their own, whoever leads"
  },
  {
    id: "OPL-1",
    breaks: "a follower is told that its write is durable before it is",
    ...client("TabLeader", "tabs"),
    find: "    run(Effect.match(Effect.suspend(() => taken.stored), {",
    replace: "    run(Effect.match(Effect.void, {",
    fails: "store what a follower writes before it is told so, in the storage of all"
  },
  {
    id: "STO-2",
    breaks: "nobody takes the place of a leader that shows no sign of life",
    ...client("TabFollower", "tabs"),
    find: "      return end(\"silent\")",
    replace: "      continue",
    fails: "have another leader within 5 seconds when theirs is gone ("
  },
  {
    id: "STO-2",
    breaks: "a leader that is put to sleep takes its lock along",
    ...client("TabCoordinator", "tabs"),
    find: "        if (isSuspended) release()",
    replace: "        if (isSuspended) void release",
    fails: "have another leader within 5 seconds when theirs is gone ("
  },
  {
    id: "STO-2",
    breaks: "a leader that has lost its part and doesn't know yet is followed",
    ...client("TabFollower", "tabs"),
    find: "      if (announced.leader.term < options.term()) return",
    replace: "",
    fails: "don't follow one that has lost its part and doesn't know yet"
  },
  {
    id: "STO-2",
    breaks: "a follower's own writes give way to what the leader says before it has stored them",
    ...client("Mirror", "tabs"),
    find: "        const isOwn = own !== undefined &&",
    replace: "        const isOwn = false && own !== undefined &&",
    fails: "show what was written last in them, though the leader hasn't heard of it"
  },
  {
    id: "STO-2",
    breaks: "a follower that doesn't keep up is sent everything",
    ...client("TabLeader", "tabs"),
    find: "    if (session.untaken > untakenMax) session.pages = undefined",
    replace: "    if (session.untaken < 0) session.pages = undefined",
    fails: "begin anew with one that doesn't keep up, and send it no more meanwhile"
  },
  {
    id: "STO-1",
    breaks: "a commit keeps the page from going on until all its rows are handed over",
    ...adapters("indexeddb", "indexeddb"),
    find: "      if (i % rowsAtOnce < rowsAtOnce - 1) continue",
    replace: "      if (i % rowsAtOnce < rowsAtOnce) continue",
    fails: "makes a commit of many rows whole or not at all, and lets the page go on in between"
  },
  {
    id: "STO-1",
    breaks: "large rows come in pages as long as those of small ones",
    ...client("Remembered", "Journal"),
    find: "Math.floor(bytesMax * rows.length / Math.max(bytes, 1))",
    replace: "pageRowsMax + Math.min(bytes, 0)",
    fails: "is read in pages of so many rows and bytes as keep nobody waiting"
  },
  {
    id: "STO-2",
    breaks: "the lock of a tab that hangs is waited for",
    file: "packages/client/src/Tabs.ts",
    test: "packages/testing/test/browser/tabs.test.ts",
    find: "      ? { steal: true }",
    replace: "      ? {}",
    fails: "take over from one that hangs, which goes on as a follower when it runs again"
  },
  {
    id: "STO-1",
    breaks: "what a pack has anew is hidden by rows from before",
    ...client("Packs", "Packs"),
    find: "      writes.push({ space: this.#records, key: cell, value: undefined })",
    replace: "",
    fails: "takes a row for each change, until a pack is worth making anew"
  },
  {
    id: "STO-1",
    breaks: "a record that is gone is back from its pack",
    ...client("Packs", "Packs"),
    find: "    const value = record?.row ?? (this.#packed.has(partition) ? noBytes : undefined)",
    replace: "    const value = record?.row",
    fails: "forgets what is taken back, though it's in its pack"
  },
  {
    id: "STO-2",
    breaks: "a storage with packs can be opened by a version that doesn't know them",
    ...client("Remembered", "Packs"),
    find: "  if (nodeId !== storedNodeId || storedFormat !== format) yield* storage.commit(metaRows({ nodeId }))",
    replace: "  if (nodeId !== storedNodeId) yield* storage.commit(metaRows({ nodeId }))",
    fails: "that an earlier version has stored is read, and packed as it changes"
  },
  {
    id: "CLK-5",
    breaks: "a tab that follows goes by its device's time, however wrong",
    ...client("Mirror", "tabs"),
    find: "    correct: hlc.unsafeCorrect,",
    replace: "    correct: (_: number) => {},",
    fails: "whose device has the wrong time write by the server's, all of them"
  },
  {
    id: "STO-2",
    breaks: "a tab that has slept through a logout writes again what was deleted",
    ...client("Mirror", "tabs"),
    find: "        if ((yield* Remembered.readWipedAt(reader)) >= openedAt) return false",
    replace: "",
    fails: "are logged out together, by any of them, and not over what another has not sent"
  },
  {
    id: "STO-2",
    breaks: "maps that a tab has from the one that led are forgotten with its storage",
    ...client("Replica", "tabs"),
    find: "      for (const [name, { crdt: { kind } }] of maps) {",
    replace: "      for (const [name, { crdt: { kind } }] of Array.from(maps).slice(maps.size)) {",
    fails: "store all anew when the one that led has lost its storage, and its life"
  },
  {
    id: "STO-2",
    breaks: "nothing keeps a former owner out",
    ...adapters("indexeddb", "indexeddb"),
    find: "          owners.add(0, owner)",
    replace: "          owners.put(0, owner)",
    fails: "belongs to who opened it last: who did before changes nothing any more, and is told"
  },
  {
    id: "STO-1",
    breaks: "a page that hangs amid a commit is in the way of all tabs",
    ...adapters("indexeddb", "indexeddb"),
    find: "        if (predecessor === undefined && database === checked) {",
    replace: "        if (Number.isNaN(owner)) {",
    fails: "asks the page for nothing once a commit is begun"
  },
  {
    id: "PERM-2",
    breaks: "what is said of an unresolved reference is false, and true when it is denied",
    ...core("Predicate", "Predicate"),
    find: "  if (operand === undefined) return unknown",
    replace: "  if (operand === undefined) return () => false",
    fails: "opens nothing by a reference that nobody resolves, not even denied"
  },
  {
    id: "PERM-2",
    breaks: "a claim that is null stands for the owner of what nobody owns",
    ...core("Predicate", "Predicate"),
    find: "value !== null && !isFields(value) && !Array.isArray(value)",
    replace: "!isFields(value) && !Array.isArray(value)",
    fails: "takes for unresolved what is nobody's name"
  },
  {
    id: "PERM-2",
    breaks: "a path reads what an object inherits",
    ...core("internal/comparisons", "Predicate"),
    find: "isPlain(value) && Object.hasOwn(value, name) ? value[name] : undefined",
    replace: "isPlain(value) ? value[name] : undefined",
    fails: "reads own fields of plain objects only"
  },
  {
    id: "PERM-2",
    breaks: "what isn't known is true when it is denied",
    ...core("internal/comparisons", "Predicate"),
    find: "  return truth === undefined ? undefined : !truth",
    replace: "  return !truth",
    fails: "says of a value what an interpreter says that is written otherwise"
  },
  {
    id: "QRY-3",
    breaks: "a predicate has any number of conditions",
    ...core("internal/predicateReader", "Predicate"),
    find: "    if (++this.nodes > nodesMax) throw",
    replace: "    if (++this.nodes > Infinity) throw",
    fails: "where it is too much to evaluate"
  },
  {
    id: "QRY-3",
    breaks: "a list has any number of elements",
    ...core("internal/predicateReader", "Predicate"),
    find: "    if (value.length > listMax) throw",
    replace: "    if (value.length > Infinity) throw",
    fails: "where it is too much to evaluate"
  },
  {
    id: "QRY-3",
    breaks: "what is looked for in arrays isn't counted",
    ...core("internal/predicateReader", "Predicate"),
    find: "for (let i = 0; i < list.length; i++) this.count(at)",
    replace: "for (let i = 0; i < 1; i++) this.count(at)",
    fails: "where it is too much to evaluate"
  },
  {
    id: "PERM-1",
    breaks: "a map's changes are counted together with those of others",
    ...server("Changes", "Permissions"),
    find: "    return this.#last.get(map)?.sequence ?? 0",
    replace: "    return this.#last.has(map) ? this.#count : 0",
    fails: "changes no byte that he is sent"
  },
  {
    id: "PERM-1",
    breaks: "tombstones are shown of a map that may be read in part",
    ...server("Access", "Permissions"),
    find: "    if (record.isTombstone) return undefined",
    replace: "    if (record.isTombstone) return record",
    fails: "a user gets the records that he may read, as they change, come and go, and no others"
  },
  {
    id: "PERM-1",
    breaks: "fields that may not be read are shown",
    ...server("Access", "Permissions"),
    find:
      "    return fields === undefined ? value : fields === \"none\" || !isRecord(value) ? undefined : pick(value, fields)",
    replace: "    return fields === \"none\" ? undefined : value",
    fails: "changes no byte that he is sent"
  },
  {
    id: "PERM-1",
    breaks: "the walk of a partial map is that of the whole",
    ...server("Reading", "Permissions"),
    find: "    const source = view ?? this.#shared.partitions.source(map)",
    replace: "    const source = this.#shared.partitions.source(map)",
    fails: "changes no byte that he is sent"
  },
  {
    id: "PERM-1",
    breaks: "a record's stamp tells of changes of its hidden fields",
    ...server("Views", "Permissions"),
    find: "    if (shown !== record && isAlike(shown, this.#cells.getRecord(key))) return undefined",
    replace: "",
    fails: "and a change of them isn't told"
  },
  {
    id: "PERM-2",
    breaks: "where no rule grants, the first does",
    ...server("PermissionPolicy", "PermissionPolicy"),
    find: "        hasRole(roles, principal) && maps.some(",
    replace: "        maps.some(",
    fails: "grants to roles"
  },
  {
    id: "PERM-2",
    breaks: "a role is granted by a part of its name",
    ...server("PermissionPolicy", "PermissionPolicy"),
    find: "(principal.roles ?? []).some((role) => roles.includes(role))",
    replace: "(principal.roles ?? []).some((role) => roles.some((each) => role.includes(each)))",
    fails: "whole names only"
  },
  {
    id: "PERM-2",
    breaks: "a user's id may be anything in the name of a map",
    ...server("PermissionPolicy", "PermissionPolicy"),
    find: "      if (isPlain(attribute)) return attribute",
    replace: "      if (typeof attribute === \"string\") return attribute",
    fails: "into no map's name"
  },
  {
    id: "PERM-2",
    breaks: "what is stored is written over whose ever it is",
    ...server("Access", "PermissionPolicy"),
    find: "before === undefined ? granted : holdingOf(granted, before)",
    replace: "granted",
    fails: "lets nobody take over"
  },
  {
    id: "PERM-2",
    breaks: "what is written may be anybody's",
    ...server("Access", "PermissionPolicy"),
    find: "      if (still.length === 0) return undefined",
    replace: "      if (still.length === 0) return record",
    fails: "lets nobody take over"
  },
  {
    id: "PERM-2",
    breaks: "fields that may not be written are written",
    ...server("Access", "PermissionPolicy"),
    find: "Object.entries(writable === undefined ? after : pick(after, writable))",
    replace: "Object.entries(after)",
    fails: "changes no field that may not be written"
  },
  {
    id: "PERM-2",
    breaks: "writes of an atomic batch are not judged",
    ...server("Partitions", "Permissions"),
    find: "    for (const { access, kind, map } of parts) {",
    replace:
      "    for (const { kind, map, access = undefined } of parts.map((part) => ({ ...part, access: undefined }))) {",
    fails: "an atomic batch with one write that may not be"
  },
  {
    id: "PERM-2",
    breaks: "anybody sees the server's status",
    ...server("Handlers", "Permissions"),
    find: "          policies.current().maySeeStatus(principal)",
    replace: "          true",
    fails: "learns nothing by"
  },
  {
    id: "PERM-3",
    breaks: "who may read no longer is told on",
    ...server("Reading", "Permissions"),
    find: "      if (!isDue(map)) continue",
    replace: "      if (!isDue(map) || map.length > 0) continue",
    fails: "by another policy stops what is told at once"
  },
  {
    id: "PERM-3",
    breaks: "a new token leaves what may be read as it was",
    ...server("Reading", "Permissions"),
    find: "      this.#reopen((map) => before.get(map) !== this.access(map).viewKey)",
    replace: "",
    fails: "by a new token of other roles"
  },
  {
    id: "PERM-3",
    breaks: "views outlive the policy that they show",
    ...server("Session", "Permissions"),
    find: "    views.forget()",
    replace: "",
    fails: "by a policy with other conditions shows what these say"
  },
  {
    id: "PERM-3",
    breaks: "users whose rules are the same share a view, whoever they are",
    ...server("Access", "Permissions"),
    find: "JSON.stringify([grants.read.map(({ rule }) => rule), grants.readBy])",
    replace: "JSON.stringify([grants.read.map(({ rule }) => rule)])",
    fails: "others have their own"
  },
  {
    id: "QRY-3",
    breaks: "nothing is counted that says nothing",
    ...core("internal/predicateReader", "Predicate"),
    find: "    if (nodes.length === 0) this.count(at)",
    replace: "",
    fails: "where it is too much to evaluate"
  },
  {
    id: "QRY-3",
    breaks: "the search that goes through text only once forgets what it has matched",
    ...core("internal/comparisons", "Predicate"),
    find: "    while (next > 0 && part.charCodeAt(next) !== unit) next = borders[next - 1]!",
    replace: "    if (next > 0 && part.charCodeAt(next) !== unit) next = 0",
    fails: "finds long text in text as short text"
  },
  {
    id: "QRY-3",
    breaks: "a word of like's bits doesn't go on in the next",
    ...core("internal/like", "Predicate"),
    find: "carry = word >>> 31",
    replace: "carry = 0",
    fails: "finds segments of any length, with any code point where it says so"
  },
  {
    id: "QRY-3",
    breaks: "the _ of like is half a character",
    ...core("internal/like", "Predicate"),
    find: "text.codePointAt(at)! > 0xffff ? 2 : 1",
    replace: "1",
    fails: "says of a text what trying everything says"
  },
  {
    id: "QRY-3",
    breaks: "a part between two % may overlap what comes after it",
    ...core("internal/like", "Predicate"),
    find: "      return at >= 0 && at + literal.length <= end ? at + literal.length : -1",
    replace: "      return at >= 0 ? at + literal.length : -1",
    fails: "says of a text what trying everything says"
  },
  {
    id: "QRY-3",
    breaks: "a pattern of like has any length",
    ...core("internal/predicateReader", "Predicate"),
    find: "  if (operand.literal.length > lengthMax) throw",
    replace: "  if (operand.literal.length > Infinity) throw",
    fails: "where it is too much to evaluate"
  },
  {
    id: "PERM-2",
    breaks: "a user's attribute is taken for a pattern",
    ...core("internal/predicateReader", "Predicate"),
    find: "  if (!(\"literal\" in operand) || typeof operand.literal !== \"string\") throw",
    replace:
      "  if (!(\"literal\" in operand)) return operand.principal; if (typeof operand.literal !== \"string\") throw",
    fails: "where an operand isn't one"
  },
  {
    id: "QRY-3",
    breaks: "what a regular expression repeats weighs as if it were there once",
    ...core("internal/regex", "Predicate"),
    find: "const repeated = atom * times +",
    replace: "const repeated = atom +",
    fails: "is refused, however it is written, where it would be large"
  },
  {
    id: "QRY-3",
    breaks: "each regular expression of a predicate is weighed alone",
    ...core("internal/predicateReader", "Predicate"),
    find: "        this.weight += Regex.weightOf(pattern)",
    replace: "        this.weight = Regex.weightOf(pattern)",
    fails: "is refused, however it is written, where it would be large"
  },
  {
    id: "QRY-3",
    breaks: "flags amid a pattern hide what is repeated after them",
    ...core("internal/regex", "Predicate"),
    find: "          if (!this.skip(flags)) {",
    replace: "          if (this.skip(flags) !== undefined) add(1); else {",
    fails: "is refused, however it is written, where it would be large"
  },
  {
    id: "QRY-3",
    breaks: "a regular expression judges a text of any length",
    ...core("internal/regex", "Predicate"),
    find: "text.length > lengthMax ? undefined",
    replace: "text.length > Infinity ? undefined",
    fails: "takes time by the text alone, of which one that is too long for it isn't judged"
  },
  {
    id: "QRY-3",
    breaks: "a fault in a regular expression is found when somebody connects",
    ...core("Predicate", "Predicate"),
    find: "        : Effect.andThen(loadEngine, attempt(() => regexes.forEach(checkRegex)))",
    replace: "        : loadEngine",
    fails: "is RE2's, finds anywhere, and judges text only"
  },
  {
    id: "PERM-2",
    breaks: "the regular expressions of a policy aren't loaded with it",
    ...server("PermissionPolicy", "PermissionPolicy"),
    find: "Effect.as(loadConditions(policy), policy)",
    replace: "Effect.succeed(policy)",
    fails: "may judge by regular expressions from the first connection on"
  },
  {
    id: "QRY-3",
    breaks: "a regular expression costs nothing",
    ...core("internal/cost", "Predicate"),
    find: "      return regexNanos + textLength",
    replace: "      return 0 * textLength",
    fails: "is known before it is loaded, and grows with what it asks"
  },
  {
    id: "QRY-3",
    breaks: "the name of a field is taken for more of a path",
    ...core("Where", "Where"),
    find: "{ [pathOf(names)]:",
    replace: "{ [names.join(\".\")]:",
    fails: "escapes names, and finds fields that are called as operators are"
  },
  {
    id: "QRY-3",
    breaks: "a field that is called as an operator is can't be asked",
    ...core("Where", "Where"),
    find: "return (inner: string) => fieldAt([...names, inner])",
    replace: "return (inner: string) => conditionOf(names, inner)",
    fails: "escapes names, and finds fields that are called as operators are"
  },
  {
    id: "QRY-3",
    breaks: "a list stands for what it is equal to without saying so",
    ...core("Where", "Where"),
    find: "operator === \"eq\" && isShort(operand) ? operand : said",
    replace: "operator === \"eq\" ? operand : said",
    fails: "has each operator, where the field's type has it"
  },
  {
    id: "QRY-3",
    breaks: "a map has any number of indexes",
    ...core("internal/indexOptions", "Grid"),
    find: "  if (given.length > indexesMax) throw",
    replace: "  if (given.length > Infinity) throw",
    fails: "is refused when it is declared"
  },
  {
    id: "QRY-3",
    breaks: "an index has any number of fields",
    ...core("internal/indexOptions", "Grid"),
    find: "  if (paths.length === 0 || paths.length > indexFieldsMax) {",
    replace: "  if (paths.length === 0) {",
    fails: "is refused when it is declared"
  },
  {
    id: "QRY-3",
    breaks: "a boost may be nothing",
    ...core("internal/indexOptions", "Grid"),
    find: "!(boost > 0)",
    replace: "!(boost >= 0)",
    fails: "is refused when it is declared"
  },
  {
    id: "QRY-3",
    breaks: "an index of an array's elements is declared as one of the array",
    ...core("internal/indexOptions", "Grid"),
    find: "kind: kind as IndexKind })",
    replace: "kind: \"sorted\" as IndexKind })",
    fails: "are declared with it, by path"
  },
  {
    id: "PERM-2",
    breaks: "a user whose name is part of another's has what is the other's",
    ...core("Predicate", "Predicate"),
    find: "isContains(comparison) && operandsOf(comparison).some(isReference) ? ofNoText(held) : held",
    replace: "held",
    fails: "never takes a name that is part of another for it"
  },
  {
    id: "AUTH-1",
    breaks: "a key set verifies by whatever algorithm a token names",
    ...server("Jwt", "Jwt"),
    find: "  if (!allowed.some((algorithm) => algorithm === header[\"alg\"])) {",
    replace: "  if (allowed.length === 0) {",
    fails: "lets nobody in by others than its keys, and asks nobody whom a token names"
  },
  {
    id: "AUTH-1",
    breaks: "algorithms that don't go with the key are let pass",
    ...server("Jwt", "Jwt"),
    find: "    if (strays.length > 0 || chosen.length === 0) {",
    replace: "    if (strays.length > 9) {",
    fails: "is refused when it is weak, private, of another kind, or not the only one"
  },
  {
    id: "AUTH-1",
    breaks: "a token without exp never expires",
    ...server("Jwt", "Jwt"),
    find: "    if (expiresAt === undefined) {",
    replace: "    if (expiresAt === null) {",
    fails: "no exp"
  },
  {
    id: "AUTH-1",
    breaks: "a token is accepted for a while after it has expired",
    ...server("Jwt", "Jwt"),
    find: "    if (expiresAt <= nowMillis) return",
    replace: "    if (expiresAt <= nowMillis - toleranceMillis) return",
    fails: "exp a second ago"
  },
  {
    id: "AUTH-1",
    breaks: "dates may be infinite, or in ms",
    ...server("Jwt", "Jwt"),
    find: "seconds >= 0 && seconds < secondsMax",
    replace: "!Number.isNaN(seconds)",
    fails: "exp in ms"
  },
  {
    id: "AUTH-1",
    breaks: "tokens from the future are accepted",
    ...server("Jwt", "Jwt"),
    find: "from > nowMillis + toleranceMillis",
    replace: "from > nowMillis + 60_000",
    fails: "iat beyond the tolerance"
  },
  {
    id: "AUTH-1",
    breaks: "the audience isn't looked at",
    ...server("Jwt", "Jwt"),
    find: "          ...(rules.audience === undefined ? {} : { audience: rules.audience }),",
    replace: "          ...(rules.audience === undefined ? {} : {}),",
    fails: "another aud"
  },
  {
    id: "AUTH-1",
    breaks: "a token for others is accepted where no audience is configured",
    ...server("Jwt", "Jwt"),
    find: "    if (rules.audience === undefined && claims.aud !== undefined) {",
    replace: "    if (rules.audience === undefined && claims.aud === 7) {",
    fails: "is for whom it says: with no audience configured, only one that is for nobody counts"
  },
  {
    id: "AUTH-1",
    breaks: "the issuer isn't looked at",
    ...server("Jwt", "Jwt"),
    find: "          ...(rules.issuer === undefined ? {} : { issuer: rules.issuer }),",
    replace: "          ...(rules.issuer === undefined ? {} : {}),",
    fails: "iss with a slash more"
  },
  {
    id: "AUTH-1",
    breaks: "a header may bring its key",
    ...server("Jwt", "Jwt"),
    find: "\"cty\", \"jwk\", \"jku\", \"x5c\", \"x5u\"]",
    replace: "\"cty\"]",
    fails: "an embedded jwk"
  },
  {
    id: "AUTH-1",
    breaks: "a name may be there twice",
    ...server("Jwt", "Jwt"),
    find: "    return names.length === members(value) ? value",
    replace: "    return names.length >= members(value) ? value",
    fails: "sub twice"
  },
  {
    id: "AUTH-1",
    breaks: "a token has several spellings",
    ...server("Jwt", "Jwt"),
    find: "  return bytes.toString(\"base64url\") === part ? bytes : undefined",
    replace: "  return bytes",
    fails: "has one spelling: with any letter changed it is another, and not accepted"
  },
  {
    id: "AUTH-1",
    breaks: "a private key is taken for a public one",
    ...server("Jwt", "Jwt"),
    find: "    if (/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text)) return",
    replace: "    if (text === \"\") return",
    fails: "is refused when it is weak, private, of another kind, or not the only one"
  },
  {
    id: "AUTH-1",
    breaks: "RSA keys may be short",
    ...server("Jwt", "Jwt"),
    find: "key.asymmetricKeyType === \"rsa\" && modulusLength >= 2048",
    replace: "key.asymmetricKeyType === \"rsa\" && modulusLength >= 1024",
    fails: "is refused when it is weak, private, of another kind, or not the only one"
  },
  {
    id: "AUTH-1",
    breaks: "secrets may be short",
    ...server("Secret", "Jwt"),
    find: "const bytesMin = 32",
    replace: "const bytesMin = 1",
    fails: "is refused when it can be guessed, without being repeated"
  },
  {
    id: "AUTH-1",
    breaks: "secrets may be rows of digits",
    ...server("Secret", "Jwt"),
    find: "const bitsMin = 80",
    replace: "const bitsMin = 0",
    fails: "is refused when it can be guessed, without being repeated"
  },
  {
    id: "AUTH-1",
    breaks: "secrets may be those of examples",
    ...server("Secret", "Jwt"),
    find: "const lettersMin = 16",
    replace: "const lettersMin = 0",
    fails: "is refused when it can be guessed, without being repeated"
  },
  {
    id: "AUTH-1",
    breaks: "secrets may repeat themselves",
    ...server("Secret", "Jwt"),
    find: "    if (bytes.every((byte, i) => i < period || byte === bytes[i - period])) return true",
    replace: "    if (bytes.length === period) return true",
    fails: "is refused when it can be guessed, without being repeated"
  },
  {
    id: "AUTH-1",
    breaks: "user ids and roles may have control characters",
    ...server("Principal", "Jwt"),
    find: "Schema.pattern(/^[^\\p{Cc}\\p{Cs}\\p{Zl}\\p{Zp}]*$/u)",
    replace: "Schema.pattern(/^/u)",
    fails: "lets nobody in over a WebSocket who shouldn't be, and no other connection notices"
  },
  {
    id: "AUTH-1",
    breaks: "keys that can't be had refuse the token for good",
    ...server("KeySet", "Jwt"),
    find: "            new AuthUnavailable({ reason: \"the keys",
    replace: "            new AuthRequired({ reason: \"the keys",
    fails: "that is down closes a handshake as one to be tried again, and once it is back lets in"
  },
  {
    id: "AUTH-1",
    breaks: "keys are fetched for every token while they can't be had",
    ...server("KeySet", "Jwt"),
    find: "now() - failure.atMillis < retryMillis) throw",
    replace: "now() - failure.atMillis < 0) throw",
    fails: "makes who connects come again later when it"
  },
  {
    id: "AUTH-1",
    breaks: "keys are fetched for every key that a stranger makes up",
    ...server("KeySet", "Jwt"),
    find: "const cooldownMillis = 30_000",
    replace: "const cooldownMillis = 0",
    fails: "is fetched anew for a key that it lacks, and then not for a while"
  },
  {
    id: "AUTH-1",
    breaks: "keys are taken over an open line",
    ...server("KeySet", "Jwt"),
    find: "(url?.protocol === \"http:\" && isLoopback",
    replace: "(url?.protocol === \"http:\" || isLoopback",
    fails: "is refused when it is weak, private, of another kind, or not the only one"
  },
  {
    id: "AUTH-1",
    breaks: "a key set may be of any length",
    ...server("KeySet", "Jwt"),
    find: "    if (bytes > bytesMax) throw",
    replace: "    if (bytes < 0) throw",
    fails: "makes who connects come again later when it"
  },
  {
    id: "AUTH-1",
    breaks: "a header may have a scheme twice",
    ...server("Authentication", "Authentication"),
    find: "/^bearer +([",
    replace: "/^bearer +(?:bearer +)?([",
    fails: "takes an Authorization header for one token or for nothing"
  },
  {
    id: "AUTH-1",
    breaks: "a key in the configuration is not used",
    ...server("Authentication", "Authentication"),
    find: "    if (options === undefined) return provided",
    replace: "    if (options !== null) return provided",
    fails: "lets nobody in without a token once the settings have a key"
  },
  {
    id: "AUTH-1",
    breaks: "a key takes the place of a verifier unsaid",
    ...server("Authentication", "Authentication"),
    find: "    if (!provided.isAnonymous) {",
    replace: "    if (provided.isAnonymous && options === null) {",
    fails: "has one verifier: a key among the settings of a server that is given another is a fault"
  },
  {
    id: "AUTH-1",
    breaks: "a key and letting everyone in go together",
    ...server("ServerConfig", "ServerConfig"),
    find: "      settings.auth === \"none\" && hasKey(settings)",
    replace: "      settings.auth === \"none\" && !hasKey(settings)",
    fails: "asks everybody for a token when there is a key to verify it by, and is open to the network then"
  },
  {
    id: "AUTH-1",
    breaks: "a weak secret is found when the first token comes",
    ...server("ServerConfig", "ServerConfig"),
    find: "      if (options !== undefined) return Jwt.faults(options)",
    replace: "      if (options !== undefined) return []",
    fails: "refuses keys that are weak, several, or missing for what else is set, together with other faults"
  },
  {
    id: "AUTH-1",
    breaks: "a secret is shown in the log",
    ...server("ServerConfig", "ServerConfig"),
    find: "Schema.Redacted(Text), \"a text\", \"secret\")",
    replace: "Schema.Redacted(Text), \"a text\", \"document\")",
    fails: "shows no secret, neither in faults nor to who prints settings"
  },
  {
    id: "AUTH-1",
    breaks: "a secret may be in its variable and, another, in a file",
    ...server("ServerConfig", "ServerConfig"),
    find: "      if (other !== undefined) fail(",
    replace: "      if (other === name) fail(",
    fails: "refuses files that hold no secret, without waiting for any"
  },
  {
    id: "FLOW-3",
    breaks: "whatever an operation is refused for becomes a label of metrics",
    ...server("Metrics", "Metrics"),
    find: "        operations(to - from, tags.has(cause) ? cause : \"other\", concern)",
    replace: "        operations(to - from, cause, concern)",
    fails: "have labels of fixed sets only: no map, key, user, node or value"
  },
  {
    id: "FLOW-3",
    breaks: "whatever code a client closes with becomes a label of metrics",
    ...server("Metrics", "Metrics"),
    find: "codes.has(code) ? String(code) : \"other\"",
    replace: "String(code)",
    fails: "have labels of fixed sets only: no map, key, user, node or value"
  },
  {
    id: "FLOW-3",
    breaks: "strangers write as much into the log as they like",
    ...server("Visits", "logs"),
    find: "    if (window.lines < linesPerSecondMax) {",
    replace: "    if (window.lines < 1e9) {",
    fails: "isn't flooded by strangers: so many lines of a kind a second, and how many were left out"
  },
  {
    id: "FLOW-3",
    breaks: "clients have as much traced as they like",
    ...server("Traces", "Traces"),
    find: "        if (++traces > tracesPerSecondMax) return undefined",
    replace: "        traces++",
    fails: "is recorded so many times a second, however many clients want it"
  },
  {
    id: "AUTH-3",
    breaks: "metrics are shown to the network",
    ...server("Gateway", "Metrics"),
    find: "  if (metricsToken === undefined && !isLoopback(host)) return Effect.succeed(notFound)",
    replace: "",
    fails: "aren't shown to the network without a token"
  },
  {
    id: "AUTH-3",
    breaks: "metrics are shown to whoever can make a name lead here",
    ...server("Gateway", "Metrics"),
    find: "    if (wanted === undefined && !callsLoopback(headers[\"host\"])) return notFound",
    replace: "",
    fails: "aren't shown to pages whose name was made to lead here"
  },
  {
    id: "AUTH-3",
    breaks: "metrics are shown to who has any token",
    ...server("Gateway", "Metrics"),
    find: "!timingSafeEqual(wanted, digestOf(given ?? \"\"))",
    replace: "given === null",
    fails: "are shown to who has the token, and to nobody else"
  },
  {
    id: "AUTH-3",
    breaks: "the start that a bad token for metrics stops tells it",
    ...server("ServerConfig", "Metrics"),
    find: "    : `${name} can't be used: expected ${fields[key].expected}`",
    replace: "    : `${name} is ${JSON.stringify(value)}: expected ${fields[key].expected}`",
    fails: "is never shown by what is said of it"
  },
  {
    id: "IN-1",
    breaks: "the log has what a verifier says of a token",
    ...server("Session", "logs"),
    find: "      this.#visit.failed(fault._tag)",
    replace: "      this.#visit.failed(fault.message)",
    fails: "has no key, value, token or secret in any line, whatever clients do"
  },
  {
    id: "IN-1",
    breaks: "a client's log has what errors say in words",
    ...client("ClientLog", "logs"),
    find: "    fault: String(_tag ?? name ?? \"Error\"),",
    replace: "    fault: `${_tag ?? name} ${(fault as Error).message}`,",
    fails: "has no value, key or token in any line, whatever goes wrong"
  },
  {
    id: "PERM-3",
    breaks: "a client keeps what it may read no longer",
    ...client("MapSync", "partial"),
    find: "if (cause === \"PermissionDenied\") {",
    replace: "if (cause === \"NotOwner\") {",
    fails: "follows its policy"
  },
  {
    id: "PERM-3",
    breaks: "a client keeps what has gone from a partial map while it was away",
    ...client("MapSync", "partial"),
    find: "        replica.dropLost(map, new Map(Array.from(before).filter(([cell]) => lacking.has(cell))), has)",
    replace: "        replica.dropLost(map, new Map(Array.from(before).filter(([cell]) => !lacking.has(cell))), has)",
    fails: "loses what went while the device was away"
  },
  {
    id: "PERM-3",
    breaks: "a client keeps what goes from a partial map",
    ...client("MapSync", "partial"),
    find: "keys.map((key) => [key, undefined])",
    replace: "[]",
    fails: "shows what may be read, as it comes, changes and goes"
  },
  {
    id: "PERM-3",
    breaks: "a client merges what it is shown of a partial map into what it had",
    ...client("MapSync", "partial"),
    find: "        partial.has(map) ? replica.assume(map, records) : replica.merge(map, records)",
    replace: "        replica.merge(map, records)",
    fails: "shows no more than what may be read now of records that were shown with more"
  },
  {
    id: "AUTH-1",
    breaks: "nobody hears that a secret is open to all",
    ...server("SettingFile", "ServerConfig"),
    find: "(stats.mode & 0o004) !== 0",
    replace: "(stats.mode & 0o004) === 8",
    fails: "warns of a secret that every user of the machine can read"
  },
  {
    id: "AUTH-2",
    breaks: "a connection outlives its token",
    ...server("Session", "expiry"),
    find: "        yield* Effect.sleep(authGraceMillis)",
    replace: "        yield* Effect.never",
    fails: "by another user's token inherits nothing"
  },
  {
    id: "AUTH-2",
    breaks: "a token that has expired is let in for as long as it has a grace where it was let in before",
    ...server("Session", "expiry"),
    find: "expiresAt !== undefined && expiresAt <= hlc.wallMillis()",
    replace: "expiresAt !== undefined && expiresAt + authGraceMillis <= hlc.wallMillis()",
    fails: "is judged by the token that it shows then: one that has expired has no grace"
  },
  {
    id: "AUTH-2",
    breaks: "a connection becomes another user's by his token",
    ...server("Session", "expiry"),
    find: "        if (expected !== undefined && actual !== expected) {",
    replace: "        if (expected === \"\" && actual !== expected) {",
    fails: "by another user's token inherits nothing"
  },
  {
    id: "AUTH-2",
    breaks: "what comes after the end is processed where no timer has told of it",
    ...server("Session", "expiry"),
    find: "      if (this.#pumping || this.#waiting) return",
    replace: "      if (this.#pumping || this.#waiting) return; else if (this.#inboxAt < 0)",
    fails: "what comes from its user"
  },
  {
    id: "AUTH-2",
    breaks: "what goes out after the end is sent where no timer has told of it",
    ...server("Session", "expiry"),
    find: "          if (!this.#closed && this.#hasExpired()) this.#expired()",
    replace: "",
    fails: "what goes to its user"
  },
  {
    id: "AUTH-2",
    breaks: "a renewal has every map opened again",
    ...server("Reading", "expiry"),
    find: "      this.#reopen((map) => before.get(map) !== this.access(map).viewKey)",
    replace: "      this.#reopen((map) => before.has(map))",
    fails: "leaves subscriptions as they are: no gap, nothing twice"
  },
  {
    id: "AUTH-2",
    breaks: "a renewal leaves what the token before granted",
    ...server("Reading", "expiry"),
    find: "      this.#reopen((map) => before.get(map) !== this.access(map).viewKey)",
    replace: "      this.#reopen(() => false)",
    fails: "that grants less takes away what it doesn't grant"
  },
  {
    id: "AUTH-2",
    breaks: "a user who has logged out goes on being connected",
    ...client("SyncEngine", "Logout"),
    find: "        return Effect.zipRight(disconnect, end).pipe(",
    replace: "        return end.pipe(",
    fails: "deletes all that the device has, and closes the client"
  },
  {
    id: "AUTH-2",
    breaks: "a device is whoever's who has its secret",
    ...server("Devices", "hostile/protocol"),
    find: "(known?.userId !== undefined && known.userId !== userId)",
    replace: "(known?.userId !== undefined && known.userId === \"\")",
    fails: "that shows another user's device isn't let in"
  },
  {
    id: "IN-1",
    breaks: "what is malformed is taken for a fault of the server's",
    ...server("Session", "hostile/messages"),
    find:
      "        if (fault instanceof GridError.MalformedMessage) return this.#fail(fault, Protocol.closeCodes.malformed)",
    replace: "",
    fails: "nothing but __proto__"
  },
  {
    id: "IN-1",
    breaks: "frames reach the decoder without having been looked at",
    ...coreByServer("Protocol", "hostile/messages"),
    find: "  scanFrame(bytes, scanLimits)",
    replace: "",
    fails: "half a character"
  },
  {
    id: "IN-1",
    breaks: "strangers are served",
    ...server("Session", "hostile/protocol"),
    find: "      if (!this.#authenticated) return this.#outOfPlace(",
    replace: "      if (this.#closed) return this.#outOfPlace(",
    fails: "that isn't let in and sends"
  },
  {
    id: "IN-1",
    breaks: "a write may have the number of the one before",
    ...server("Session", "hostile/protocol"),
    find: "        if (sequence <= this.#lastSequence) {",
    replace: "        if (sequence < this.#lastSequence) {",
    fails: "that sends a write twice by one number is closed"
  },
  {
    id: "IN-1",
    breaks: "a map that was never opened can be walked",
    ...server("Reading", "hostile/protocol"),
    find: "      return this.#reader.outOfPlace(\"a map is opened by SyncInit before it's walked\")",
    replace: "      return this.#reader.refuse(id, new GridError.MapReopened({ map }))",
    fails: "a part of another map than the one that is open"
  },
  {
    id: "IN-1",
    breaks: "what follows an option's equals sign is repeated, a secret or not",
    file: "packages/cli/src/CommandLine.ts",
    test: "packages/cli/test/CommandLine.test.ts",
    find: "      const unknown = nameOf(word)",
    replace: "      const unknown = word",
    fails: "repeats nothing that follows an equals sign"
  },
  {
    id: "IN-1",
    breaks: "a token that can't be used is shown",
    file: "packages/cli/src/Token.ts",
    test: "packages/cli/test/Token.test.ts",
    find: "`${name} can't be used: expected ${expected}`",
    replace: "`${name} can't be used: expected ${expected}, got ${text}`",
    fails: "is refused with the reason when it has none, and the reason never has what was taken for one"
  },
  {
    id: "IN-2",
    breaks: "names that look alike are one",
    ...server("Partitions", "hostile/names"),
    find: "MapSource => maps.get(name) ?? makeMap(name, kind)",
    replace: "MapSource => maps.get(name.normalize(\"NFC\")) ?? makeMap(name, kind)",
    fails: "of a map, a key or a field comes back as it was"
  },
  {
    id: "PERM-2",
    breaks: "what keeps fields is stamped after what its writer writes next",
    ...server("Access", "PermissionPolicy"),
    find: "  return nodeId < amender ? stamp : Timestamp.tick(stamp, 0)",
    replace: "  return Timestamp.tick(stamp, 0)",
    fails: "before whatever its writer writes next"
  },
  {
    id: "PERM-2",
    breaks: "what keeps fields is stamped by the server's clock",
    ...server("Access", "partial"),
    test: "packages/client/test/partial.test.ts",
    find: "  return nodeId < amender ? stamp : Timestamp.tick(stamp, 0)",
    replace: "  return Timestamp.tick(stamp, millis + 100)",
    fails: "has the last of several writes in quick succession"
  },
  {
    id: "PERM-2",
    breaks: "who may not write all of a map offers what the server lacks of it",
    ...server("Access", "partial"),
    test: "packages/client/test/partial.test.ts",
    find: "    this.isWriter = this.puts === \"everything\" && this.removes === \"everything\"",
    replace: "    this.isWriter = true",
    fails: "strips no record of what he may not write"
  },
  {
    id: "PERM-3",
    breaks: "a map that was refused is not opened when it may be after all",
    ...client("MapSync", "partial"),
    find: "failure._tag === \"Refusal\" && gaps.has(map)",
    replace: "isRefusal(\"MapReopened\")(failure) && gaps.has(map)",
    fails: "is opened again though the word that it may be"
  },
  {
    id: "PERM-3",
    breaks: "a map is held for in step by the root that it had when it was asked for",
    ...client("MapSync", "partial"),
    find: "          if (isEqual(packRoot(crdt.cells.tree), root)) return",
    replace: "          if (isEqual(mine, root)) return",
    fails: "shows nothing that was acknowledged while it was opened"
  },
  {
    id: "PERM-3",
    breaks: "a record that goes from a view and comes back in one batch is told to be gone",
    ...server("Views", "permissions.model"),
    find: "            else ofView.set(cell, change)",
    replace: "            else if (!ofView.has(cell)) ofView.set(cell, change)",
    fails: "of a small map"
  },
  {
    id: "PERM-1",
    breaks: "views take in what is no record",
    ...server("Views", "Permissions"),
    find: " || rows.length === 0 || kind !== \"lww\") return changes",
    replace: " || rows.length === 0) return changes",
    fails: "its writers go on, when it turns out to be another kind"
  },
  {
    id: "PERM-2",
    breaks: "operations of a batch are judged by what was there before it",
    ...server("Partitions", "permissions.model"),
    find: "        : foreseen.record(map, cell) ?? maps",
    replace: "        : maps",
    fails: "of a small map"
  },
  {
    id: "PERM-2",
    breaks: "a field is written by the word of a rule that isn't about what is stored",
    ...server("Access", "PermissionPolicy"),
    find: "      const writable = inBoth(fieldsOf(grants), fieldsOf(holding))",
    replace: "      const writable = fieldsOf(grants)",
    fails: "writes no field by the word of a rule"
  },
  {
    id: "PERM-2",
    breaks: "who may write a field may have the record expire",
    ...server("Access", "PermissionPolicy"),
    find: "        const keepsTime = before !== undefined && writable !== undefined",
    replace: "        const keepsTime = false",
    fails: "leaves the time at which a record expires"
  },
  {
    id: "PERM-2",
    breaks: "what has expired is its owner's for ever",
    ...server("Access", "PermissionPolicy"),
    find: "  record.isTombstone || (record.expiresAt !== 0 && record.expiresAt <= now)",
    replace: "  record.isTombstone",
    fails: "takes what has expired for gone"
  },
  {
    id: "PERM-1",
    breaks: "a refusal tells how large hidden fields are",
    ...server("Access", "PermissionPolicy"),
    find: "    if (fault instanceof RecordTooLarge && !isSeen) return undefined",
    replace: "",
    fails: "says of what is too large beside hidden fields"
  },
  {
    id: "PERM-3",
    breaks: "what may be read is compared with what the new policy says of it",
    ...server("Reading", "Permissions"),
    find: "      return now === \"part\" || now !== this.#opened(map)",
    replace: "      return now === \"part\"",
    fails: "is noticed by whoever has asked for so many maps"
  },
  {
    id: "PERM-3",
    breaks: "a writer isn't told what is shown to him when he could read all as he wrote",
    ...server("WriteAcks", "Permissions"),
    find: "          won.forEach((batch, at) => subscriptions.reveal(",
    replace: "          won.forEach((batch, at) => parts[at]!.access !== undefined && subscriptions.reveal(",
    fails: "between a write and its acknowledgement is heeded"
  },
  {
    id: "FLOW-1",
    breaks: "who has much to say is heard to the end",
    ...server("Session", "Turns"),
    find: "        if (turns.isOver()) this.#wait(() => turns.wait(() => this.#resume()))",
    replace: "        if (turns === undefined) this.#wait(() => turns.wait(() => this.#resume()))",
    fails: "makes no other wait for more than a turn, however much it sends at once"
  },
  {
    id: "FLOW-1",
    breaks: "who has waited longest for his turn comes last",
    ...server("Turns", "Turns"),
    find: "    waiting = [...line.slice(at), ...waiting]",
    replace: "    waiting = [...waiting, ...line.slice(at)]",
    fails: "go on in the order in which they came"
  },
  {
    id: "PERM-3",
    breaks: "who has shown a record isn't told that it is another's now",
    ...server("Views", "Permissions"),
    find: "...this.#holders.get(key) ?? []",
    replace: "...[] as Array<PartialMap>",
    fails: "a write is looked at for those whom it may concern"
  },
  {
    id: "FLOW-3",
    breaks: "each write is put before every user's view",
    ...server("Access", "Permissions"),
    find: "    return ties.length === this.#grants.read.length ? ties : undefined",
    replace: "    return ties.length < 0 ? ties : undefined",
    fails: "a write is looked at for those whom it may concern"
  },
  {
    id: "GC-1",
    breaks: "a write from before what is forgotten is merged",
    ...server("Partitions", "TombstoneGc"),
    find: "    if (isOld && maps.get(map)?.record(cell, partition) === undefined) return new BeyondHorizon({ map })",
    replace: "    if (isOld && map === undefined) return new BeyondHorizon({ map })",
    fails: "can't be written back, by whoever it is and whenever he came, unless it is written anew"
  },
  {
    id: "GC-1",
    breaks: "the watermark is where the last deletions were forgotten, not where the latest were",
    ...server("Tombstones", "Tombstones"),
    find: "watermark: Math.max(known.watermark, latestMillis)",
    replace: "watermark: latestMillis",
    fails: "never goes back"
  },
  {
    id: "GC-1",
    breaks: "a device that lacks deletions brings its maps as they are",
    ...serverByClient("Reading", "returning"),
    find: "      if (access.isWriter && !this.#hasDeletions(message)) {",
    replace: "      if (access.isWriter && message === undefined) {",
    fails: "by the copies that it has"
  },
  {
    id: "GC-1",
    breaks: "what was forgotten is forgotten by a restart",
    ...server("TombstoneGc", "TombstoneGc"),
    find: "notes: [tombstones.forget(map, age, latestMillis)]",
    replace: "notes: [tombstones.forget(map, age, latestMillis)].slice(1)",
    fails: "is so after a restart, and so is who has confirmed what, and how old everything is"
  },
  {
    id: "GC-1",
    breaks: "a device keeps its copy of what the server refuses to have back",
    ...client("Replica", "returning"),
    find: "        else if (failure._tag === \"WriteRejected\" && failure.cause === \"BeyondHorizon\") {",
    replace: "        else if (failure._tag === \"WriteRejected\" && failure.cause === \"never\") {",
    fails: "by the copies that it has"
  },
  {
    id: "GC-1",
    breaks: "a device brings deletions back that are forgotten",
    ...client("MapSync", "forgetting"),
    find: "return watermark > 0 && record !== undefined && record.isTombstone && record.millis <= watermark",
    replace: "return watermark < 0 && record !== undefined && record.isTombstone && record.millis <= watermark",
    fails: "goes from a device that wasn't there when the others were told, as soon as it is in step"
  },
  {
    id: "GC-2",
    breaks: "a deletion is forgotten before everybody has it",
    ...server("TombstoneGc", "TombstoneGc"),
    find: "const bound = Math.max(pressure, Math.min(confirmations.lowest(), age - ageMillis))",
    replace: "const bound = Math.max(pressure, age - ageMillis)",
    fails: "is remembered for a device that hasn't confirmed it, until that has been away for as long as the horizon"
  },
  {
    id: "GC-2",
    breaks: "a device that never comes back is waited for",
    ...server("TombstoneGc", "TombstoneGc"),
    find: "    forgetDevices(age - horizonMillis)",
    replace: "",
    fails: "is remembered for a device that hasn't confirmed it, until that has been away for as long as the horizon"
  },
  {
    id: "GC-2",
    breaks: "deletions are remembered without an end while a device is away",
    ...server("TombstoneGc", "TombstoneGc"),
    find: "    if (graveyard.size <= tombstonesMax) return 0",
    replace: "    if (graveyard.size > 0) return 0",
    fails: "are remembered up to so many"
  },
  {
    id: "GC-2",
    breaks: "a device confirms what it hasn't stored",
    ...client("Replica", "forgetting"),
    find: "        onFailure: () => false,",
    replace: "        onFailure: () => true,",
    fails: "what it has, once it is stored, and again whenever it is asked to"
  },
  {
    id: "GC-2",
    breaks: "a device confirms what it hasn't got yet",
    ...client("SyncEngine", "forgetting"),
    find: "unconfirmed !== undefined && isInStep(unconfirmed.bound) && maps!.isComplete()",
    replace: "unconfirmed !== undefined && maps!.isComplete()",
    fails: "nothing while a map of its isn't in step, or a write of its isn't answered"
  },
  {
    id: "GC-3",
    breaks: "the clock on the wall makes deletions old",
    ...server("Tombstones", "TombstoneGc"),
    find: "    const age = () => before + Number((clock.unsafeCurrentTimeNanos() - startedAt) / 1_000_000n)",
    replace:
      "    const age = () => before + Math.max(0, clock.unsafeCurrentTimeMillis() - Number(startedAt / 1_000_000n))",
    fails: "is no older for what any clock on a wall says"
  },
  {
    id: "GC-3",
    breaks: "a device confirms what it wasn't told of",
    ...server("Session", "TombstoneGc"),
    find:
      "          if (message.age > this.#toldAge) return this.#outOfPlace(\"an age of the grid that it wasn't told\")",
    replace: "",
    fails: "is so by the server's word alone: a device that confirms what it wasn't told is cut off"
  },
  {
    id: "GC-3",
    breaks: "a server has a device forget what it hasn't sent",
    ...core("LwwMap", "LwwMap"),
    find: "    if (this.#field(slot, BASE) !== SAME) return false",
    replace: "",
    fails: "collects the tombstone of a key, and nothing else"
  },
  {
    id: "GC-3",
    breaks: "a server has a device forget values",
    ...core("LwwMap", "LwwMap"),
    find: "    if (!LwwRecord.isTombstoneAt(this.#rows.bytesOf(address), startOf(address))) return false",
    replace: "",
    fails: "collects the tombstone of a key, and nothing else"
  },
  {
    id: "TTL-1",
    breaks: "what is over gets a tombstone of a later stamp, which beats what was written meanwhile",
    ...server("Partitions", "TombstoneGc"),
    find: "record: tombstoneOf(record(cell, partition)!.stamp)",
    replace: "record: tombstoneOf({ ...record(cell, partition)!.stamp, millis: record(cell, partition)!.expiresAt })",
    fails: "becomes a tombstone of its own stamp, told to all who follow; whatever is newer survives, whenever it comes"
  },
  {
    id: "TTL-1",
    breaks: "nobody is told of what is over",
    ...server("Expiry", "TombstoneGc"),
    find: "    for (const batch of won) subscriptions.publish(batch)",
    replace: "",
    fails: "becomes a tombstone of its own stamp, told to all who follow; whatever is newer survives, whenever it comes"
  },
  {
    id: "CONV-2",
    breaks: "what a store has lost that was put back is dropped by who still has it",
    ...server("Session", "TombstoneGc"),
    find: "(confirmed[0] !== persistence.generation || confirmed[1] > this.#toldAge)",
    replace: "confirmed[0] === undefined",
    fails: "is no reason to drop what a store had that was put back to what it was once"
  },
  {
    id: "CRDT-5",
    breaks: "what a resolver makes is stamped after the proposal, be it the older one",
    ...server("Rulings", "Resolvers"),
    find: "  const stamp = stampAfter(later)",
    replace: "  const stamp = stampAfter(proposal)",
    fails: "has an older proposal win, under a stamp of its own right after that of the newer record"
  },
  {
    id: "CRDT-5",
    breaks: "a resolver may change what it is asked",
    ...server("Rulings", "Resolvers"),
    find: "  Object.freeze({",
    replace: "  Object.seal({",
    fails: "has its operation rejected, changes nothing, and holds up no other"
  },
  {
    id: "CRDT-5",
    breaks: "a resolver that never ends is tried for each operation of a message",
    ...server("Rulings", "Resolvers"),
    find: "        stopped.count++",
    replace: "        stopped.count += 0",
    fails: "is stopped three times for one message, and is logged once a minute for each kind of fault"
  },
  {
    id: "CRDT-5",
    breaks: "who comes last in a message has what time those before him have left",
    ...server("Rulings", "Resolvers"),
    find: "        if (at > first) continue",
    replace: "        if (at < first) continue",
    fails: "isn't blamed for the time that those before it took"
  },
  {
    id: "CRDT-5",
    breaks: "a resolver doesn't see what a batch has done before",
    ...server("Partitions", "Resolvers"),
    find: "        if (!isRefused(what)) foresee(map, what, foreseen)",
    replace: "        if (!isRefused(what)) foresee(map, what, new Foreseen())",
    fails: "decides of each operation of a batch after those before it"
  },
  {
    id: "CRDT-5",
    breaks: "the proposer isn't told what was made of his write",
    ...server("Partitions", "Resolvers"),
    find: "isAmended: proposed.isAmended || ruling !== record",
    replace: "isAmended: proposed.isAmended",
    fails: "tells all what came of it, the proposer after his acknowledgement"
  },
  {
    id: "CRDT-5",
    breaks: "a device keeps what a resolver has changed",
    ...serverByClient("Partitions", "resolvers"),
    find: "isAmended: proposed.isAmended || ruling !== record",
    replace: "isAmended: proposed.isAmended",
    fails: "have all the greatest number that was accepted"
  },
  {
    id: "PERM-2",
    breaks: "a resolver writes for a user what he may not write",
    ...server("Partitions", "Resolvers"),
    find: "        if (access.judge(kind, ruling, stored, now(), true) !== ruling) {",
    replace: "        if (access.judge(kind, ruling, stored, now(), true) === null) {",
    fails: "nobody gets by a resolver what he may not write, be it an older write that wins"
  },
  {
    id: "PERM-2",
    breaks: "an older write that a resolver has win isn't judged",
    ...server("Access", "Resolvers"),
    find: "    if (!isPut || (!isResolved && stored",
    replace: "    if (!isPut || (stored",
    fails: "nobody gets by a resolver what he may not write, be it an older write that wins"
  },
  {
    id: "OPL-3",
    breaks: "an operation that was rejected is accepted when it comes again",
    ...server("Answers", "Answers"),
    find: "    return rejection?.cause === tooEarly ? undefined : rejection ?? \"accepted\"",
    replace: "    return rejection?.cause === tooEarly ? undefined : \"accepted\"",
    fails: "say of each operation what was said of it first, after restarts too, and nothing of others"
  },
  {
    id: "OPL-3",
    breaks: "what a storage that was put back writes is taken for what it has written before",
    ...server("Answers", "Answers"),
    find:
      "    if (device === undefined || sequence > device.highest || isAfter(stampOf(row), device)) return undefined",
    replace: "    if (device === undefined || sequence > device.highest) return undefined",
    fails: "of a storage that was put back are those to what it writes from then on"
  },
  {
    id: "OPL-3",
    breaks: "the answers aren't kept with what they are about",
    ...server("WriteAcks", "Resolvers"),
    find: "{ notes, isPatient: concern !== \"PERSISTED\" }",
    replace: "{ notes: notes.slice(notes.length), isPatient: concern !== \"PERSISTED\" }",
    fails: "gets the answer that it got before the server crashed, and is done where that wasn't saved"
  },
  {
    id: "OPL-3",
    breaks: "a resolver decides anew of what comes again",
    ...server("WriteAcks", "Resolvers"),
    find: "        const isOnce = intercepted !== undefined || batches.some(({ map }) => partitions.isResolved(map))",
    replace: "        const isOnce = intercepted !== undefined",
    fails: "gets the answer that it got, and changes nothing"
  },
  {
    id: "OPL-3",
    breaks: "an accepted change is refused when its acknowledgement was lost",
    ...serverByClient("WriteAcks", "resolvers"),
    find: "        const isOnce = intercepted !== undefined || batches.some(({ map }) => partitions.isResolved(map))",
    replace: "        const isOnce = intercepted !== undefined",
    fails: "have counted each change that was accepted once"
  },
  {
    id: "OPL-3",
    breaks: "an interceptor is asked again of what was answered",
    ...server("Interception", "Interceptors"),
    find: "            const operation = isAnswered(op) ? undefined : operationOf(batch, op, from)",
    replace: "            const operation = operationOf(batch, op, from)",
    fails: "isn't asked again of an operation that it has had its say of, which gets the same answer"
  },
  {
    id: "OPL-5",
    breaks: "a resolver's rejection meets another operation of its batch",
    ...server("Partitions", "Resolvers"),
    find: "        const what = isRefused(each) ? each : ruled.shift()!",
    replace: "        const what = isRefused(each) ? each : ruled.pop()!",
    fails: "has its operation rejected, changes nothing, and holds up no other"
  },
  {
    id: "OPL-5",
    breaks: "a write that a resolver rejects is dropped without a word",
    ...serverByClient("Rulings", "resolvers"),
    find: "    if (answer._tag === \"Reject\") return refused(answer.reason)",
    replace: "    if (answer._tag === \"Reject\") return each.stored ?? each.proposal",
    fails: "a write that it rejects is undone, told of with its reason, and doesn't hold up the next"
  },
  {
    id: "OPL-5",
    breaks: "what an interceptor refuses is carried out",
    ...server("Partitions", "Interceptors"),
    find: "      if (said !== undefined && \"_tag\" in said) return said",
    replace: "      if (said !== undefined && \"_tag\" in said) intercepted?.get(-1)",
    fails: "refuses an atomic batch with the one that it refuses"
  },
  {
    id: "OPL-5",
    breaks: "an interceptor that never answers holds up its connection for ever",
    ...server("Interception", "Interceptors"),
    find: "      Effect.timeoutFail({ duration: interceptorMillisMax, onTimeout: () => late }),",
    replace: "      Effect.timeoutFail({ duration: 1000 * interceptorMillisMax, onTimeout: () => late }),",
    fails: "that dies, takes too long, or makes what can't be stored refuses its operation, and is logged once a minute"
  },
  {
    id: "FLOW-4",
    breaks: "who is let in after he has left never leaves",
    ...server("Session", "Interceptors"),
    find: "        if (this.#closed) this.#disconnect()",
    replace: "        if (!this.#closed) return",
    fails: "who leaves while he is let in has left"
  },
  {
    id: "CRDT-5",
    breaks: "a message to a map with a resolver is carried out in one go, however long that takes",
    ...server("Session", "Resolvers"),
    find: "      if (atomic === \"no\" && ops.length > resolvedOperationsMax) return true",
    replace: "      if (atomic === \"no\" && ops.length < 0) return true",
    fails: "lets others have their turn in the midst of a message"
  },
  {
    id: "CRASH-1",
    breaks: "commits are synced with the next checkpoint only",
    ...inProcesses("SqliteStore", "crash"),
    find: "    yield* client.unsafe(\"PRAGMA synchronous = FULL\")",
    replace: "    yield* client.unsafe(\"PRAGMA synchronous = NORMAL\")",
    fails: "holds it when it dies before, in or after the n-th write or sync, and the power with it"
  },
  {
    id: "CRASH-1",
    breaks: "each statement is a transaction",
    ...inProcesses("SqliteStore", "crash"),
    find:
      "        Effect.zipRight(Effect.forEach(statements, ({ params, sql }) => connection.executeRaw(sql, params), {",
    replace:
      "        Effect.zipRight(Effect.forEach(statements, ({ params, sql }) => Effect.all([connection.executeRaw(sql, params), connection.executeRaw(\"COMMIT\", []), connection.executeRaw(\"BEGIN\", [])]), {",
    fails: "holds it when it dies before, in or after the n-th write or sync, and the power with it"
  },
  {
    id: "ACK-1",
    breaks: "PERSISTED is said before the commit, to processes that are killed",
    ...inProcesses("WriteAcks", "crash"),
    find: "        if (concern !== \"PERSISTED\") acknowledge(\"APPLIED\")",
    replace: "        acknowledge(concern === \"PERSISTED\" ? \"PERSISTED\" : \"APPLIED\")",
    fails: "holds what it acknowledged PERSISTED, gets the rest from the clients' logs"
  },
  {
    id: "CRASH-2",
    breaks: "a server that loads says that it is ready",
    ...inProcesses("TopGunServer", "crash"),
    find: "  const records = yield* partitions.load",
    replace: "  phase.ready(); const records = yield* partitions.load",
    fails: "isn't there for clients before it has loaded what is stored"
  },
  {
    id: "CRASH-1",
    breaks: "a server that starts builds on a log that was never synced",
    ...inProcesses("SqliteStore", "trouble"),
    find: "    yield* client.unsafe(\"PRAGMA wal_checkpoint(TRUNCATE)\")",
    replace: "",
    fails: "doesn't build on what the failed sync has left"
  },
  {
    id: "CRASH-1",
    breaks: "the seal is ahead of the commits",
    ...inProcesses("SqliteStore", "crash"),
    find: "      seal.write({ generation, commits })",
    replace: "      seal.write({ generation, commits: commits + 1 })",
    fails: "when it is killed at random"
  },
  {
    id: "ACK-2",
    breaks: "what isn't saved is taken for saved",
    ...inProcesses("GroupCommit", "trouble"),
    find: "settleAll(line.filter(({ isPatient }) => !isPatient), failure)",
    replace: "settleAll(line.filter(({ isPatient }) => !isPatient), undefined)",
    fails: "acknowledges nothing as PERSISTED, goes on with APPLIED, says why, and recovers by itself"
  },
  {
    id: "ACK-2",
    breaks: "a database that was taken away takes commits",
    ...inProcesses("SqliteStore", "trouble"),
    find: "        Effect.zipRight(inPlace),",
    replace: "",
    fails: "acknowledges nothing as PERSISTED while the database isn't where it was"
  },
  {
    id: "ACK-2",
    breaks: "a log that was taken away takes commits",
    ...inProcesses("SqliteStore", "trouble"),
    find: "    if (identityOf(found) !== log) return renewLog",
    replace: "    if (found === undefined) return Effect.void",
    fails: "goes on with another log when its log is removed"
  },
  {
    id: "ACK-2",
    breaks: "nobody is told of a log that grows",
    ...inProcesses("SqliteStore", "trouble"),
    find: "    return found!.size < logBytesMax ? Effect.void : relieve",
    replace: "    return Effect.void",
    fails: "keeps all, and says that the log grows"
  },
  {
    id: "CRASH-3",
    breaks: "what a map comes to isn't looked at",
    ...server("Partitions", "corruption"),
    find:
      "          if (stored === undefined || (stored.records === records && stored.hi === hi && stored.lo === lo)) return",
    replace: "          if (stored !== null) return",
    fails: "DELETE FROM records WHERE rowid = 17"
  },
  {
    id: "CRASH-3",
    breaks: "the seal isn't looked at",
    ...server("SqliteStore", "corruption"),
    find: "    if (sealed !== undefined && sealed.commits > commits) {",
    replace: "    if (sealed !== undefined && sealed.commits < 0) {",
    fails: "are refused without the log"
  },
  {
    id: "CRASH-3",
    breaks: "the seal of another database counts",
    ...server("SqliteStore", "corruption"),
    find: "    if (sealed !== undefined && sealed.generation !== generation) {",
    replace: "    if (sealed !== undefined && sealed.generation === \"\") {",
    fails: "are refused with another server's database"
  },
  {
    id: "CRASH-3",
    breaks: "a database that is missing is made anew",
    ...server("SqliteStore", "corruption"),
    find: "    } else if (sealed !== undefined) {",
    replace: "    } else if (sealed !== undefined && sealed.commits < 0) {",
    fails: "are refused without the database, which isn't made anew then"
  },
  {
    id: "CRASH-3",
    breaks: "the index isn't looked at",
    ...server("SqliteStore", "corruption"),
    find: "  if (isFound !== 1) throw new Error(`record ${rowid} of map \"${map.name}\" isn't found by its key`)",
    replace: "",
    fails: "in the table or in its index alone, is refused"
  },
  {
    id: "CRASH-3",
    breaks: "the age of a tombstone isn't looked at",
    ...server("SqliteStore", "corruption"),
    find: "  if (crc !== (age === null ? null : crcOf(age, row))) {",
    replace: "  if (crc === undefined) {",
    fails: "UPDATE records SET age = age + 1"
  },
  {
    id: "CRASH-3",
    breaks: "what no totals cover isn't looked at",
    ...server("SqliteStore", "corruption"),
    find: "  if (fault !== undefined) return yield* damaged(fault)",
    replace: "",
    fails: "UPDATE maps SET name"
  },
  {
    id: "CRASH-3",
    breaks: "a database that was put back has no seal before it is written to",
    ...server("SqliteStore", "corruption"),
    find: "  yield* Effect.suspend(sealCommit)",
    replace: "",
    fails: "are served, as they are, when whoever put them there removes the seal as well"
  },
  {
    id: "CRASH-3",
    breaks: "a torn seal says nothing",
    ...server("Seal", "Seal"),
    find: "(sealed.commits % 2) * placeBytes",
    replace: "0",
    fails: "says what it said before, or what is being written, wherever that is torn"
  },
  {
    id: "CRASH-3",
    breaks: "any count passes for a seal's",
    ...server("Seal", "Seal"),
    find: "generation === undefined || check !== checkOf(generation, commits)",
    replace: "generation === undefined",
    fails: "takes nothing for a seal that isn't one"
  },
  {
    id: "ACK-2",
    breaks: "who was promised nothing is cut off while the database fails",
    ...server("WriteAcks", "Durability"),
    find: "isPatient: concern !== \"PERSISTED\" }",
    replace: "isPatient: false }",
    fails: "goes on with writers who were promised no more than they got, and tells them when it is saved"
  },
  {
    id: "CRASH-1",
    breaks: "a write is called PERSISTED before PostgreSQL has it",
    ...inProcesses("WriteAcks", "crashPostgres"),
    find: "        if (concern !== \"PERSISTED\") acknowledge(\"APPLIED\")",
    replace: "        acknowledge(concern === \"PERSISTED\" ? \"PERSISTED\" : \"APPLIED\")",
    fails: "holds it when it dies before or after the n-th COMMIT, and when the database crashes under it"
  },
  {
    id: "GC-2",
    breaks: "deletions are remembered for who keeps nothing",
    ...client("SyncEngine", "forgetting"),
    find: "      if (replica.storageDurable()) yield* Effect.forkScoped(confirmations(hello.generation))",
    replace: "      yield* Effect.forkScoped(confirmations(hello.generation))",
    fails: "nothing that it doesn't keep: nothing is remembered for who never comes back"
  },
  {
    id: "GC-1",
    breaks: "what is forgotten is not in a backup",
    ...server("Backup", "Backup"),
    find: "    for (const [space, ofSpace] of notes) {",
    replace: "    for (const [space, ofSpace] of notes.size < 0 ? notes : []) {",
    fails: "is restored as it was, notes and ages included, as another store"
  },
  {
    id: "GC-1",
    breaks: "a restored tombstone is as young as the backup",
    ...server("Restore", "Backup"),
    find: "record.isTombstone ? age ?? this.reader.header!.age : 0",
    replace: "record.isTombstone ? this.reader.header!.age : 0",
    fails: "is restored as it was, notes and ages included, as another store"
  },
  {
    id: "GC-1",
    breaks: "who was at the store before a restore drops what that lacks",
    ...serverByClient("Session", "restored"),
    find: "(confirmed[0] !== persistence.generation || confirmed[1] > this.#toldAge)",
    replace: "confirmed[1] > this.#toldAge",
    fails: "isn't told to drop what only it has"
  },
  {
    id: "GC-1",
    breaks: "a restored store passes for the one that it replaces",
    ...server("PostgresStore", "Backup"),
    find: "          for (const key of [\"generation\", \"nodeId\"]) {",
    replace: "          for (const key of [\"nodeId\"]) {",
    fails: "goes into an empty store, and into another only where it's to be replaced; never beside a server"
  },
  {
    id: "CRASH-3",
    breaks: "a backup that breaks off is taken for whole",
    ...core("BackupFile", "BackupFile"),
    find: "    if (!this.#ended) throw",
    replace: "    if (this.#lines < 0) throw",
    fails: "is refused when it breaks off"
  },
  {
    id: "CRASH-3",
    breaks: "what the maps of a backup come to isn't looked at",
    ...core("BackupFile", "BackupFile"),
    find: "    if (fault !== undefined) throw unusable(fault)",
    replace: "",
    fails: "is refused when a record is in another map, or was changed"
  },
  {
    id: "CRASH-3",
    breaks: "the SHA-256 of a backup isn't looked at",
    ...server("Restore", "Backup"),
    find: "        if (line.sha256 === this.#hash.digest(\"hex\")) return",
    replace: "        return",
    fails: "that isn't whole, or isn't one, changes nothing"
  },
  {
    id: "CRASH-3",
    breaks: "a backup of data that was changed behind the server's back succeeds",
    ...server("Backup", "Backup"),
    find: "      const fault = totals === undefined ? undefined : tally.faultOf(map, totals)",
    replace: "      const fault = totals === undefined ? undefined : undefined",
    fails: "of data that was changed behind the server's back fails, and says so in its last line"
  },
  {
    id: "CRASH-3",
    breaks: "a store that has data is replaced unasked",
    ...server("Restore", "Backup"),
    find: "    if (hasData && !options.replace) {",
    replace: "    if (hasData && options.replace && !hasData) {",
    fails: "goes into an empty store, and into another only where it's to be replaced; never beside a server"
  },
  {
    id: "AUTH-3",
    breaks: "whoever has a token gets a backup",
    ...server("Gateway", "BackupGuard"),
    find: "      if (!policies.current().mayBackUp(principal)) {",
    replace: "      if (!policies.current().mayBackUp(principal) && principal === undefined) {",
    fails: "is for those whom the policy names, and for nobody else"
  },
  {
    id: "AUTH-3",
    breaks: "a page of another origin takes a backup of this machine's server",
    ...server("Gateway", "BackupGuard"),
    find: "    if (isOfAnotherPage(headers)) return say(403, \"pages of other origins may not take a backup\")",
    replace: "",
    fails: "is there for this machine, as it calls itself, and for no page of another's"
  },
  {
    id: "AUTH-3",
    breaks: "a page takes a backup of this machine's server by a name that it has made lead here",
    ...server("Gateway", "BackupGuard"),
    find: "    if (isAnonymous && !(isLoopback(settings.host) && callsLoopback(headers[\"host\"]))) {",
    replace: "    if (isAnonymous && !isLoopback(settings.host)) {",
    fails: "is there for this machine, as it calls itself, and for no page of another's"
  },
  {
    id: "AUTH-3",
    breaks: "tokens are tried at /backup without an end",
    ...server("Gateway", "BackupGuard"),
    find: "        Effect.tapErrorTag(\"AuthRequired\", () => Effect.sync(visitor.authenticationFailed)),",
    replace: "",
    fails: "isn't to be got by trying tokens"
  },
  {
    id: "FLOW-3",
    breaks: "what devices confirm piles up while the database fails",
    ...server("Confirmations", "Confirmations"),
    find: "        if (isKeeping || unkept.size === 0) return",
    replace: "        if (unkept.size === 0) return",
    fails: "is written down some at a time, and waits outside of the line while the database fails"
  },
  {
    id: "QRY-1",
    breaks: "a window that has dropped rows takes itself for complete",
    ...core("QueryWindow", "LiveQueries"),
    find: "this.#edge = this.#list.last",
    replace: "    this.#edge = undefined",
    fails: "shows what comes next when all that it holds goes"
  },
  {
    id: "QRY-1",
    breaks: "a window that has run short isn't filled again",
    ...core("QueryWindow", "LiveQueries"),
    find: "    return this.#edge !== undefined && this.#list.size <= this.#limit",
    replace: "    return false && this.#list.size <= this.#limit",
    fails: "shows what comes next when all that it holds goes"
  },
  {
    id: "QRY-1",
    breaks: "what is pushed over the border of a window isn't told",
    ...core("QueryWindow", "LiveQueries"),
    find: "      const crossing = this.#touched.size",
    replace: "      const crossing = 0",
    fails: "a live query shows at every version what a fresh evaluation finds"
  },
  {
    id: "QRY-1",
    breaks: "a record that matches no more stays",
    ...core("LiveQueries", "LiveQueries"),
    find: "    else this.#window.delete(key)",
    replace: "    else if (shown === undefined) this.#window.delete(key)",
    fails: "a live query shows at every version what a fresh evaluation finds"
  },
  {
    id: "QRY-1",
    breaks: "a record that isn't tied to a query any more stays in it",
    ...core("LiveQueries", "LiveQueries"),
    find: "    if (holders instanceof LiveQuery) holders.judge(key, value)",
    replace: "    if (holders instanceof LiveQuery && value === undefined) holders.judge(key, value)",
    fails: "a live query shows at every version what a fresh evaluation finds"
  },
  {
    id: "QRY-1",
    breaks: "only the first of several queries with one tie is told",
    ...core("LiveQueries", "LiveQueries"),
    find: "  else if (known !== query) map.set(key, new Set([known, query]))",
    replace: "",
    fails: "a live query shows at every version what a fresh evaluation finds"
  },
  {
    id: "QRY-1",
    breaks: "a window that was filled in order as far as it needs takes itself for complete",
    ...core("QueryWindow", "LiveQueries"),
    find: "this.#edge = last",
    replace: "    this.#edge = this.#edge",
    fails: "shows what comes next when all that it holds goes"
  },
  {
    id: "QRY-1",
    breaks: "a query hears nothing of what is written",
    ...client("LocalQueries", "queries"),
    find: "this.#stop = replica.witness(name, { changed: (key) => this.live.set(key, cells.get(key)) })",
    replace: "this.#stop = replica.witness(name, { changed: () => {} })",
    fails: "is answered at once, and is right as soon as something was written"
  },
  {
    id: "QRY-1",
    breaks: "a query is read as it was at the end of the last tick",
    ...client("LocalQueries", "queries"),
    find: "          settle: () => engine.live.settle(),",
    replace: "          settle: () => {},",
    fails: "is answered at once, and is right as soon as something was written"
  },
  {
    id: "QRY-1",
    breaks: "a query that is closed is evaluated still",
    ...client("LocalQueries", "queries"),
    find: "            close()",
    replace: "            void close",
    fails: "leave nothing behind, however many are opened and closed"
  },
  {
    id: "QRY-1",
    breaks: "listeners of one map read queries of another as they were before the step",
    ...client("Replica", "queries"),
    find: "      witness(name, ofMap)",
    replace: "      queueMicrotask(() => witness(name, ofMap))",
    fails: "is of one step with what listeners of any map are told of"
  },
  {
    id: "QRY-1",
    breaks: "queries keep what has expired",
    ...client("Replica", "queries"),
    find: "    for (const [map, ofMap] of changes) witness(map, ofMap)",
    replace: "",
    fails: "loses what expires, at its time"
  },
  {
    id: "QRY-1",
    breaks: "rows are others though they show the same",
    ...client("OpenQuery", "queries"),
    find: "if (before !== undefined && before.score === score && this.#shows(before.value, value)) continue",
    replace: "if (before === null) continue",
    fails: "keeps what it shows the same object for as long as it is the same"
  },
  {
    id: "QRY-1",
    breaks: "a row is another one though what is selected is the same",
    ...client("OpenQuery", "queries"),
    find: "    return before === value || (this.#isSelected && Value.equal(before, value))",
    replace: "    return before === value",
    fails: "keeps what it shows the same object for as long as it is the same"
  },
  {
    id: "QRY-1",
    breaks: "what changes of a row twice is told as it was between",
    ...client("OpenQuery", "queries"),
    find: "    if (touched === undefined) this.#touched.set(key, { before, isMoved })",
    replace: "    if (touched !== null) this.#touched.set(key, { before, isMoved })",
    fails: "tell of a row that changed and was read several times in a tick as what became of it"
  },
  {
    id: "QRY-1",
    breaks: "a grown query that is refused takes the place of the one before",
    ...client("OpenQuery", "queries"),
    find: "    if (refusal === undefined) this.#follow(query, answered)",
    replace: "    if (answered !== undefined) this.#follow(query, answered)",
    fails: "that the server refuses says why, and loses the server's rows"
  },
  {
    id: "QRY-1",
    breaks: "a query says offline that it is complete",
    ...client("Queries", "queries"),
    find: "      isComplete: () => isInStep(map),",
    replace: "      isComplete: () => true,",
    fails: "says whether it is complete: in step with the server, and not offline"
  },
  {
    id: "QRY-1",
    breaks: "a query asks this device on for what isn't downloaded any more",
    ...client("Queries", "queries"),
    find: "          open.set(each, isHere)",
    replace: "          continue",
    fails: "ask the server from when a map isn't downloaded any more"
  },
  {
    id: "QRY-1",
    breaks: "a gap in a query's versions is gone over",
    ...client("RemoteQueries", "queries"),
    find: "    if (after !== 0 && after !== this.#version) {",
    replace: "    if (after < 0) {",
    fails: "leaves gaps in its versions"
  },
  {
    id: "QRY-1",
    breaks: "a server fills the memory by parts without an end",
    ...client("RemoteQueries", "queries"),
    find:
      "    if (incoming.rows.size > this.#rowsMax || incoming.left.size > this.#rowsMax || this.#bytesHeld > rowsBytesMax) {",
    replace: "    if (this.#bytesHeld > rowsBytesMax) {",
    fails: "sends parts without an end"
  },
  {
    id: "QRY-1",
    breaks: "queries aren't asked again on the next connection",
    ...client("RemoteQueries", "queries"),
    find: "        each((question) => question.ask())",
    replace: "",
    fails: "keeps its rows without a connection, and has them anew with the next"
  },
  {
    id: "QRY-1",
    breaks: "what is written here shows only when the server has it",
    ...client("RemoteQueries", "queries"),
    find: "(row === undefined || isLater(own, row.record))",
    replace: "row === undefined",
    fails: "shows what is written here at once, and what the server makes of it"
  },
  {
    id: "QRY-1",
    breaks: "an own write that lost stays in the rows",
    ...client("RemoteQueries", "queries"),
    find: "      if (this.isComplete) this.judge(key)",
    replace: "      if (this.isComplete) return",
    fails: "gives one's own write up for a later one of another's"
  },
  {
    id: "QRY-1",
    breaks: "the rows of a refused query stay",
    ...client("RemoteQueries", "queries"),
    find: "    this.#judgeAll(gone.keys())",
    replace: "",
    fails: "that a server refused are asked again, and answered when that may be"
  },
  {
    id: "QRY-1",
    breaks: "what was refused once is refused for ever",
    ...client("RemoteQueries", "queries"),
    find: "        if (isRefused(question)) question.ask()",
    replace: "",
    fails: "that a server refused are asked again, and answered when that may be"
  },
  {
    id: "QRY-1",
    breaks: "rows that are no more in the whole answer stay",
    ...client("RemoteQueries", "queries.model"),
    find: "    this.#judgeAll([...before.keys(), ...rows.keys(), ...own])",
    replace: "    this.#judgeAll([...rows.keys(), ...own])",
    fails: "show what a plain evaluation finds"
  },
  {
    id: "QRY-1",
    breaks: "a leader keeps the rows that a follower has asked for",
    ...client("TabQueries", "queries"),
    find: "    if (answer._tag === \"QueryAck\") this.#numbers.set(answer.id, answer.query)",
    replace: "    if (answer._tag === \"QueryAck\") this.#numbers.delete(answer.id)",
    fails: "by way of a leading tab are answered as its own"
  },
  {
    id: "QRY-1",
    breaks: "a tab's own write that lost stays in its rows",
    ...client("Mirror", "queries.model"),
    find: "      for (const { base, cell } of states) if (base === undefined) onConfirmed(map, cell)",
    replace: "",
    fails: "show what a plain evaluation finds"
  },
  {
    id: "QRY-2",
    breaks: "a hash index keeps a record under its old value",
    ...core("Indexes", "Indexes"),
    find: "    if (field === this.#fields[id]) return",
    replace: "    if (this.#fields[id] !== undefined) return",
    fails: "find every record of which a condition is true, whatever was there before"
  },
  {
    id: "QRY-2",
    breaks: "a sorted index loses a record that moves",
    ...core("Indexes", "Indexes"),
    find: "    this.#list.add(entry)",
    replace: "    if (before === undefined) this.#list.add(entry)",
    fails: "find every record of which a condition is true, whatever was there before"
  },
  {
    id: "QRY-2",
    breaks: "a range leaves out what it ends with",
    ...core("QueryPlan", "Indexes"),
    find:
      "      return { isBefore: (field) => rankOf(field) < rank, isUpTo: (field) => compareFields(field, literal) <= 0 }",
    replace:
      "      return { isBefore: (field) => rankOf(field) < rank, isUpTo: (field) => compareFields(field, literal) < 0 }",
    fails: "find every record of which a condition is true, whatever was there before"
  },
  {
    id: "QRY-2",
    breaks: "a list's texts aren't looked into by contains",
    ...core("Indexes", "Indexes"),
    find: "    if (typeof field === \"string\") this.#texts.add(id)",
    replace: "    if (field === \"\") this.#texts.add(id)",
    fails: "find every record of which a condition is true, whatever was there before"
  },
  {
    id: "QRY-2",
    breaks: "one index is taken for both sides of an or",
    ...core("QueryPlan", "Indexes"),
    find: "    const parts = node.nodes.map((part) => accessFor(indexes, part))",
    replace: "    const parts = node.nodes.slice(0, 1).map((part) => accessFor(indexes, part))",
    fails: "find every record of which a condition is true, whatever was there before"
  },
  {
    id: "QRY-2",
    breaks: "an index that orders by more fields is taken for the order",
    ...core("QueryPlan", "LiveQueries"),
    find: "  const follows = open.length === index.spec.fields.length - equals &&",
    replace: "  const follows = open.length <= index.spec.fields.length - equals &&",
    fails: "an index of more fields isn't taken for the order of fewer"
  },
  {
    id: "QRY-2",
    breaks: "records of which a condition is unknown are found",
    ...core("LiveQueries", "LiveQueries"),
    find:
      "    if (shown !== undefined && this.#test(shown) === true && this.#isAfter(key, shown)) this.#window.put(key, shown)",
    replace:
      "    if (shown !== undefined && this.#test(shown) !== false && this.#isAfter(key, shown)) this.#window.put(key, shown)",
    fails: "a live query shows at every version what a fresh evaluation finds"
  },
  {
    id: "QRY-2",
    breaks: "long fields aren't held against their terms as much as declared",
    ...core("internal/bm25", "FullText"),
    find: "base: k1 * (1 - b),",
    replace: "base: k1,",
    fails: "finds what the formula finds that is worked out over all documents, with its scores"
  },
  {
    id: "QRY-2",
    breaks: "a term's rarity is another",
    ...core("internal/bm25", "FullText"),
    find: "Math.log(1 + (documents - frequency + 0.5)",
    replace: "Math.log(1 + (total - frequency + 0.5)",
    fails: "finds what the formula finds that is worked out over all documents, with its scores"
  },
  {
    id: "QRY-2",
    breaks: "the boost of a field counts nothing",
    ...core("FullText", "FullText"),
    find: "      boost: weight * boost,",
    replace: "      boost: weight,",
    fails: "finds what the formula finds that is worked out over all documents, with its scores"
  },
  {
    id: "QRY-2",
    breaks: "a search goes through all fields",
    ...core("FullText", "FullText"),
    find: "    return this.#fields.filter((field) => parsed.fields.includes(field.path))",
    replace: "    return this.#fields",
    fails: "finds what the formula finds that is worked out over all documents, with its scores"
  },
  {
    id: "QRY-2",
    breaks: "documents that have nothing any more are counted in the average",
    ...core("FullText", "FullText"),
    find: "field.documents += Number(length > 0) - Number(before > 0)",
    replace: "field.documents += Number(length > 0 && before === 0)",
    fails: "after any history answers as one in an index built anew, bit for bit"
  },
  {
    id: "QRY-2",
    breaks: "terms of removed documents are kept",
    ...core("FullText", "FullText"),
    find: "      this.#vocabulary.drop(id)",
    replace: "",
    fails: "after any history answers as one in an index built anew, bit for bit"
  },
  {
    id: "QRY-2",
    breaks: "a beginning stands for terms that nobody has any more",
    ...core("internal/vocabulary", "FullText"),
    find: "if (hasBeginnings(term)) this.#ordered.delete(term)",
    replace: "",
    fails: "after any history answers as one in an index built anew, bit for bit"
  },
  {
    id: "QRY-2",
    breaks: "a document that takes another's place in a list loses sight of it",
    ...core("internal/postings", "FullText"),
    find: "    this.#positions[moved] = position",
    replace: "",
    fails: "answers alike while the lists of terms grow and shrink"
  },
  {
    id: "QRY-2",
    breaks: "a list that moves leaves behind how often its documents have the term",
    ...core("internal/postings", "FullText"),
    find: "        this.#counts.copyWithin(to, from, end)",
    replace: "",
    fails: "answers alike while the lists of terms grow and shrink"
  },
  {
    id: "QRY-2",
    breaks: "a list that shrinks has less room than documents",
    ...core("internal/postings", "FullText"),
    find: "none : Blocks.sizeFor(length * 2))",
    replace: "none : Blocks.sizeFor(length >> 1))",
    fails: "answers alike while the lists of terms grow and shrink"
  },
  {
    id: "QRY-2",
    breaks: "what is put in place of a document leaves the old one's terms",
    ...core("internal/postings", "FullText"),
    find: "        this.#take(list, this.#positions[slot]!)",
    replace: "        if (lists.length === 0) this.#take(list, this.#positions[slot]!)",
    fails: "after any history answers as one in an index built anew, bit for bit"
  },
  {
    id: "QRY-2",
    breaks: "scores of one search are there in the next",
    ...core("FullText", "FullText"),
    find: "for (let i = 0; i < found; i++) this.#scores",
    replace: "for (let i = 1; i < found; i++) this.#scores",
    fails: "leaves nothing behind when accept throws, and isn't begun within another"
  },
  {
    id: "QRY-2",
    breaks: "equal hits are in any order",
    ...core("FullText", "FullText"),
    find: "      return x > y || (x === y && compareNames(keys[a]!, keys[b]!) < 0)",
    replace: "      return x > y || (x === y && a < b)",
    fails: "has the best of many, of equal ones the first by key, whatever the order in which they came"
  },
  {
    id: "QRY-2",
    breaks: "the best are not what a limit keeps",
    ...core("internal/best", "FullText"),
    find: "if (child + 1 < size && isBetter(heap[child]!, heap[child + 1]!)) child++",
    replace: "",
    fails: "has the best of many, of equal ones the first by key, whatever the order in which they came"
  },
  {
    id: "QRY-2",
    breaks: "a live search hears of terms in other fields",
    ...core("FullText", "FullText"),
    find: "      fields.some((field) => this.#postings.countOf(",
    replace: "      this.#fields.some((field) => this.#postings.countOf(",
    fails: "finds exactly the documents that match"
  },
  {
    id: "QRY-2",
    breaks: "a beginning is looked up once for all changes",
    ...core("FullText", "FullText"),
    find: "known.revision === this.#revision && known.among",
    replace: "known.revision >= 0 && known.among",
    fails: "parses a query once for many changes"
  },
  {
    id: "QRY-2",
    breaks: "what explains a score isn't its sum",
    ...core("FullText", "FullText"),
    find: "        score += part",
    replace: "        score = part",
    fails: "is explained by parts whose sum is the score"
  },
  {
    id: "QRY-2",
    breaks: "a beginning counts as much as the word",
    ...core("FullText", "FullText"),
    find: "sought.push({ term, id, weight: prefixWeight })",
    replace: "sought.push({ term, id, weight: 1 })",
    fails: "counts half of the word itself"
  },
  {
    id: "QRY-2",
    breaks: "a beginning stands for any of its terms",
    ...core("FullText", "FullText"),
    find: "      frequency > other.frequency ||",
    replace: "      false ||",
    fails: "stands for the most frequent terms, of equal ones for the first, and no more than that"
  },
  {
    id: "QRY-2",
    breaks: "what is typed of a stemmed word is lost at its stem's end",
    ...core("FullText", "FullText"),
    find: "    if (best.length > 0 || !this.#analyzer.stems)",
    replace: "    if (best.length >= 0)",
    fails: "is found of words that are stemmed, whatever has been typed of them"
  },
  {
    id: "QRY-2",
    breaks: "a stop word is the beginning of another word",
    ...core("internal/analyzer", "FullText"),
    find: "last === undefined || this.#stopWords.has(last)",
    replace: "last === undefined",
    fails: "is never that of a stop word"
  },
  {
    id: "QRY-2",
    breaks: "highlights swallow what is behind them",
    ...core("FullText", "FullText"),
    find: "if (before !== undefined && start < before[1])",
    replace: "if (before !== undefined)",
    fails: "cover exactly the words whose term the query has, or that begin so"
  },
  {
    id: "QRY-2",
    breaks: "highlights are in all fields",
    ...core("FullText", "FullText"),
    find: "      if (!parsed.fields.includes(field.path)) return",
    replace: "",
    fails: "cover exactly the words whose term the query has, or that begin so"
  },
  {
    id: "QRY-2",
    breaks: "a highlight has what can't be seen behind its word",
    ...core("internal/analyzer", "FullText"),
    find: "} else if (kind === invisible) this.#hasInvisible = true",
    replace: "} else if (kind === invisible) end = next",
    fails: "are one for all ways to write a letter"
  },
  {
    id: "QRY-2",
    breaks: "a letter with its accent isn't the one that has it",
    ...core("internal/analyzer", "FullText"),
    find: "  let text = raw.normalize(folds ? \"NFKD\" : \"NFKC\")",
    replace: "  let text = raw",
    fails: "are one for all ways to write a letter"
  },
  {
    id: "QRY-2",
    breaks: "a sigma at the end is another letter",
    ...core("internal/analyzer", "FullText"),
    find: ".replaceAll(\"ς\", \"σ\")",
    replace: "",
    fails: "are one for all ways to write a letter"
  },
  {
    id: "QRY-2",
    breaks: "ß isn't ss",
    ...core("internal/analyzer", "FullText"),
    find: ".replaceAll(\"ß\", \"ss\")",
    replace: "",
    fails: "are one for all ways to write a letter"
  },
  {
    id: "QRY-2",
    breaks: "accents are folded whatever the language",
    ...core("internal/analyzer", "FullText"),
    find: "  return (folds ? text.replaceAll(accents, \"\") : text).normalize(\"NFC\")",
    replace: "  return text.normalize(\"NFD\").replaceAll(accents, \"\").normalize(\"NFC\")",
    fails: "differ by accents only where a language says so"
  },
  {
    id: "QRY-2",
    breaks: "vowels end a word",
    ...core("internal/analyzer", "FullText"),
    find: "  if (isMark.test(text)) return mark",
    replace: "  if (isMark.test(text)) return separator",
    fails: "keep the marks that make a syllable"
  },
  {
    id: "QRY-2",
    breaks: "text without spaces is one word",
    ...core("internal/analyzer", "FullText"),
    find: "(isUnspaced.test(text) ? unspaced : letter)",
    replace: "letter",
    fails: "are characters and pairs of them, where a script has no spaces"
  },
  {
    id: "QRY-2",
    breaks: "a query for two characters finds what has one of them",
    ...core("internal/analyzer", "FullText"),
    find: "if (this.#isDocument || isAlone)",
    replace: "if (this.#isDocument || !isAlone)",
    fails: "are characters and pairs of them, where a script has no spaces"
  },
  {
    id: "QRY-2",
    breaks: "a letter that stands for several words is one",
    ...core("internal/analyzer", "FullText"),
    find: "(isWord.test(normal) ? 0 : compound)",
    replace: "0",
    fails: "cover words that were stemmed, folded, or taken apart, as they are written"
  },
  {
    id: "QRY-2",
    breaks: "half of a character is left where a term is cut",
    ...core("internal/analyzer", "FullText"),
    find: "last >= 0xd800 && last < 0xdc00 ? lengthMax - 1 : lengthMax",
    replace: "lengthMax",
    fails: "are cut where they are long, and never in the middle of a character"
  },
  {
    id: "QRY-2",
    breaks: "words aren't stemmed",
    ...core("internal/analyzer", "FullText"),
    find: "    const stem = this.#rules.stem(word)",
    replace: "    const stem = word",
    fails: "know what a word's forms have in common, and which words say nothing"
  },
  {
    id: "QRY-2",
    breaks: "stop words are found",
    ...core("internal/analyzer", "FullText"),
    find: "    if (this.#stopWords.has(word)) return \"\"",
    replace: "",
    fails: "know what a word's forms have in common, and which words say nothing"
  },
  {
    id: "QRY-2",
    breaks: "contractions are found",
    ...core("internal/analyzer", "FullText"),
    find: "      if (this.#analyzer.isStopWord(this.#written(first, end))) {",
    replace: "      if (false) {",
    fails: "know what a word's forms have in common, and which words say nothing"
  },
  {
    id: "QRY-2",
    breaks: "what is left of a contraction is found",
    ...core("internal/analyzer", "FullText"),
    find: "      if (at > 0) stopWords.add(normal.slice(at + 1))",
    replace: "",
    fails: "know what a word's forms have in common, and which words say nothing"
  },
  {
    id: "QRY-2",
    breaks: "stop words are compared with what can't be seen in their list",
    ...core("internal/analyzer", "FullText"),
    find: "this.normal(word.replaceAll(invisibles, \"\"))",
    replace: "this.normal(word)",
    fails: "know what a word's forms have in common, and which words say nothing"
  },
  {
    id: "QRY-2",
    breaks: "a Turkish I is that of other languages",
    ...core("Languages", "FullText"),
    find: "    isTurkic: true",
    replace: "    isTurkic: false",
    fails: "know what a word's forms have in common, and which words say nothing"
  },
  {
    id: "QRY-2",
    breaks: "an index takes what another language needs",
    ...core("FullText", "FullText"),
    find: "    if (analyzer.language !== options.language) {",
    replace: "    if (analyzer.language === null) {",
    fails: "refuses options that mean nothing"
  },
  {
    id: "QRY-2",
    breaks: "a fusion depends on the order of its rankings",
    ...core("internal/fuse", "FullText"),
    find: "places.sort((x, y) => x - y).reduce",
    replace: "places.reduce",
    fails: "sums 1 / (k + rank), whatever the order of the rankings"
  },
  {
    id: "QRY-2",
    breaks: "a key counts again behind its first place",
    ...core("internal/fuse", "FullText"),
    find: "      if (seen.has(key)) continue",
    replace: "",
    fails: "of one ranking is that ranking, and a key counts once in it"
  },
  {
    id: "QRY-3",
    breaks: "a query for text has any length",
    ...core("FullText", "FullText"),
    find: "    if (text.length > queryLengthMax) {",
    replace: "    if (text.length > Infinity) {",
    fails: "is refused when it is too long, or has too many terms"
  },
  {
    id: "QRY-3",
    breaks: "a query for text has any number of terms",
    ...core("FullText", "FullText"),
    find: "    if (terms.length > queryTermsMax) {",
    replace: "    if (terms.length > Infinity) {",
    fails: "is refused when it is too long, or has too many terms"
  },
  {
    id: "QRY-3",
    breaks: "a beginning stands for any number of terms",
    ...core("FullText", "FullText"),
    find: "        best.pop()",
    replace: "",
    fails: "stands for the most frequent terms, of equal ones for the first, and no more than that"
  },
  {
    id: "QRY-3",
    breaks: "a document has any number of terms",
    ...core("FullText", "FullText"),
    find: "          return --left > 0",
    replace: "          return true",
    fails: "is a bounded number of terms, the first"
  },
  {
    id: "QRY-3",
    breaks: "a word is normalized however long it is",
    ...core("internal/analyzer", "FullText"),
    find: "cut(this.#text.slice(start, end), wordLengthMax)",
    replace: "this.#text.slice(start, end)",
    fails: "of marks without end has words of bounded work"
  },
  {
    id: "QRY-3",
    breaks: "a character has any number of marks",
    ...core("internal/analyzer", "FullText"),
    find: "cut(text.slice(start, end), clusterLengthMax)",
    replace: "text.slice(start, end)",
    fails: "of marks without end has words of bounded work"
  },
  {
    id: "QRY-3",
    breaks: "terms have any length",
    ...core("internal/analyzer", "FullText"),
    find: "export const termLengthMax = 64",
    replace: "export const termLengthMax = 640",
    fails: "are cut where they are long, and never in the middle of a character"
  },
  {
    id: "QRY-3",
    breaks: "every document is asked for that could be found",
    ...core("internal/best", "FullText"),
    find: " && !isBetter(candidate, heap[0]!)) continue",
    replace: ") { if (!accept(candidate) || !isBetter(candidate, heap[0]!)) continue }",
    fails: "asks of no document whether it is accepted that the limit leaves out anyway"
  },
  {
    id: "QRY-2",
    breaks: "a later word is taken for the last one",
    ...core("internal/analyzer", "FullText"),
    find: "      terms.delete(term)",
    replace: "",
    fails: "is of the last word, even if the query has its term before"
  },
  {
    id: "PERM-1",
    breaks: "scores tell of documents that aren't there for somebody",
    ...core("FullText", "FullText"),
    find: "for (let cell = start; cell < start + length; cell++) frequency += mask[this.#postings.docs[cell]!]!",
    replace: "frequency = length",
    fails: "among some documents is one in an index that has no others, bit for bit"
  },
  {
    id: "PERM-1",
    breaks: "a search finds what isn't there for somebody",
    ...core("FullText", "FullText"),
    find: "          if (mask !== undefined && mask[doc] === 0) continue",
    replace: "",
    fails: "among some documents is one in an index that has no others, bit for bit"
  },
  {
    id: "PERM-1",
    breaks: "the lengths of documents that aren't there count in scores",
    ...core("FullText", "FullText"),
    find: "        totals[at]! += lengths[doc]!",
    replace: "        totals[at] = this.#fields[at]!.total",
    fails: "among some documents is one in an index that has no others, bit for bit"
  },
  {
    id: "PERM-1",
    breaks: "a beginning stands for terms of documents that aren't there for somebody",
    ...core("FullText", "FullText"),
    find: "this.#beginningWith(parsed, parsed.prefix, this.#censusOf(among))",
    replace: "this.#beginningWith(parsed, parsed.prefix, this.#censusOf(undefined))",
    fails: "among some documents takes the beginning of a word for their terms only"
  },
  {
    id: "PERM-1",
    breaks: "what one is answered of a beginning another is answered too",
    ...core("FullText", "FullText"),
    find: " && known.among === among) return known.sought",
    replace: ") return known.sought",
    fails: "among some documents takes the beginning of a word for their terms only"
  },
  {
    id: "QRY-2",
    breaks: "which documents are there is asked once for all changes",
    ...core("FullText", "FullText"),
    find: "    if (known !== undefined && known.revision === this.#revision) return known.census",
    replace: "    if (known !== undefined) return known.census",
    fails: "asks which documents are there once, until the index changes"
  },
  {
    id: "QRY-2",
    breaks: "what is passed in a value is taken for shorter than it is",
    ...core("internal/valueReader", "Value"),
    find: "          at += 1 + bytes[at]!",
    replace: "          at += bytes[at]!",
    fails: "comes back in part with the fields that are asked for, and with nothing else"
  },
  {
    id: "QRY-1",
    breaks: "a search isn't made anew when a record goes that it has found",
    ...core("LiveSearch", "LiveSearch"),
    find: "    for (const search of this.#searches) if (search.concerns(key)) touched.add(search)",
    replace: "",
    fails: "a live search shows at every version what an index of the records finds"
  },
  {
    id: "PERM-1",
    breaks: "a search knows of records that who asks may not read",
    ...core("LiveSearch", "LiveSearch"),
    find: "    return this.#audience === undefined ? {} : { among: this.#audience.among }",
    replace: "    return {}",
    fails: "a live search shows at every version what an index of the records finds"
  },
  {
    id: "PERM-1",
    breaks: "who may not read a record any more is still searched for in it",
    ...core("LiveSearch", "LiveSearch"),
    find: "      else keys.delete(key)",
    replace: "",
    fails: "a live search shows at every version what an index of the records finds"
  },
  {
    id: "QRY-1",
    breaks: "a page of a search begins with the first row again",
    ...core("LiveSearch", "LiveSearch"),
    find: "      if (this.#after === undefined || this.#ordering.compare(row, this.#after) > 0) rows.push(row)",
    replace: "      rows.push(row)",
    fails: "pages of a search follow each other"
  },
  {
    id: "QRY-1",
    breaks: "where fields are equal keys decide the other way round than the last field",
    ...core("Query", "Query"),
    find: "      return byKey(a.key, b.key)",
    replace: "      return byKey(b.key, a.key)",
    fails: "is total, and that of single records"
  },
  {
    id: "QRY-3",
    breaks: "a cursor that was changed is taken",
    ...core("Query", "Query"),
    find: "  if (!(content instanceof Uint8Array) || digest !== digestOf(content)) {",
    replace: "  if (!(content instanceof Uint8Array)) {",
    fails: "are refused with any byte changed, left out or added"
  },
  {
    id: "QRY-3",
    breaks: "a cursor of another query is taken",
    ...core("Query", "Query"),
    find: "  if (bound !== digestOf(Value.encodeTransient(orderOf(query)))) {",
    replace: "  if (bound === \"\") {",
    fails: "are of their query, whatever its limit and what it selects"
  },
  {
    id: "QRY-1",
    breaks: "what is gathered says that there is no more where the nodes have given all",
    ...core("Query", "Query"),
    find: "  return { rows: first, hasMore: first.length < rows.length || answers.some(({ hasMore }) => hasMore) }",
    replace: "  return { rows: first, hasMore: answers.some(({ hasMore }) => hasMore) }",
    fails: "makes of the answers of several nodes that of one that has all records"
  },
  {
    id: "QRY-1",
    breaks: "a place of a field that isn't there is that of null",
    ...core("Query", "Query"),
    find:
      "  return rank === ranks.missing ? [] : [rank === ranks.array ? [] : rank === ranks.object ? {} : field as Value.Value]",
    replace:
      "  return [rank === ranks.missing ? null : rank === ranks.array ? [] : rank === ranks.object ? {} : field as Value.Value]",
    fails: "page through all rows, each once, in order"
  },
  {
    id: "QRY-3",
    breaks: "a query takes any limit",
    ...core("Query", "Query"),
    find:
      "  if (limit !== undefined && !(Number.isInteger(limit) && (limit as number) >= 1 && (limit as number) <= limitMax)) {",
    replace: "  if (limit !== undefined && !Number.isInteger(limit)) {",
    fails: "names the place of what is wrong, and says what to do"
  },
  {
    id: "QRY-1",
    breaks: "who has written and asks then isn't shown what he has written",
    ...server("Queries", "Queries"),
    find: "    maps.get(name)?.tell()",
    replace: "",
    fails: "begins with what its asker has written before"
  },
  {
    id: "QRY-1",
    breaks: "what changes while all rows are on their way is forgotten",
    ...server("Querying", "Queries"),
    find: "      following.late.push(...changes ?? [])",
    replace: "",
    fails: "while all rows are on their way gets what changes after them"
  },
  {
    id: "QRY-1",
    breaks: "who was behind isn't sent what was left out",
    ...server("Querying", "Queries"),
    find: "    if (!changes.every((page) => this.#host.offer(page))) this.#sendAll(following, \"later\")",
    replace: "    changes.every((page) => this.#host.offer(page))",
    fails: "is told no more than there is room for, and then all rows anew"
  },
  {
    id: "QRY-1",
    breaks: "a row that leaves stays among those that newcomers are told",
    ...server("ToldRows", "queries.model"),
    find: "    this.#rows.delete(key)",
    replace: "",
    fails: "in a small map"
  },
  {
    id: "QRY-1",
    breaks: "what has expired and isn't swept yet is found",
    ...server("Queries", "Queries"),
    find: "              if (isGone(record, now) || !isWanted(key, partOf(record.valueBytes))) continue",
    replace: "              if (record.isTombstone || !isWanted(key, partOf(record.valueBytes))) continue",
    fails: "loses what expires, and doesn't begin with what has"
  },
  {
    id: "QRY-3",
    breaks: "queries that one write concerns are told all at once",
    ...server("Queries", "Queries"),
    find: "        if (!this.live.flush(turns.isOver)) this.#schedule()",
    replace: "        if (!this.live.flush()) this.#schedule()",
    fails: "that many ask in many ways is told some at a time"
  },
  {
    id: "QRY-3",
    breaks: "the bytes of a query's rows have no bound",
    ...server("Queries", "Queries"),
    find: "      if (this.#told.bytes > queryBytesMax) {",
    replace: "      if (this.#told.bytes > Number.POSITIVE_INFINITY) {",
    fails: "is so many bytes of all its rows"
  },
  {
    id: "QRY-3",
    breaks: "only what is new counts among the bytes of a query's rows",
    ...server("Queries", "Queries"),
    find: "      turns.spend(changes.length + this.askers.size * recordsPerTelling)",
    replace: "      this.#bytes = 0",
    fails: "is so many bytes of all its rows"
  },
  {
    id: "QRY-3",
    breaks: "a query without a limit has all rows there are",
    ...server("Queries", "Queries"),
    find: "    if (query.limit === undefined) return { ...query, limit: queryRowsMax }",
    replace: "    if (query.limit === undefined) return query",
    fails: "is so many rows"
  },
  {
    id: "QRY-3",
    breaks: "a query's limit is as large as its asker likes",
    ...server("Queries", "Queries"),
    find: "    if (query.limit <= queryRowsMax) return query",
    replace: "    if (query.limit <= Number.POSITIVE_INFINITY) return query",
    fails: "is so many rows"
  },
  {
    id: "QRY-3",
    breaks: "a query looks at as many records as there are",
    ...server("Queries", "Queries"),
    find: "    if (millis <= queryMillisMax) return",
    replace: "    if (millis <= Number.POSITIVE_INFINITY) return",
    fails: "is so much time, by the records that it would look at"
  },
  {
    id: "QRY-3",
    breaks: "one connection's queries keep up every write",
    ...server("Querying", "Queries"),
    find: "    else if (this.#nanosPerWrite + asked.nanosPerWrite > nanosPerWriteMax) {",
    replace: "    else if (this.#nanosPerWrite + asked.nanosPerWrite > Number.POSITIVE_INFINITY) {",
    fails: "is so much of each write"
  },
  {
    id: "QRY-3",
    breaks: "patterns aren't judged before a query is made of them",
    ...server("Queries", "Queries"),
    find: "    if (query.where !== undefined) checkPatterns(query.where)",
    replace: "",
    fails: "a pattern that is none"
  },
  {
    id: "QRY-3",
    breaks: "a query over many records holds everybody up",
    ...server("Queries", "Queries"),
    find: "          return turns.isOver()",
    replace: "          return false",
    fails: "leaves others their turn"
  },
  {
    id: "QRY-3",
    breaks: "each map's queries take a turn of their own",
    ...server("Queries", "Queries"),
    find: "    turns.spend(looked)",
    replace: "    turns.spend(looked / 8)",
    fails: "shares the turn with those over other maps"
  },
  {
    id: "QRY-3",
    breaks: "equal queries are evaluated for each who asks",
    ...server("Queries", "Queries"),
    find: "        map.shared.set(identity, shared = new Shared(map, shown, query))",
    replace: "        shared = new Shared(map, shown, query)",
    fails: "that a hundred ask is evaluated and encoded once"
  },
  {
    id: "QRY-3",
    breaks: "an answer has more bytes than a reply",
    ...server("Queries", "QueryCalls"),
    find: "      if (bytes > answerBytesMax) break",
    replace: "",
    fails: "answers with as many rows as fit into a reply"
  },
  {
    id: "QRY-3",
    breaks: "a search is counted as if nothing were searched",
    ...server("Handlers", "QueryCalls"),
    find: "            search === undefined",
    replace: "            search !== null",
    fails: "counts what a query finds"
  },
  {
    id: "FLOW-3",
    breaks: "a query goes on when nobody asks it",
    ...server("Queries", "Queries"),
    find: "      this.#close()",
    replace: "",
    fails: "that a hundred ask is evaluated and encoded once"
  },
  {
    id: "FLOW-3",
    breaks: "a call that is interrupted is answered all the same",
    ...server("Queries", "QueryCalls"),
    find: "          close()",
    replace: "",
    fails: "that is interrupted, or whose connection ends"
  },
  {
    id: "FLOW-3",
    breaks: "maps that were asked for in vain are kept",
    ...server("Queries", "Queries"),
    find: "    } finally {",
    replace: "    } finally { if (map.name === \"\")",
    fails: "isn't held on to when it was asked in vain"
  },
  {
    id: "FLOW-3",
    breaks: "a connection asks as many queries as it likes",
    ...server("Querying", "Queries"),
    find: "    if (this.#byId.size >= this.#queriesMax) {",
    replace: "    if (this.#byId.size >= Number.POSITIVE_INFINITY) {",
    fails: "is so many queries of one connection"
  },
  {
    id: "FLOW-1",
    breaks: "who doesn't read is told of all that changes",
    ...server("Querying", "Queries"),
    find: "    if (!changes.every((page) => this.#host.offer(page))) this.#sendAll(following, \"later\")",
    replace: "    changes.forEach((page) => this.#host.put(page))",
    fails: "is told no more than there is room for"
  },
  {
    id: "FLOW-1",
    breaks: "who doesn't read is sent all rows at once",
    ...server("Querying", "Queries"),
    find: "      if (!this.#host.hasRoom()) return this.#sendLater()",
    replace: "",
    fails: "while all rows are on their way"
  },
  {
    id: "PERM-1",
    breaks: "that a hidden field has changed is told",
    ...server("ToldRows", "Permissions"),
    find: "    if (isToldWhenOther && before !== undefined && isAlike(before, row)) return",
    replace: "",
    fails: "isn't told that a hidden field has changed"
  },
  {
    id: "PERM-1",
    breaks: "a query goes on under another policy as it was",
    ...server("Queries", "Permissions"),
    find: "reads === \"part\" ? `${policies} ${key}` : key",
    replace: "key",
    fails: "begins anew under another policy"
  },
  {
    id: "PERM-1",
    breaks: "a query goes on as it was when its asker may read something else",
    ...server("Querying", "Permissions"),
    find: "      if (this.#queries.viewKey(this.#host.access(map)) === viewKey) continue",
    replace: "      if (viewKey !== \"\") continue",
    fails: "begins anew by a token of other attributes"
  },
  {
    id: "PERM-1",
    breaks: "hidden fields may be asked by",
    ...server("Queries", "Permissions"),
    find: "      if (!readable.has(names[0]!)) {",
    replace: "      if (readable.size < 0) {",
    fails: "is refused for a field that nothing shows him"
  },
  {
    id: "PERM-1",
    breaks: "a plan tells how many records there are that one may not see",
    ...server("Queries", "Permissions"),
    find: "      if (view !== undefined) {",
    replace: "      if (view?.key === \"\") {",
    fails: "is told nothing of how many others there are"
  },
  {
    id: "PERM-1",
    breaks: "a refusal tells how many records there are that one may not see",
    ...server("Queries", "Permissions"),
    find: "          view === undefined ? `look at",
    replace: "          view !== null ? `look at",
    fails: "is told nothing of how many others there are"
  },
  {
    id: "PERM-1",
    breaks: "who may read a part is told that the map is of another kind",
    ...server("Queries", "Permissions"),
    find: "if (shared.access.reads === \"everything\") shared.end(fault)",
    replace: "shared.end(fault)",
    fails: "of a map that is one of sets finds nothing"
  },
  {
    id: "PERM-1",
    breaks: "records are judged as they are, and not as they are shown",
    ...server("Queries", "Permissions"),
    find: "        show: (value) => access.showValue(value),",
    replace: "        show: (value) => value,",
    fails: "finds, orders and shows what he may read"
  },
  {
    id: "IN-1",
    breaks: "a fault in judging a record keeps it from being saved",
    ...server("Queries", "Queries"),
    find: "      queried.fail(fault)",
    replace: "      throw fault",
    fails: "ends the queries of its map and takes its indexes"
  },
  {
    id: "PERM-1",
    breaks: "a map of sets is read as one of records",
    ...server("Queries", "Permissions"),
    find: "      const hasRecords = (): boolean => partitions.kindFault(name, \"lww\") === undefined",
    replace: "      const hasRecords = (): boolean => name !== \"\"",
    fails: "of a map that is one of sets finds nothing"
  },
  {
    id: "IN-1",
    breaks: "a list is taken for what a map is declared with",
    ...server("Declarations", "Declarations"),
    find: " || Array.isArray(options)",
    replace: "",
    fails: "is refused with all that is wrong with it"
  },
  {
    id: "QRY-3",
    breaks: "a large query counts as little as a small one",
    ...server("Session", "Queries"),
    find: "    ? 50 + message.query.length / queryBytesPerWork",
    replace: "    ? 50",
    fails: "are taken in some at a time"
  },
  {
    id: "QRY-3",
    breaks: "what patterns take to be made ready doesn't count",
    ...server("Querying", "Queries"),
    find: "    if (query.where !== undefined && Predicate.hasPatterns(query.where)) this.#host.spend(patternsWork)",
    replace: "",
    fails: "are taken in some at a time"
  },
  {
    id: "FLOW-3",
    breaks: "the rows of all queries are kept encoded",
    ...server("Queries", "Queries"),
    find: "      if (keptBytes <= keptBytesMax) return",
    replace: "      if (keptBytes <= Number.POSITIVE_INFINITY) return",
    fails: "is kept encoded for who asks it next"
  },
  {
    id: "QRY-3",
    breaks: "who asks what others ask is told of rows encoded for him",
    ...server("Queries", "Queries"),
    find: "      if (this.#pages !== undefined) return this.#pages",
    replace: "",
    fails: "that a hundred ask is evaluated and encoded once"
  },
  {
    id: "PERM-1",
    breaks: "fields that are hidden in some records are searched",
    ...server("Queries", "Search"),
    find: "    if (search === undefined || readable === undefined) return query",
    replace: "    if (search === undefined || readable !== undefined) return query",
    fails: "looks into fields only that may be read wherever anything may"
  },
  {
    id: "QRY-2",
    breaks: "scores come with other rows than theirs",
    ...server("ToldRows", "Search"),
    find: "const scoreBytes = (scores: ReadonlyArray<number>): Uint8Array => {",
    replace: "const scoreBytes = ([, ...scores]: ReadonlyArray<number>): Uint8Array => {",
    fails: "finds words with the scores of an index"
  },
  {
    id: "QRY-2",
    breaks: "what is found by some of its fields has no others",
    ...core("LwwMap", "LwwMap"),
    find:
      "      if (isWanted(key, value === undefined ? this.#decoded(slot, partOf) : value)) take(key, this.#valueOf(slot))",
    replace: "      if (isWanted(key, this.#decoded(slot, partOf))) take(key, value ?? this.#decoded(slot, partOf))",
    fails: "finds values by some of their fields, read before or not, and gives them whole"
  }
]
