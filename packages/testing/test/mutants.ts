/** The mutants of this repository. `node packages/testing/run-mutants.mjs` runs them; each must be killed by its test. */
import type { Mutant } from "../src/mutants.ts"

const core = (file: string, test: string) => ({
  file: `packages/core/src/${file}.ts`,
  test: `packages/core/test/${test}.test.ts`
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
    find: "{ millis: issuedUpToMillis, counter: Timestamp.counterMax }",
    replace: "{ millis: issuedUpToMillis, counter: 0 }",
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
    find: "    : { millis: last.millis + 1, counter: 0, nodeId: last.nodeId }",
    replace: "    : last",
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
    ...core("LwwRecord", "LwwMap"),
    find: "    : Value.compareBytes(a.row, b.row)",
    replace: "    : 0",
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
    find: "  a === null || a === undefined || LwwRecord.compare(b, a) > 0 ? b : a",
    replace: "  a === null || a === undefined || LwwRecord.compare(b, a) < 0 ? b : a",
    fails: "is what a naive model is after any writes, merges, confirmations and reverts"
  },
  {
    id: "SYNC-1",
    breaks: "the digest leaves the row's content out",
    ...core("LwwMap", "LwwMap"),
    find: "  hashBytes(record.row, 0, record.row.length, 0, out)",
    replace: "  hashBytes(record.row, 0, 25, 0, out)",
    fails: "digests values, not only stamps and keys"
  },
  {
    id: "SYNC-1",
    breaks: "a merged record's digest stays that of the one before",
    ...core("MerkleTree", "MerkleTree"),
    find: "    node.hi = (node.hi - entry.digestHi + digestHi) | 0",
    replace: "    node.hi = (node.hi + digestHi) | 0",
    fails: "is after any insertions, updates and removals what it would be if built anew"
  },
  {
    id: "SYNC-1",
    breaks: "a branch's hash isn't computed again after an update below it",
    ...core("MerkleTree", "MerkleTree"),
    find: "      node.stale = true",
    replace: "      node.stale ||= false",
    fails: "is after any insertions, updates and removals what it would be if built anew"
  },
  {
    id: "SYNC-1",
    breaks: "writes that aren't confirmed are digested",
    ...core("LwwMap", "LwwMap"),
    find: "      this.#insert(key, record, null)",
    replace: "      this.#insert(key, record, undefined)",
    fails: "its tree digests confirmed records only"
  },
  {
    id: "SYNC-2",
    breaks: "keys of a leaf that only the asking side has are not offered",
    ...core("MerkleSync", "MerkleSync"),
    find: "    if (theirs === undefined) found.offers.add(entry.key)",
    replace: "    if (theirs === undefined) return true",
    fails: "finds records that only the asking side has"
  },
  {
    id: "SYNC-2",
    breaks: "partitions that only the peer has are not pulled",
    ...core("MerkleSync", "MerkleSync"),
    find: "      if (theirs !== undefined) found.pulls.push([partition, \"\"])",
    replace: "      if (theirs !== undefined) continue",
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
    find: "    else if (!sameHash(mine.root(), theirs)) found.nodes.push([partition, \"\"])",
    replace: "    else found.nodes.push([partition, \"\"])",
    fails: "asks as many questions as the tree has levels to find one difference"
  },
  {
    id: "SYNC-3",
    breaks: "a cursor that doesn't move is followed for ever",
    ...core("MerkleSync", "MerkleSync"),
    find: "if (before !== undefined && after !== undefined && !isBeyond(after, before)) {",
    replace: "if (before !== undefined && after !== undefined && isBeyond(after, before)) {",
    fails: "sends records in pages, when it fetches and when it pulls"
  },
  {
    id: "SYNC-4",
    breaks: "the walk forgets the pages after the first",
    ...core("MerkleSync", "MerkleSync"),
    find: "      rest = rest.slice(at + 1)",
    replace: "      rest = []",
    fails: "sends records in pages, when it fetches and when it pulls"
  },
  {
    id: "FLOW-2",
    breaks: "a write that `throw` refuses enters all the same",
    ...core("Backpressure", "Backpressure"),
    find: "      if (!this.#slides) return false",
    replace: "      if (!this.#slides) return this.#items.push(item) < 0",
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
    find: "{ onExcessProperty: \"error\" }",
    replace: "{ onExcessProperty: \"preserve\" }",
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
    find: "    Value.validate(row.subarray(header))",
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
    find: "record.expiresAt > this.#now())",
    replace: "record.expiresAt >= this.#now())",
    fails: "hides a value from the moment that it expires"
  }
]
