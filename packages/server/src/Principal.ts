/** Whom a token is of, and what it says of them. */
import * as Schema from "effect/Schema"

/** Text that a log or a terminal shows as it is: no control characters, no line breaks, no halves of a character. */
const plainText = (lengthMax: number) =>
  Schema.String.pipe(
    Schema.minLength(1),
    Schema.maxLength(lengthMax),
    Schema.pattern(/^[^\p{Cc}\p{Cs}\p{Zl}\p{Zp}]*$/u)
  )

/** The name of a user: 1 to 256 characters, none of them control characters. It's compared as it is, and means nothing else. */
export const UserId = plainText(256)

/** What a user may be, as the issuer of tokens has it: up to 100 names of 1 to 128 characters. */
export const Roles = Schema.Array(plainText(128)).pipe(Schema.maxItems(100))

/** What else is said of a user: one value, or a list of texts. A token's length bounds it. */
export const Attribute = Schema.Union(Schema.String, Schema.Finite, Schema.Boolean, Schema.Array(Schema.String))
/** What else is said of a user. */
export type Attribute = typeof Attribute.Type

/** Whom a token is of. */
export const Principal = Schema.Struct({
  userId: UserId,
  /** Absent when the token has no word of roles. */
  roles: Schema.optional(Roles),
  /** By name. Absent when nothing is carried over. */
  attributes: Schema.optional(Schema.Record({ key: Schema.String, value: Attribute })),
  /** When the token expires by the server's clock, in ms; absent when it doesn't. */
  expiresAt: Schema.optional(Schema.Finite)
})
/** Whom a token is of. */
export type Principal = typeof Principal.Type
