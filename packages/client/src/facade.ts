/** The Promise form over the same device as the Effect form: it adds Promises, and waiting for the opening, nothing else. */
import * as Backoff from "@topgun/core/Backoff"
import type { CrdtOf } from "@topgun/core/CrdtStore"
import type { FieldPath } from "@topgun/core/FieldPath"
import * as Grid from "@topgun/core/Grid"
import { BackpressureError, ClientClosed, ConnectionLost, MapKindMismatch, NotLoaded } from "@topgun/core/GridError"
import * as Query from "@topgun/core/Query"
import * as Storage from "@topgun/core/Storage"
import * as Transport from "@topgun/core/Transport"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import { again, draftsOf } from "./Drafts.ts"
import * as ClientConfig from "./ClientConfig.ts"
import * as ClientLog from "./ClientLog.ts"
import type { Auth } from "./Credentials.ts"
import * as Device from "./Device.ts"
import * as Lives from "./Live.ts"
import { type Live, Observable } from "./Live.ts"
import { type Access, CounterHandle, MapHandle, OrMapHandle, type Writing } from "./MapHandles.ts"
import { logout } from "./Logout.ts"
import * as NetworkEvents from "./NetworkEvents.ts"
import { serverStatus } from "./OnDemand.ts"
import { OpenQuery } from "./OpenQuery.ts"
import type {
  Ack,
  Client,
  ClientOptions,
  GridCounter,
  GridMap,
  GridOrMap,
  Waiting,
  Write,
  WriteOptions
} from "./PromiseClient.ts"
import { isQueryFault, Queries, searchQuery } from "./Queries.ts"
import type {
  QueryDelta,
  QueryHandle,
  QueryOptions,
  QueryState,
  SearchHit,
  SearchOptions,
  Shown
} from "./QueryTypes.ts"
import { toJsonLines } from "./RejectedWrites.ts"
import type { MapStatus, RejectedWrite, SyncStatus } from "./Reports.ts"
import { Replica } from "./Replica.ts"
import { SyncEngine } from "./SyncEngine.ts"
import { ofMap, Status } from "./SyncStatus.ts"
import { acknowledgement, awaitLocal, type LocalWrite } from "./Write.ts"

type Services = Queries | Replica | SyncEngine | Status

/** What the facade has once it is open. */
interface Open {
  readonly replica: Replica["Type"]
  readonly engine: SyncEngine["Type"]
  readonly status: Live<SyncStatus>
  readonly queries: Queries["Type"]
}

/** Writes that may wait for the opening. */
const earlyWritesMax = 1_000

const localOnly = Transport.Transport.of({
  connect: () => Effect.fail(new ConnectionLost({ reason: "this client has no server: give createClient a url" }))
})

/** What a test may put in the place of the real thing: another transport, another clock. */
export interface Surroundings {
  readonly transport?: Layer.Layer<Transport.Transport>
  readonly platform?: Layer.Layer<never>
}

const authOf = (auth: NonNullable<ClientOptions["auth"]>): Auth =>
  typeof auth === "string" ? auth : Effect.tryPromise({ try: async () => auth(), catch: (fault) => fault })

/** Whether a server is on this machine, which is reached without any network. */
const isLoopback = (url: string | undefined): boolean =>
  url !== undefined && URL.canParse(url) && /^(localhost|127(\.\d+){3}|\[::1\])$/.test(new URL(url).hostname)

