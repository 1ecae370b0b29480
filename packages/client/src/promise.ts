/**
 * The client for applications without Effect. Names, arguments and moments are those of the Effect form: a Promise stands
 * for an Effect and rejects with the same error, an async iterable stands for a Stream. No type here names one of Effect's.
 */
import * as Errors from "@topgun/core/GridError"
import { makeClient } from "./facade.ts"
import type { Client, ClientOptions } from "./PromiseClient.ts"

export * as Grid from "@topgun/core/Grid"
export { memory, type StorageAdapter } from "@topgun/core/StorageAdapter"
export type { Batch } from "./Batch.ts"
export type { Live } from "./Live.ts"
export type { NetworkEvent, NetworkEvents } from "./NetworkEvents.ts"
export type * from "./PromiseClient.ts"
export type * from "./QueryTypes.ts"
export type { Change, LogEntry, LogoutOptions, MapStatus, RejectedWrite, SyncStatus } from "./Reports.ts"
export type { SyncState } from "./SyncState.ts"
export type { TabChannel, TabEvent, TabLock, Tabs } from "./Tabs.ts"

/** Opens a client. It can be written to at once, and read when it is {@link Client.ready}. */
export const createClient = (options: ClientOptions = {}): Client => makeClient(options)

// --- Errors ---

/** What every rejection of TopGun looks like. */
export interface TopGunError<Tag extends string = string> extends Error {
  readonly _tag: Tag
  /** Stable, for logs and other languages: `TG_…`. */
  readonly code: string
  /** Whether the same call may succeed later unchanged. */
  readonly retryable: boolean
}

/** For `instanceof`. */
export interface ErrorClass<Tag extends string> {
  readonly prototype: TopGunError<Tag>
  [Symbol.hasInstance](value: unknown): value is TopGunError<Tag>
}

const plain = <Tag extends string>(errorClass: { readonly prototype: { readonly _tag: Tag } }): ErrorClass<Tag> =>
  errorClass as unknown as ErrorClass<Tag>

export const StorageUnavailable: ErrorClass<"StorageUnavailable"> = plain(Errors.StorageUnavailable)
export const StorageQuotaExceeded: ErrorClass<"StorageQuotaExceeded"> = plain(Errors.StorageQuotaExceeded)
export const StorageEvicted: ErrorClass<"StorageEvicted"> = plain(Errors.StorageEvicted)
export const StorageSuperseded: ErrorClass<"StorageSuperseded"> = plain(Errors.StorageSuperseded)
export const StorageTooNew: ErrorClass<"StorageTooNew"> = plain(Errors.StorageTooNew)
export const StorageKeyRefused: ErrorClass<"StorageKeyRefused"> = plain(Errors.StorageKeyRefused)
export const NodeIdConflict: ErrorClass<"NodeIdConflict"> = plain(Errors.NodeIdConflict)
export const ResyncRequired: ErrorClass<"ResyncRequired"> = plain(Errors.ResyncRequired)
export const NotLoaded: ErrorClass<"NotLoaded"> = plain(Errors.NotLoaded)
export const ConnectionLost: ErrorClass<"ConnectionLost"> = plain(Errors.ConnectionLost)
export const AuthRequired: ErrorClass<"AuthRequired"> = plain(Errors.AuthRequired)
export const AuthExpired: ErrorClass<"AuthExpired"> = plain(Errors.AuthExpired)
export const AuthUserChanged: ErrorClass<"AuthUserChanged"> = plain(Errors.AuthUserChanged)
export const AuthUnavailable: ErrorClass<"AuthUnavailable"> = plain(Errors.AuthUnavailable)
export const Stalled: ErrorClass<"Stalled"> = plain(Errors.Stalled)
export const UnsentWrites: ErrorClass<"UnsentWrites"> = plain(Errors.UnsentWrites)
export const WriteRejected: ErrorClass<"WriteRejected"> = plain(Errors.WriteRejected)
export const WriteDropped: ErrorClass<"WriteDropped"> = plain(Errors.WriteDropped)
export const BackpressureError: ErrorClass<"BackpressureError"> = plain(Errors.BackpressureError)
export const RecordTooLarge: ErrorClass<"RecordTooLarge"> = plain(Errors.RecordTooLarge)
export const ValueNotSupported: ErrorClass<"ValueNotSupported"> = plain(Errors.ValueNotSupported)
export const BatchTooLarge: ErrorClass<"BatchTooLarge"> = plain(Errors.BatchTooLarge)
export const CounterOverflow: ErrorClass<"CounterOverflow"> = plain(Errors.CounterOverflow)
export const MapKindMismatch: ErrorClass<"MapKindMismatch"> = plain(Errors.MapKindMismatch)
export const RecordsMisfit: ErrorClass<"RecordsMisfit"> = plain(Errors.RecordsMisfit)
export const SchemaMismatch: ErrorClass<"SchemaMismatch"> = plain(Errors.SchemaMismatch)
export const PermissionDenied: ErrorClass<"PermissionDenied"> = plain(Errors.PermissionDenied)
export const Overloaded: ErrorClass<"Overloaded"> = plain(Errors.Overloaded)
export const QueryInvalid: ErrorClass<"QueryInvalid"> = plain(Errors.QueryInvalid)
export const QueryTooExpensive: ErrorClass<"QueryTooExpensive"> = plain(Errors.QueryTooExpensive)
export const WriteTimeout: ErrorClass<"WriteTimeout"> = plain(Errors.WriteTimeout)
export const Indeterminate: ErrorClass<"Indeterminate"> = plain(Errors.Indeterminate)
export const ClientClosed: ErrorClass<"ClientClosed"> = plain(Errors.ClientClosed)
