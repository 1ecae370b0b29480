/** Numbers as people read them. */

export const figure = (count: number): string => count.toLocaleString("en")

/** `1 key`, `2,000 keys`. */
export const counted = (count: number, one: string): string => `${figure(count)} ${one}${count === 1 ? "" : "s"}`