const configOf = (options: ClientOptions): ClientConfig.Options => ({
  grid: (options.grid ?? []) as ReadonlyArray<Grid.Declaration>,
  ...(options.onError === undefined ? {} : { onError: options.onError }),
  logger: options.logger ?? (() => {}),
  autoConnect: (options.autoConnect ?? true) && options.url !== undefined,
  localOnly: options.url === undefined,
  ...(options.writeConcern === undefined ? {} : { writeConcern: options.writeConcern }),
  ...(options.writeTimeoutMs === undefined ? {} : { writeTimeoutMillis: options.writeTimeoutMs }),
  ...(options.auth === undefined ? {} : { auth: authOf(options.auth) }),
  ...(options.authTimeoutMs === undefined ? {} : { authTimeoutMillis: options.authTimeoutMs }),
  ...(options.stallMs === undefined ? {} : { stallMillis: options.stallMs }),
  network: options.network ?? (isLoopback(options.url) ? NetworkEvents.none : ClientConfig.defaults.network),
  ...(options.tabs === undefined ? {} : { tabs: options.tabs }),
  ...(options.backpressure === undefined ? {} : { backpressure: options.backpressure }),
  ...(options.backoff === undefined ? {} : {
    backoff: Backoff.make({
      ...(options.backoff.initialMs === undefined ? {} : { initial: options.backoff.initialMs }),
      ...(options.backoff.factor === undefined ? {} : { factor: options.backoff.factor }),
      ...(options.backoff.capMs === undefined ? {} : { cap: options.backoff.capMs }),
      ...(options.backoff.retries === undefined ? {} : { retries: options.backoff.retries })
    })
  })
})

/** A promise that may be left alone: its rejection is told elsewhere too. */
const quiet = <A>(promise: Promise<A>): Promise<A> => {
  promise.catch(() => {})
  return promise
}

const notOpen: SyncStatus = {
  state: "DISCONNECTED",
  tab: "only",
  pending: 0,
  rejected: 0,
  oldestPendingAt: undefined,
  backlog: "low",
  hasSynced: false,
  lastSyncedAt: undefined,
  storage: {
    kind: "opening",
    durable: false,
    fault: undefined,
    persisted: undefined,
    usage: undefined,
    quota: undefined
  },
  clockSkewMillis: 0,
  failure: undefined,
  needsAuth: false,
  stalled: false
}

/** The device's runtime, and what waits for it to be open. */
class Facade {
  readonly config: ClientConfig.Options
  /** Hears of faults, and has them logged: the layers below do so by themselves. */
  readonly onFault: (fault: unknown) => void
  /** Rejects when the device can't be opened, or is closed before it is. */
  readonly opening: Promise<Open>
  readonly #runtime: ManagedRuntime.ManagedRuntime<Services, unknown>
  readonly #running = new Set<AbortController>()
  readonly #maps = new Map<string, Grid.Declaration>()
  /** In the order of the calls: the writes and listeners that wait for the opening. */
  readonly #whenOpen = new Set<(open: Open) => void>()
  readonly #abandon: (fault: ClientClosed) => void
  #open: Open | undefined
  #opens = true
  #closed = false
  #earlyWrites = 0

