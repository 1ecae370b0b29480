/**
 * The laws of CRDTs, written once (Shapiro, Preguiça, Baquero, Zawirski 2011): a merge is a join, and replicas that have
 * the same operations are the same, in whatever order, parts and number they came.
 *
 * Give arbitraries of tiny domains (two or three keys, stamps and values): then ties and repetitions, where the bugs are,
 * come up in every run.
 */
// tidy-allow import-house: it is one module, and never runs in a browser.
import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"

/** Cases of each law, also those of which few are distinct: the domains are tiny, but their combinations are not. */
const runs = { fastCheck: { numRuns: 10_000 } }

/** Tests that `merge` is a join: commutative, associative and idempotent. */
export const laws = <A>(name: string, join: {
  readonly arbitrary: FastCheck.Arbitrary<A>
  /** Must leave its arguments as they are. */
  readonly merge: (a: A, b: A) => A
  readonly equals: (a: A, b: A) => boolean
}): void => {
  const { arbitrary, equals, merge } = join
  const same = (a: A, b: A) => assert.isTrue(equals(a, b))
  describe(`${name} is a join`, () => {
    it.prop("merging is commutative", [arbitrary, arbitrary], ([a, b]) => same(merge(a, b), merge(b, a)), runs)
    it.prop(
      "merging is associative",
      [arbitrary, arbitrary, arbitrary],
      ([a, b, c]) => same(merge(merge(a, b), c), merge(a, merge(b, c))),
      runs
    )
    it.prop("merging is idempotent", [arbitrary], ([a]) => same(merge(a, a), a), runs)
    it.prop(
      "merging what was merged before changes nothing",
      [arbitrary, arbitrary],
      ([a, b]) => same(merge(merge(a, b), b), merge(a, b)),
      runs
    )
  })
}

/** A replica that takes operations, and other replicas. It may be changed in place. */
export interface Replicated<Replica, Operation> {
  readonly operation: FastCheck.Arbitrary<Operation>
  readonly make: () => Replica
  readonly apply: (replica: Replica, operation: Operation) => void
  /** Takes over all that another replica has. */
  readonly merge: (into: Replica, from: Replica) => void
  /** Over the whole state, not only what reads show. */
  readonly digest: (replica: Replica) => string
}

/** Operations, an order of them in which each comes once or more often, and for each a replica that gets it first. */
const deliveries = <Operation>(operation: FastCheck.Arbitrary<Operation>) =>
  FastCheck.array(operation, { maxLength: 6 }).chain((operations) => {
    const indexes = operations.map((_, i) => i)
    return FastCheck.record({
      operations: FastCheck.constant(operations),
      order: FastCheck.array(FastCheck.constantFrom(...indexes, 0), { maxLength: operations.length === 0 ? 0 : 4 })
        .chain((again) =>
          FastCheck.shuffledSubarray([...indexes, ...again], { minLength: indexes.length + again.length })
        ),
      parts: FastCheck.array(FastCheck.nat(2), { minLength: operations.length, maxLength: operations.length }),
      merges: FastCheck.shuffledSubarray([[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]] as const)
    })
  })

/** Tests that replicas converge: any order, any repetition, any partition of the operations leads to equal digests. */
export const convergence = <Replica, Operation>(name: string, crdt: Replicated<Replica, Operation>): void => {
  const { apply, digest, make, merge } = crdt
  const inOrder = (operations: ReadonlyArray<Operation>): Replica => {
    const replica = make()
    for (const operation of operations) apply(replica, operation)
    return replica
  }
  const given = { delivery: deliveries(crdt.operation) }
  describe(`${name} converges`, () => {
    it.prop("whatever the order and repetition of its operations", given, ({ delivery: { operations, order } }) => {
      const shuffled = inOrder(order.map((at) => operations[at]!))
      assert.strictEqual(digest(shuffled), digest(inOrder(operations)))
    }, runs)

    it.prop("however its operations were spread over replicas, once these have met", given, ({ delivery }) => {
      const { merges, operations, parts } = delivery
      const replicas = [make(), make(), make()]
      operations.forEach((operation, i) => apply(replicas[parts[i]!]!, operation))
      for (const [into, from] of merges) merge(replicas[into]!, replicas[from]!)
      // Whatever met before: now the first meets all, and all meet it.
      merge(replicas[0]!, replicas[1]!)
      merge(replicas[0]!, replicas[2]!)
      merge(replicas[1]!, replicas[0]!)
      merge(replicas[2]!, replicas[0]!)
      const expected = digest(inOrder(operations))
      for (const replica of replicas) assert.strictEqual(digest(replica), expected)
    }, runs)

    it.prop(
      "and a replica that meets itself or an older self stays as it is",
      given,
      ({ delivery: { operations } }) => {
        const replica = inOrder(operations)
        const before = digest(replica)
        merge(replica, inOrder(operations.slice(0, operations.length >> 1)))
        merge(replica, inOrder(operations))
        assert.strictEqual(digest(replica), before)
      },
      runs
    )
  })
}
