/**
 * Every error that TopGun answers with. Each has a `_tag` to catch by, a stable `code` for logs and other languages, a
 * message that names the cause and the mend, and `retryable`: whether the same call may succeed later unchanged.
 *
 * Operating errors are these classes. A broken assumption of our own code is not one of them: it dies.
 */
import * as Schema from "effect/Schema"

/** The local or server storage did not answer, or refused. */
export class StorageUnavailable extends Schema.TaggedError<StorageUnavailable>()("StorageUnavailable", {
  reason: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {
  readonly code = "TG_STORAGE_UNAVAILABLE"
  readonly retryable = true
  override get message(): string {
    return `Storage is unavailable: ${this.reason}`
  }
}

/** This device has no room for what was to be stored. Nothing of it was, and everything goes on in memory. */
export class StorageQuotaExceeded extends Schema.TaggedError<StorageQuotaExceeded>()("StorageQuotaExceeded", {
  reason: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {
  readonly code = "TG_STORAGE_QUOTA_EXCEEDED"
  readonly retryable = true
  override get message(): string {
    return `Storage is full: ${this.reason}. What was written since is in memory only, and is stored as soon as there is ` +
      "room: free some, and keep the page open until then"
  }
}

/** What this device had stored is gone: the browser, or its user, has deleted it. */
export class StorageEvicted extends Schema.TaggedError<StorageEvicted>()("StorageEvicted", {
  reason: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {
  readonly code = "TG_STORAGE_EVICTED"
  readonly retryable = true
  override get message(): string {
    return `Storage was deleted: ${this.reason}. This device takes everything over from the server again; what it hadn't ` +
      "sent before is lost, unless it is still in memory"
  }
}

/** Another tab or process has opened this storage since, and owns it. */
export class StorageSuperseded extends Schema.TaggedError<StorageSuperseded>()("StorageSuperseded", {
  reason: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {
  readonly code = "TG_STORAGE_SUPERSEDED"
  readonly retryable = false
  override get message(): string {
    return `Storage belongs to another client now: ${this.reason}. Nothing was written by this one: give each client a ` +
      "storageKey of its own, or let tabs share one client"
  }
}

/** A newer version of this program has written the storage. It stays as it is. */
export class StorageTooNew extends Schema.TaggedError<StorageTooNew>()("StorageTooNew", {
  reason: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {
  readonly code = "TG_STORAGE_TOO_NEW"
  readonly retryable = false
  override get message(): string {
    return `Storage was written by a newer version: ${this.reason}. Nothing was changed: update the application, or reload it`
  }
}

/** Storage is encrypted with another key than the one given, or isn't what this key has written. */
export class StorageKeyRefused extends Schema.TaggedError<StorageKeyRefused>()("StorageKeyRefused", {
  reason: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {
  readonly code = "TG_STORAGE_KEY_REFUSED"
  readonly retryable = false
  override get message(): string {
    return `Storage can't be used with this key: ${this.reason}. Nothing was changed: open it with the key that it was ` +
      "written with, or change its keys"
  }
}

/** Why a client's own storage can't be read or written. */
export type StorageFailure =
  | StorageUnavailable
  | StorageQuotaExceeded
  | StorageEvicted
  | StorageSuperseded
  | StorageTooNew
  | StorageKeyRefused

/** A map was read before its records were loaded. Not the same as empty. */
export class NotLoaded extends Schema.TaggedError<NotLoaded>()("NotLoaded", { map: Schema.String }) {
  readonly code = "TG_NOT_LOADED"
  readonly retryable = true
  override get message(): string {
    return `Map "${this.map}" is not loaded yet: await client.ready(), or the map's own ready(), before reading it`
  }
}

/** The connection could not be made, or ended. */
export class ConnectionLost extends Schema.TaggedError<ConnectionLost>()("ConnectionLost", {
  reason: Schema.String,
  closeCode: Schema.optional(Schema.Number),
  cause: Schema.optional(Schema.Defect)
}) {
  readonly code = "TG_CONNECTION_LOST"
  readonly retryable = true
  override get message(): string {
    const closed = this.closeCode === undefined ? "" : ` (close code ${this.closeCode})`
    return `The connection to the server was lost: ${this.reason}${closed}`
  }
}

/** The peer did not answer within the deadline. */
export class RequestTimeout extends Schema.TaggedError<RequestTimeout>()("RequestTimeout", {
  request: Schema.String,
  afterMillis: Schema.Number
}) {
  readonly code = "TG_REQUEST_TIMEOUT"
  readonly retryable = true
  override get message(): string {
    return `The server did not answer ${this.request} within ${this.afterMillis} ms`
  }
}

/** The server wants a token and none, or none it accepts, was given. */
export class AuthRequired extends Schema.TaggedError<AuthRequired>()("AuthRequired", { reason: Schema.String }) {
  readonly code = "TG_AUTH_REQUIRED"
  readonly retryable = false
  override get message(): string {
    return `The server asks for authentication: ${this.reason}`
  }
}

/** The token by which this connection was let in is no longer valid, and no new one came in time. */
export class AuthExpired extends Schema.TaggedError<AuthExpired>()("AuthExpired", { reason: Schema.String }) {
  readonly code = "TG_AUTH_EXPIRED"
  readonly retryable = true
  override get message(): string {
    return `The server asks for a new token: ${this.reason}`
  }
}

/** Another device writes under this device's node id: its storage was copied, or put back to what it was. */
export class NodeIdConflict extends Schema.TaggedError<NodeIdConflict>()("NodeIdConflict", { nodeId: Schema.String }) {
  readonly code = "TG_NODE_ID_CONFLICT"
  readonly retryable = true
  override get message(): string {
    return `Another device writes as node ${this.nodeId}: this one's storage was copied or restored from a backup. ` +
      "It goes on as another node, and loses nothing that it had not sent"
  }
}

/** The device was away for longer than the server remembers deletions: a map has to be taken over anew. */
export class ResyncRequired extends Schema.TaggedError<ResyncRequired>()("ResyncRequired", { map: Schema.String }) {
  readonly code = "TG_RESYNC_REQUIRED"
  readonly retryable = true
  override get message(): string {
    return `Map "${this.map}" was away for longer than deletions are remembered: it is taken over from the server anew, ` +
      "and what was not sent is kept"
  }
}

/**
 * The write is from a time whose deletions the map has forgotten, and its key isn't there: it may have been deleted since. Nothing
 * of it was merged; written again it is a new one.
 */
export class BeyondHorizon extends Schema.TaggedError<BeyondHorizon>()("BeyondHorizon", { map: Schema.String }) {
  readonly code = "TG_BEYOND_HORIZON"
  readonly retryable = false
  override get message(): string {
    return `The write to map "${this.map}" is older than the deletions that are remembered, and its key may have been deleted ` +
      "since: retry it to write it anew, or discard it"
  }
}

/** The token is another user's than the one whose data this is. Nothing was sent, and nothing is lost. */
export class AuthUserChanged extends Schema.TaggedError<AuthUserChanged>()("AuthUserChanged", {
  expected: Schema.String,
  /** Null for nobody's; absent where only the server knows. */
  actual: Schema.optional(Schema.NullOr(Schema.String))
}) {
  readonly code = "TG_AUTH_USER_CHANGED"
  readonly retryable = false
  override get message(): string {
    const actual = this.actual === undefined
      ? "another user's"
      : this.actual === null
      ? "nobody's: the server asks for none"
      : `that of user "${this.actual}"`
    return `This is the data of user "${this.expected}", and the token is ${actual}. Give a token of "${this.expected}", ` +
      "or log out first and open a client for the other user"
  }
}

/** Whether a token is good, or which, could not be found out. */
export class AuthUnavailable extends Schema.TaggedError<AuthUnavailable>()("AuthUnavailable", {
  reason: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {
  readonly code = "TG_AUTH_UNAVAILABLE"
  readonly retryable = true
  override get message(): string {
    return `Authentication is not possible now: ${this.reason}`
  }
}

/** The server takes operations and doesn't answer them, on a connection that is alive. They stay in the log. */
export class Stalled extends Schema.TaggedError<Stalled>()("Stalled", { afterMillis: Schema.Number }) {
  readonly code = "TG_STALLED"
  readonly retryable = true
  override get message(): string {
    return `The server has not acknowledged a write within ${this.afterMillis} ms, though the connection is alive: ` +
      "the connection is replaced, and the write is sent again"
  }
}

/** Logging out would lose what the server doesn't have. Nothing was changed. */
export class UnsentWrites extends Schema.TaggedError<UnsentWrites>()("UnsentWrites", {
  pending: Schema.Number,
  rejected: Schema.Number
}) {
  readonly code = "TG_UNSENT_WRITES"
  readonly retryable = true
  override get message(): string {
    return `${this.pending} writes have not reached the server and ${this.rejected} were rejected by it: ` +
      "say what becomes of them by logout's option unsent, \"flush\", \"keep\" or \"discard\""
  }
}

/** The server refused one operation. Its effect was undone locally and it waits among the rejected writes. */
export class WriteRejected extends Schema.TaggedError<WriteRejected>()("WriteRejected", {
  map: Schema.String,
  key: Schema.String,
  cause: Schema.String,
  reason: Schema.String
}) {
  readonly code = "TG_WRITE_REJECTED"
  readonly retryable = false
  override get message(): string {
    return `The server rejected the write to "${this.key}" in map "${this.map}" (${this.cause}): ${this.reason}`
  }
}

/** The server's resolver for a map failed, or took too long, on this operation. Nothing was changed. */
export class ResolverFailed extends Schema.TaggedError<ResolverFailed>()("ResolverFailed", {
  map: Schema.String,
  reason: Schema.String
}) {
  readonly code = "TG_RESOLVER_FAILED"
  readonly retryable = false
  override get message(): string {
    return `The server's resolver for map "${this.map}" ${this.reason}: the server's log has more`
  }
}

/** An interceptor of the server's refuses an operation or a connection. Nothing was changed. */
export class Refused extends Schema.TaggedError<Refused>()("Refused", { reason: Schema.String }) {
  readonly code = "TG_REFUSED"
  readonly retryable = false
  override get message(): string {
    return this.reason
  }
}

/** The server's interceptor failed, or took too long, on this operation or connection. Nothing was changed. */
export class InterceptorFailed extends Schema.TaggedError<InterceptorFailed>()("InterceptorFailed", {
  reason: Schema.String
}) {
  readonly code = "TG_INTERCEPTOR_FAILED"
  readonly retryable = true
  override get message(): string {
    return `The server's interceptor ${this.reason}: the server's log has more`
  }
}

/** The outbox is full. Nothing was changed (strategy `throw`), or the waiting line is full too (strategy `pause`). */
export class BackpressureError extends Schema.TaggedError<BackpressureError>()("BackpressureError", {
  pending: Schema.Number,
  capacity: Schema.Number
}) {
  readonly code = "TG_BACKPRESSURE"
  readonly retryable = true
  override get message(): string {
    return `${this.pending} writes wait for the server, the most that backpressure.capacity (${this.capacity}) allows: ` +
      "wait for the connection, or raise the capacity"
  }
}

/** The operation was dropped from the outbox by strategy `drop-oldest`; the key went back to its confirmed record. */
export class WriteDropped extends Schema.TaggedError<WriteDropped>()("WriteDropped", {
  map: Schema.String,
  key: Schema.String
}) {
  readonly code = "TG_WRITE_DROPPED"
  readonly retryable = true
  override get message(): string {
    return `The write to "${this.key}" in map "${this.map}" was dropped: the outbox was full and drops its oldest write`
  }
}

/** The server has more work than its caps allow. */
export class Overloaded extends Schema.TaggedError<Overloaded>()("Overloaded", { what: Schema.String }) {
  readonly code = "TG_OVERLOADED"
  readonly retryable = true
  override get message(): string {
    return `The server is overloaded: ${this.what}. Try again later`
  }
}

/** A key, value or message is over its limit, in bytes. */
export class RecordTooLarge extends Schema.TaggedError<RecordTooLarge>()("RecordTooLarge", {
  what: Schema.Literal("key", "value", "message"),
  bytes: Schema.Number,
  limit: Schema.Number
}) {
  readonly code = "TG_RECORD_TOO_LARGE"
  readonly retryable = false
  override get message(): string {
    return `The ${this.what} has ${this.bytes} bytes, ${this.limit} are allowed`
  }
}

/** A batch has more operations, or bytes, than travel and are stored as one. Nothing was changed. */
export class BatchTooLarge extends Schema.TaggedError<BatchTooLarge>()("BatchTooLarge", {
  operations: Schema.Number,
  bytes: Schema.Number,
  operationsMax: Schema.Number,
  bytesMax: Schema.Number
}) {
  readonly code = "TG_BATCH_TOO_LARGE"
  readonly retryable = false
  override get message(): string {
    return `A batch of ${this.operations} operations and ${this.bytes} bytes can't be written as one: ` +
      `${this.operationsMax} and ${this.bytesMax} are allowed`
  }
}

/** A value, or a part of it at `path`, has no lossless canonical form. */
export class ValueNotSupported extends Schema.TaggedError<ValueNotSupported>()("ValueNotSupported", {
  path: Schema.String,
  reason: Schema.String
}) {
  readonly code = "TG_VALUE_NOT_SUPPORTED"
  readonly retryable = false
  override get message(): string {
    return `The value at ${this.path} cannot be stored: ${this.reason}`
  }
}

/** A query or predicate, or the part of it at `path`, says nothing that could be answered. */
export class QueryInvalid extends Schema.TaggedError<QueryInvalid>()("QueryInvalid", {
  path: Schema.String,
  reason: Schema.String
}) {
  readonly code = "TG_QUERY_INVALID"
  readonly retryable = false
  override get message(): string {
    return `${this.path} is not valid: ${this.reason}`
  }
}

/** What is asked for at `path` would take longer than any one question may. It is refused before it is tried. */
export class QueryTooExpensive extends Schema.TaggedError<QueryTooExpensive>()("QueryTooExpensive", {
  path: Schema.String,
  reason: Schema.String
}) {
  readonly code = "TG_QUERY_TOO_EXPENSIVE"
  readonly retryable = false
  override get message(): string {
    return `The query at ${this.path} would cost too much: ${this.reason}`
  }
}

/** A counter, or one node's part of it, would leave the integers that a number holds exactly. Nothing was changed. */
export class CounterOverflow extends Schema.TaggedError<CounterOverflow>()("CounterOverflow", {
  what: Schema.Literal("value", "increments", "decrements")
}) {
  readonly code = "TG_COUNTER_OVERFLOW"
  readonly retryable = false
  override get message(): string {
    return `The counter's ${this.what} would be beyond ±${Number.MAX_SAFE_INTEGER}: count in larger units`
  }
}

/** A value does not fit the schema that the map was declared with. */
export class SchemaMismatch extends Schema.TaggedError<SchemaMismatch>()("SchemaMismatch", {
  map: Schema.String,
  issues: Schema.String
}) {
  readonly code = "TG_SCHEMA_MISMATCH"
  readonly retryable = false
  override get message(): string {
    return `The value does not fit the schema of map "${this.map}": ${this.issues}`
  }
}

/** Records that others have written don't fit the schema that this device declares their map with. They are kept. */
export class RecordsMisfit extends Schema.TaggedError<RecordsMisfit>()("RecordsMisfit", {
  map: Schema.String,
  count: Schema.Number,
  /** The first of their keys. */
  keys: Schema.Array(Schema.String),
  /** What is wrong with the first. */
  issues: Schema.String
}) {
  readonly code = "TG_RECORDS_MISFIT"
  readonly retryable = false
  override get message(): string {
    const what = this.count === 1 ? "A record" : `${this.count} records`
    return `${what} of map "${this.map}", written by others, don't fit the schema here, "${this.keys[0]}" the first: ` +
      `${this.issues}. They are kept; a handle's issues(key) says what is wrong with each`
  }
}

/** The map exists with another kind of CRDT. */
export class MapKindMismatch extends Schema.TaggedError<MapKindMismatch>()("MapKindMismatch", {
  map: Schema.String,
  expected: Schema.String,
  actual: Schema.String
}) {
  readonly code = "TG_MAP_KIND_MISMATCH"
  readonly retryable = false
  override get message(): string {
    return `Map "${this.map}" is of kind ${this.expected}, it cannot be used as ${this.actual}`
  }
}

/** The server's policy grants this user no such thing. The words are the same whether there is anything or not. */
export class PermissionDenied extends Schema.TaggedError<PermissionDenied>()("PermissionDenied", {
  what: Schema.String
}) {
  readonly code = "TG_PERMISSION_DENIED"
  readonly retryable = false
  override get message(): string {
    return `You may not ${this.what}: whoever runs the server can grant it in its policy`
  }
}

/** The server doesn't open a map to this client. Writes to it are sent, but nothing of it is received. */
export class MapRefused extends Schema.TaggedError<MapRefused>()("MapRefused", {
  map: Schema.String,
  reason: Schema.String
}) {
  readonly code = "TG_MAP_REFUSED"
  readonly retryable = true
  override get message(): string {
    return `Map "${this.map}" is not synchronised on this connection: ${this.reason}`
  }
}

/** A question about a map that the server has just closed to this connection: what may be read of it, or is told, begins anew. */
export class MapReopened extends Schema.TaggedError<MapReopened>()("MapReopened", { map: Schema.String }) {
  readonly code = "TG_MAP_REOPENED"
  readonly retryable = true
  override get message(): string {
    return `Map "${this.map}" has to be opened again`
  }
}

/** A stamp lies further in the future than the drift bound allows. Nothing was changed. */
export class ClockSkewTooLarge extends Schema.TaggedError<ClockSkewTooLarge>()("ClockSkewTooLarge", {
  aheadMillis: Schema.Number,
  driftMillisMax: Schema.Number
}) {
  readonly code = "TG_CLOCK_SKEW_TOO_LARGE"
  readonly retryable = false
  override get message(): string {
    return `The write's clock is ${this.aheadMillis} ms ahead, at most ${this.driftMillisMax} ms are accepted: ` +
      "correct the clock of the device"
  }
}

/** This node does not own the key's partition. */
export class NotOwner extends Schema.TaggedError<NotOwner>()("NotOwner", { partition: Schema.Number }) {
  readonly code = "TG_NOT_OWNER"
  readonly retryable = true
  override get message(): string {
    return `This node does not own partition ${this.partition}: refresh the partition map and send to its owner`
  }
}

/** Nobody acknowledged the write in time. It stays in the outbox and is still sent. */
export class WriteTimeout extends Schema.TaggedError<WriteTimeout>()("WriteTimeout", {
  concern: Schema.String
}) {
  readonly code = "TG_WRITE_TIMEOUT"
  readonly retryable = true
  override get message(): string {
    return `The write was not acknowledged at ${this.concern} in time. It is kept in the outbox and will be sent`
  }
}

/** The write may or may not have reached the level asked for. It stays in the outbox and is sent again. */
export class Indeterminate extends Schema.TaggedError<Indeterminate>()("Indeterminate", { reason: Schema.String }) {
  readonly code = "TG_INDETERMINATE"
  readonly retryable = true
  override get message(): string {
    return `The outcome of the write is not known: ${this.reason}`
  }
}

/** The other side speaks another version of the protocol. */
export class ProtocolVersionUnsupported
  extends Schema.TaggedError<ProtocolVersionUnsupported>()("ProtocolVersionUnsupported", {
    offered: Schema.Number,
    supported: Schema.Array(Schema.Number)
  })
{
  readonly code = "TG_PROTOCOL_VERSION_UNSUPPORTED"
  readonly retryable = false
  override get message(): string {
    return `Protocol version ${this.offered} is not supported, only ${this.supported.join(", ")}: update the older side`
  }
}

/** Bytes from outside that are not what their place asks for. */
export class MalformedMessage extends Schema.TaggedError<MalformedMessage>()("MalformedMessage", {
  reason: Schema.String
}) {
  readonly code = "TG_MALFORMED_MESSAGE"
  readonly retryable = false
  override get message(): string {
    return `Malformed bytes: ${this.reason}`
  }
}

/** The server is stopping. */
export class ShuttingDown extends Schema.TaggedError<ShuttingDown>()("ShuttingDown", {}) {
  readonly code = "TG_SHUTTING_DOWN"
  readonly retryable = true
  override get message(): string {
    return "The server is shutting down"
  }
}

/** The client was closed. */
export class ClientClosed extends Schema.TaggedError<ClientClosed>()("ClientClosed", {}) {
  readonly code = "TG_CLIENT_CLOSED"
  readonly retryable = false
  override get message(): string {
    return "The client is closed: create a new one"
  }
}

/** The server can't listen where it was told to. */
export class AddressUnavailable extends Schema.TaggedError<AddressUnavailable>()("AddressUnavailable", {
  reason: Schema.String,
  cause: Schema.Defect
}) {
  readonly code = "TG_ADDRESS_UNAVAILABLE"
  readonly retryable = true
  override get message(): string {
    return `The server cannot listen: ${this.reason}`
  }
}

/** Configuration that cannot be used; `faults` lists all of them. */
export class ConfigInvalid extends Schema.TaggedError<ConfigInvalid>()("ConfigInvalid", {
  faults: Schema.Array(Schema.String)
}) {
  readonly code = "TG_CONFIG_INVALID"
  readonly retryable = false
  override get message(): string {
    return this.faults.join("\n")
  }
}

/** A server makes no backup now, or none at all. */
export class BackupRefused extends Schema.TaggedError<BackupRefused>()("BackupRefused", { reason: Schema.String }) {
  readonly code = "TG_BACKUP_REFUSED"
  readonly retryable = true
  override get message(): string {
    return `No backup was made: ${this.reason}`
  }
}

/** A backup isn't whole, isn't as it was written, or is of a format that isn't known here. */
export class BackupUnusable extends Schema.TaggedError<BackupUnusable>()("BackupUnusable", { reason: Schema.String }) {
  readonly code = "TG_BACKUP_UNUSABLE"
  readonly retryable = false
  override get message(): string {
    return `This backup can't be used: ${this.reason}`
  }
}

/** A backup isn't restored into this store. */
export class RestoreRefused extends Schema.TaggedError<RestoreRefused>()("RestoreRefused", { reason: Schema.String }) {
  readonly code = "TG_RESTORE_REFUSED"
  readonly retryable = false
  override get message(): string {
    return `Nothing was restored: ${this.reason}`
  }
}

/** What a local write can fail with at once: nothing was changed. */
export type WriteRefusal =
  | ValueNotSupported
  | RecordTooLarge
  | SchemaMismatch
  | BackpressureError
  | BatchTooLarge
  | CounterOverflow
  | MalformedMessage
  | ClockSkewTooLarge
  | NotLoaded
  | ClientClosed
  | StorageFailure

/** What waiting for the server's acknowledgement can fail with. */
export type WriteFailure =
  | WriteRejected
  | WriteDropped
  | WriteTimeout
  | Indeterminate
  | StorageUnavailable
  | ClientClosed