  constructor(options: ClientOptions, surroundings: Surroundings) {
    const transport = surroundings.transport ??
      Layer.succeed(
        Transport.Transport,
        options.url === undefined ? localOnly : Transport.makeWebSocket({ url: options.url })
      )
    const name = ["topgun", options.url ?? "local", options.userId ?? "", options.storageKey ?? ""].join("|")
    const storage = Storage.layerAdapter(() => options.storage ?? Storage.memory(), name)
    this.config = configOf(options)
    this.onFault = ClientLog.telling(ClientLog.ofLogger(options.logger), options.onError)
    this.#runtime = ManagedRuntime.make(
      Device.layer.pipe(
        Layer.provide([ClientConfig.layer(this.config), Device.parts, storage, transport]),
        Layer.provide(surroundings.platform ?? Layer.empty)
      )
    )
    const abandoned = new AbortController()
    this.#abandon = (fault) => abandoned.abort(fault)
    const services = this.run(Effect.all({ replica: Replica, engine: SyncEngine, status: Status, queries: Queries }))
    this.opening = new Promise<Open>((resolve, reject) => {
      abandoned.signal.addEventListener("abort", () => reject(abandoned.signal.reason))
      services.then(resolve, reject)
    }).then((open) => {
      this.#opens = false
      this.#open = open
      for (const declaration of this.#maps.values()) this.#openOrTell(open, declaration)
      for (const enter of this.#whenOpen) enter(open)
      this.#forget()
      return open
    })
    this.opening.catch((fault: unknown) => {
      this.#opens = false
      // Of a closing before the opening only the writes that it costs are worth telling.
      if (!this.#closed || this.#earlyWrites > 0) this.onFault(fault)
      this.#forget()
    })
  }

  #forget(): void {
    this.#maps.clear()
    this.#whenOpen.clear()
    this.#earlyWrites = 0
  }

  get current(): Open | undefined {
    return this.#closed ? undefined : this.#open
  }

  get isClosed(): boolean {
    return this.#closed
  }

  /** What was opened, be it closed since. */
  get opened(): Open | undefined {
    return this.#open
  }

  /** Writes that wait for the opening. */
  get earlyWrites(): number {
    return this.#earlyWrites
  }

  /** Now, or as soon as the client is open, until the returned function is called. */
  whenOpen(enter: (open: Open) => void): () => void {
    if (this.#open !== undefined) enter(this.#open)
    else if (this.#opens) this.#whenOpen.add(enter)
    return () => this.#whenOpen.delete(enter)
  }

  /** Opens a map, now or with the client. @throws MapKindMismatch */
  openMap(declaration: Grid.Declaration): void {
    if (this.#open !== undefined) {
      this.#open.replica.openDeclared(declaration)
      return
    }
    const { name } = declaration
    const expected = Grid.kindOf(this.#maps.get(name) ?? declaration)
    const actual = Grid.kindOf(declaration)
    if (expected !== actual) throw new MapKindMismatch({ map: name, expected, actual })
    if (this.#opens && !this.#maps.has(name)) this.#maps.set(name, declaration)
  }

  /** What this device remembers of a map doesn't stop the others from being opened. */
  #openOrTell(open: Open, declaration: Grid.Declaration): void {
    try {
      open.replica.openDeclared(declaration)
    } catch (fault) {
      this.onFault(fault)
    }
  }

  /** Makes a write now or, in the order of the calls, when the client is open. @throws WriteRefusal */
  write(writing: Writing, options?: WriteOptions, early?: () => void): Write {
    if (this.#closed) throw new ClientClosed()
    const concern = options?.writeConcern ?? this.config.writeConcern ?? ClientConfig.defaults.writeConcern
    const timeoutMillis = options?.timeoutMs ?? this.config.writeTimeoutMillis ??
      ClientConfig.defaults.writeTimeoutMillis
    if (this.#open !== undefined) return new FacadeWrite(this, writing(this.#open.replica, concern), timeoutMillis)
    early?.()
    if (this.#earlyWrites >= earlyWritesMax) {
      throw new BackpressureError({ pending: this.#earlyWrites, capacity: earlyWritesMax })
    }
    if (this.#opens) this.#earlyWrites++
    const made = new Promise<LocalWrite>((resolve, reject) => {
      this.opening.catch(reject)
      this.whenOpen(({ replica }) => {
        try {
          resolve(writing(replica, concern))
        } catch (fault) {
          this.onFault(fault)
          reject(fault)
        }
      })
    })
    return new FacadeWrite(this, quiet(made), timeoutMillis)
  }

  async run<A, E>(effect: Effect.Effect<A, E, Services>, waiting?: Waiting): Promise<A> {
    const { signal } = waiting ?? {}
    if (this.#closed) throw new ClientClosed()
    const own = new AbortController()
    const abort = () => own.abort()
    if (signal?.aborted === true) abort()
    signal?.addEventListener("abort", abort)
    this.#running.add(own)
    const exit = await this.#runtime.runPromiseExit(effect, { signal: own.signal })
    this.#running.delete(own)
    signal?.removeEventListener("abort", abort)
    if (Exit.isSuccess(exit)) return exit.value
    if (signal?.aborted === true) throw signal.reason
    throw Cause.isInterruptedOnly(exit.cause) ? new ClientClosed() : Cause.squash(exit.cause)
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#abandon(new ClientClosed())
    // Nothing comes of an opening any more, but it is waited for, so that storage is closed when this resolves.
    if (this.#open === undefined) this.#abort()
    await this.#runtime.dispose()
    // What still waits now waits for something that can't come any more.
    this.#abort()
  }

  #abort(): void {
    for (const each of this.#running) each.abort()
  }
}

class FacadeWrite implements Write {
  readonly #facade: Facade
  readonly #made: LocalWrite | Promise<LocalWrite>
  readonly #timeoutMillis: number
  #local: Promise<void> | undefined
  #server: Promise<Ack> | undefined

  constructor(facade: Facade, made: LocalWrite | Promise<LocalWrite>, timeoutMillis: number) {
    this.#facade = facade
    this.#made = made
    this.#timeoutMillis = timeoutMillis
  }

  get local(): Promise<void> {
    this.#local ??= quiet(this.#run(awaitLocal))
    return this.#local
  }

  get server(): Promise<Ack> {
    this.#server ??= quiet(
      this.#run((write) => Effect.flatMap(Replica, ({ outbox }) => acknowledgement(write, outbox, this.#timeoutMillis)))
    )
    return this.#server
  }

  // oxlint-disable-next-line unicorn/no-thenable -- a write can be awaited, as its documentation says
  then<B, C>(
    onFulfilled?: ((value: void) => B | PromiseLike<B>) | null,
    onRejected?: ((reason: unknown) => C | PromiseLike<C>) | null
  ): Promise<B | C> {
    return this.local.then(onFulfilled, onRejected)
  }

  async #run<A, E>(wait: (write: LocalWrite) => Effect.Effect<A, E, Services>): Promise<A> {
    return this.#facade.run(wait(this.#made instanceof Promise ? await this.#made : this.#made))
  }
}

/** Attaches a listener as soon as the client is open, unless it was stopped before. Answers what stops it. */
const listenIn = (
  facade: Facade,
  signal: AbortSignal | undefined,
  attach: (open: Open, signal: AbortSignal) => void
): () => void => {
  const stop = new AbortController()
  signal?.addEventListener("abort", () => stop.abort(), { signal: stop.signal })
  const forget = facade.whenOpen((open) => {
    if (!stop.signal.aborted && signal?.aborted !== true) attach(open, stop.signal)
  })
  stop.signal.addEventListener("abort", forget)
  return () => stop.abort()
}

/** The way to a map that is there as soon as the client is open. @throws MapKindMismatch */
const accessOf = <D extends Grid.Declaration>(facade: Facade, declaration: D): Access<Grid.KindOf<D>, Write> => {
  const { name } = declaration
  facade.openMap(declaration)
  let crdt: CrdtOf<Grid.KindOf<D>> | undefined
  let status: Live<MapStatus> | undefined
  const opened = (): Open => {
    if (facade.isClosed) throw new ClientClosed()
    if (facade.current === undefined) throw new NotLoaded({ map: name })
    return facade.current
  }
  const statusIn = ({ engine }: Open) => status ??= ofMap(engine, name)
  return {
    crdt: () => {
      const { replica } = opened()
      return crdt ??= replica.openDeclared(declaration)
    },
    listen: (attach, signal) =>
      listenIn(facade, signal, ({ replica }, own) => void attach(replica.audience(name), own)),
    write: (writing, options, early) => facade.write(writing, options, early),
    status: Lives.make(
      () => statusIn(opened()).current,
      (listener, signal) =>
        listenIn(facade, signal, (open, own) => void statusIn(open).subscribe(listener, { signal: own }))
    )
  }
}

class FacadeMap<A> extends MapHandle<A, Write> implements GridMap<A> {
  readonly #facade: Facade

  constructor(facade: Facade, declaration: Grid.MapDeclaration<A>) {
    super(declaration, accessOf(facade, declaration))
    this.#facade = facade
  }

  watch(key: string): Live<A | undefined> {
    return this.live(key)
  }

  async ready(): Promise<void> {
    await this.#facade.opening
  }
}

class FacadeOrMap<A> extends OrMapHandle<A, Write> implements GridOrMap<A> {
  readonly #facade: Facade

  constructor(facade: Facade, declaration: Grid.OrMapDeclaration<A>) {
    super(declaration, accessOf(facade, declaration))
    this.#facade = facade
  }

  watch(key: string): Live<ReadonlyArray<A>> {
    return this.live(key)
  }

  async ready(): Promise<void> {
    await this.#facade.opening
  }
}

class FacadeCounter extends CounterHandle<Write> implements GridCounter {
  readonly #facade: Facade

  constructor(facade: Facade, declaration: Grid.CounterDeclaration) {
    super(declaration, accessOf(facade, declaration))
    this.#facade = facade
  }

  async ready(): Promise<void> {
    await this.#facade.opening
  }
}

/** A query that is answered as soon as the client is open, and as what it takes is loaded. */
class FacadeQuery<A> implements QueryHandle<A> {
  readonly #facade: Facade
  readonly #query: OpenQuery<A>
  readonly #forget: () => void

  constructor(facade: Facade, declaration: Grid.MapDeclaration<unknown>, query: Query.Query) {
    this.#facade = facade
    this.#query = new OpenQuery<A>(declaration.name, query, facade.onFault)
    const own = this.#query
    // Who asks an open client hears of it at once.
    let isBeginning = facade.current !== undefined
    this.#forget = facade.whenOpen(({ queries }) => {
      try {
        queries.ask(declaration, own)
      } catch (fault) {
        if (isBeginning) throw fault
        if (isQueryFault(fault)) own.fail(fault)
        else facade.onFault(fault)
      }
    })
    isBeginning = false
    facade.opening.catch(() => own.end())
  }

  get current(): QueryState<A> {
    return this.#query.current
  }

  subscribe(listener: (state: QueryState<A>) => void, options?: { readonly signal?: AbortSignal }): () => void {
    return this.#query.subscribe(listener, options?.signal)
  }

  [Symbol.asyncIterator](): AsyncIterator<QueryState<A>> {
    return Lives.make(() => this.current, (listener) => this.subscribe(listener))[Symbol.asyncIterator]()
  }

  changes(listener: (delta: QueryDelta<A>) => void, options?: { readonly signal?: AbortSignal }): () => void {
    const { signal } = options ?? {}
    if (signal?.aborted === true) return () => {}
    const { stop } = this.#query.listen((changes) => {
      const delta = this.#query.isClosed ? undefined : changes.take()
      if (delta !== undefined) Lives.notifyAll([listener], delta, this.#facade.onFault)
    })
    signal?.addEventListener("abort", stop)
    return () => {
      signal?.removeEventListener("abort", stop)
      stop()
    }
  }

  async fetchMore(count?: number, options?: Waiting): Promise<void> {
    if (this.#query.isClosed) return
    await this.#facade.opening
    await this.#facade.run(this.#query.fetchMore(count), options)
  }

  close(): void {
    this.#forget()
    this.#query.close()
  }
}

/** Opens a client in its surroundings: the real ones, but for what is given. */
export const makeClient = (options: ClientOptions, surroundings: Surroundings = {}): Client => {
  const facade = new Facade(options, surroundings)
  const status = new Observable<SyncStatus>(notOpen, facade.onFault)
  /** The status shown before the client is open: the same object until it changes, as later. */
  let early = { of: notOpen, shown: notOpen }
  const rejected = Lives.make<ReadonlyArray<RejectedWrite>>(
    () => facade.opened?.replica.rejected.list.current ?? [],
    (listener, signal) =>
      listenIn(facade, signal, ({ replica }, own) => void replica.rejected.list.subscribe(listener, { signal: own }))
  )
  facade.whenOpen((open) => {
    const refresh = () => status.set(open.status.current)
    refresh()
    open.status.subscribe(refresh)
  })
  facade.opening.catch((fault: unknown) => {
    const kind = options.storage?.kind ?? "memory"
    status.set({ ...notOpen, storage: { ...notOpen.storage, kind, fault: String(fault) } })
  })
  const close = async (): Promise<void> => {
    await facade.close()
    if (facade.opened !== undefined) status.set(facade.opened.status.current)
  }
  const engine = <A, E>(use: (engine: SyncEngine["Type"]) => Effect.Effect<A, E>, waiting?: Waiting): Promise<A> =>
    facade.run(Effect.flatMap(SyncEngine, use), waiting)
  return {
    map: (map) => new FacadeMap(facade, Grid.resolveMap(map)),
    orMap: (map) => new FacadeOrMap(facade, Grid.resolveOrMap(map)),
    counter: (counter) => new FacadeCounter(facade, Grid.resolveCounter(counter)),
    query: <A, Path extends FieldPath<A>>(map: Grid.MapLike<A>, query: QueryOptions<A, Path> = {}) => {
      if (facade.isClosed) throw new ClientClosed()
      const declaration = Grid.resolveMap(map)
      const parsed = Query.parse(query)
      facade.openMap(declaration)
      return new FacadeQuery<Shown<A, Path>>(facade, declaration, parsed)
    },
    count: async (map, where, waiting) => {
      const parsed = Query.parse({ where })
      return facade.run(Effect.flatMap(Queries, (queries) => queries.count(Grid.resolveMap(map), parsed)), waiting)
    },
    search: async <A>(map: Grid.MapLike<A>, text: string, given: SearchOptions<A> & Waiting = {}) => {
      const { signal, ...search } = given
      const parsed = searchQuery(text, search)
      const hits = await facade.run(
        Effect.flatMap(Queries, (queries) => queries.search(Grid.resolveMap(map), parsed)),
        signal === undefined ? {} : { signal }
      )
      return hits as ReadonlyArray<SearchHit<A>>
    },
    explain: async (map, query = {}, by = {}) => {
      const parsed = Query.parse(query)
      return facade.run(Effect.flatMap(Queries, (queries) => queries.explain(Grid.resolveMap(map), parsed, by)), by)
    },
    batch: (build, batchOptions) =>
      facade.write(
        (replica, concern) => replica.writeAll(() => draftsOf(replica, build), concern, true),
        batchOptions
      ),
    ready: async (waiting) => {
      await facade.run(Effect.void, waiting)
      await facade.opening
    },
    synced: (waiting) => engine(({ synced }) => synced, waiting),
    status: {
      get current() {
        if (facade.current !== undefined) return facade.current.status.current
        const pending = status.current.pending + facade.earlyWrites
        if (early.of !== status.current || early.shown.pending !== pending) {
          early = { of: status.current, shown: { ...status.current, pending } }
        }
        return early.shown
      },
      subscribe: status.live.subscribe,
      [Symbol.asyncIterator]: status.live[Symbol.asyncIterator]
    },
    rejectedWrites: Lives.extend(rejected, {
      retry: (id: string) => {
        const write = facade.current?.replica.rejected.get(id)
        if (write === undefined) throw new RangeError(`There is no rejected write "${id}"`)
        const retried = facade.write(again(write))
        retried.local.then(() => facade.current?.replica.rejected.take(id), () => {})
        return retried
      },
      discard: (id: string) => void facade.current?.replica.rejected.take(id),
      export: () => toJsonLines(rejected.current)
    }),
    connect: () => engine(({ connect }) => connect),
    disconnect: () => engine(({ disconnect }) => disconnect),
    resetConnection: () => engine(({ resetConnection }) => resetConnection),
    setAuthToken: (token) => void facade.whenOpen(({ engine: { giveToken } }) => giveToken(token)),
    logout: async (logoutOptions) => {
      await facade.run(
        Effect.flatMap(Effect.all([Replica, SyncEngine]), ([replica, sync]) => logout(replica, sync, logoutOptions)),
        logoutOptions
      )
      await close()
    },
    serverStatus: (waiting) => facade.run(serverStatus, waiting),
    close,
    [Symbol.asyncDispose]: close
  }
}
